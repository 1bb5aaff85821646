"""The linear datamodeling score: its arithmetic, and retraining that goes on, fails and ends cleanly."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rapidin
from rapidin.errors import ComputationError, SettingError
from rapidin.evaluation.experiments.datamodeling import Retraining, linear_datamodeling
from rapidin.evaluation.experiments.experiment_data import training_set
from rapidin.evaluation.experiments.retrained_queries import RetrainingPlace
from rapidin.evaluation.experiments.subset_correlations import (
    datamodeling_scores,
    noise_ceiling,
    repeat_agreement,
    subset,
)
from rapidin.evaluation.retraining.input_digests import inputs_digest
from rapidin.evaluation.retraining.retraining_pool import place_of, retrained_losses
from rapidin.evaluation.retraining.trainer import (
    OUTPUT,
    UNFINISHED,
    Job,
    Tokens,
    Trainer,
    Training,
    losses_of,
    trained,
)
from rapidin.model.store_model import StoreModel
from rapidin.model.training_loop import Schedule
from rapidin.records import Interval, LdsReport
from rapidin.search import read_queries
from rapidin.settings import ModelSettings
from tests import worlds

DYING = "tests.evaluation.retraining.dying_trainer:die"
BRIEF = Schedule(epochs_all=0, epochs_response=2, batch=4, warm_up=1)


def members_of(samples: int, subsets: int) -> np.ndarray:
    return np.stack([subset(samples, 0.5, 3, number) for number in range(subsets)])


def test_losses_linear_in_the_samples_give_one_and_chance_gives_zero():
    random = np.random.default_rng(0)
    members = members_of(80, 60)
    scores = random.normal(size=(30, 80)).astype(np.float32)
    losses = 5.0 - members @ scores.T.astype(np.float64)
    assert datamodeling_scores(scores, members, losses) == pytest.approx(np.ones(30))
    assert datamodeling_scores(3 * scores + 1, members, np.exp(losses)) == pytest.approx(np.ones(30))
    assert datamodeling_scores(-scores, members, losses) == pytest.approx(-np.ones(30))
    chance = datamodeling_scores(random.normal(size=(30, 80)).astype(np.float32), members, losses)
    # A rank correlation of 60 independent pairs has standard deviation 1/√59, a mean of 30 of them 0.024.
    assert abs(chance.mean()) < 4 * 0.024
    assert chance.std() == pytest.approx(0.13, rel=0.5)


def test_a_method_that_tells_nothing_apart_gets_zero_and_losses_that_do_not_are_an_error():
    members = members_of(10, 6)
    losses = np.random.default_rng(1).normal(size=(6, 2))
    assert datamodeling_scores(np.zeros((2, 10), dtype=np.float32), members, losses).tolist() == [0, 0]
    for wrong in (1.0, float("nan")):
        losses[:, 1] = wrong
        with pytest.raises(ComputationError, match="query 2: its loss is not finite, or the same under all 6"):
            datamodeling_scores(np.ones((2, 10), dtype=np.float32), members, losses)


def test_subsets_are_halves_and_do_not_depend_on_their_number():
    members = members_of(41, 200)
    assert set(members.sum(axis=1)) == {20}
    assert np.abs(members.mean(axis=0) - 20 / 41).max() < 0.15
    assert len({row.tobytes() for row in members}) == 200
    assert (subset(41, 0.5, 3, 7) == members[7]).all()
    assert (subset(41, 0.5, 4, 7) != members[7]).any()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    directory = tmp_path_factory.mktemp("lds")
    data = worlds.write_rows(directory / "train.jsonl", worlds.rows(12))
    worlds.write_rows(directory / "queries.jsonl", worlds.rows(3, first=50))
    rapidin.ingest_files(
        directory / "store", [data], model=str(model_directory), projection_dim=128, curvature=False
    )
    return directory / "store"


def run(store: Path, work: Path, methods: list[str], retraining: Retraining) -> LdsReport:
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        place = RetrainingPlace(opened, model, work, device="cpu")
        return linear_datamodeling(place, store.parent / "queries.jsonl", methods, retraining)


def test_methods_are_judged_by_what_retraining_does(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a trainer whose losses are linear in what bm25 says, bm25 is perfect, and chance is not."""
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        from rapidin.evaluation.methods.registry import METHODS, Context, MethodOptions

        training = training_set(opened, model, ())
        asked = RetrainingPlace(opened, model, tmp_path).asked(store.parent / "queries.jsonl")
        scorer = METHODS["bm25"].make(Context(opened, model, (), "cpu", MethodOptions()))
        if hasattr(scorer, "prepare"):
            scorer.prepare(training)
        scores = scorer.scores(asked, training)
        assert np.ptp(scores, axis=1).min() > 0

    noise = np.random.default_rng(2)

    def linear(job: Job, members: np.ndarray, seeds: list[int], *_: object) -> np.ndarray:
        exact = 7 - members @ scores.T.astype(np.float64)
        return exact + np.where(np.array(seeds)[:, None] > 0, noise.normal(scale=exact.std(), size=exact.shape), 0)

    monkeypatch.setattr("rapidin.evaluation.experiments.retrained_queries.retrained_losses", linear)
    report = run(store, tmp_path, ["random"], Retraining(subsets=40))
    assert [method.name for method in report.methods] == ["random", "bm25"]  # which is always judged
    assert (report.repeats, report.agreement, report.noise_ceiling) == (1, None, None)
    by_name = {method.name: method for method in report.methods}
    assert by_name["bm25"].by_query == pytest.approx([1.0] * 3, abs=1e-3)
    assert by_name["bm25"].lds.mean == pytest.approx(1.0, abs=1e-3)
    assert abs(by_name["random"].lds.mean) < 0.6  # 12 samples, so chance goes far
    assert report.queries == ("row-50", "row-51", "row-52")
    assert (report.samples, report.subsets, report.fraction) == (12, 40, 0.5)

    # Removals of one sample, and repeats of which all but the first are noisy.
    report = run(store, tmp_path, ["bm25"], Retraining(subsets=40, fraction=0.92, repeats=3))
    assert report.noise_ceiling is not None
    assert report.agreement is not None
    assert report.agreement.mean < report.noise_ceiling.mean < 0.95
    assert report.methods[0].lds.mean < 0.95


def test_the_noise_ceiling_is_what_a_perfect_prediction_reaches():
    random = np.random.default_rng(0)
    exact = random.normal(size=(400, 20))
    for repeats in (2, 4):
        losses = exact + random.normal(size=(repeats, 400, 20))
        agreement = repeat_agreement(losses)
        assert agreement.mean() == pytest.approx(0.48, abs=0.03)  # half the variance is noise; ranks lose a little
        reached = datamodeling_scores(exact.T.astype(np.float32), np.eye(400, dtype=bool), -losses.mean(axis=0))
        ceiling = noise_ceiling(Interval(agreement.mean(), 0.0, 1.0), repeats)
        assert ceiling.mean == pytest.approx(reached.mean(), abs=0.02)
        assert (ceiling.low, ceiling.high) == (0.0, 1.0)
    assert noise_ceiling(Interval(-0.1, None, None), 2) == Interval(0.0, None, None)


@pytest.mark.slow
def test_retraining_is_resumed_and_gives_the_same_losses_by_any_number_of_processes(
    store: Path, tmp_path: Path
) -> None:
    training = Training(schedule=BRIEF, seed=5)
    first = run(store, tmp_path, ["random"], Retraining(training, subsets=5, jobs=2))
    directory = Path(first.work)
    chosen = subset(12, 0.5, 0, 3)
    file = next(place_of(directory, chosen, 5).glob("losses-*.json"))
    files = sorted(directory.glob("*/losses-*.json"))
    assert len(files) == 5
    assert not list(directory.glob("*/model"))
    # The oracle: the same training here.
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        samples = [Tokens(one.ids, one.targets) for one in training_set(opened, model, ()).encoded()]
        rows = read_queries(store.parent / "queries.jsonl", opened.settings.text)
        asked = [model.prepared(row, 8)[1] for row in rows]
        queries = [Tokens(one.ids, one.targets) for one in asked]
        rows = [samples[number] for number in np.flatnonzero(chosen)]
        expected = losses_of(trained(training, model.settings.model, rows), queries)
    assert json.loads(file.read_text()) == pytest.approx(expected, rel=1e-4)
    before = {file: file.stat().st_mtime_ns for file in files}
    file.write_text("[1.0")  # as if a crash had damaged it
    again = run(store, tmp_path, ["random"], Retraining(training, subsets=5, jobs=1))
    assert json.loads(file.read_text()) == pytest.approx(expected, rel=1e-4)
    assert {one for one in files if one.stat().st_mtime_ns != before[one]} == {file}
    assert again.methods == first.methods or again.methods[0].lds == first.methods[0].lds


SCRIPT = """
import json, shutil, sys
from pathlib import Path
data, output, seed, model = sys.argv[1:]
rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
print("training on", len(rows), "rows with seed", seed)
Path(data).with_name("seen.json").write_text(json.dumps(rows))
if "fail" in model:
    sys.exit("no such optimiser: adamx")
if "nothing" not in model:
    shutil.copytree(model, output)
"""


def command_of(tmp_path: Path, model: str) -> str:
    script = tmp_path / "a script.py"
    script.write_text(SCRIPT)
    program = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}"
    return f"{program} {{data}} {{output}} {{seed}} {shlex.quote(model)}"


def test_a_command_trains_on_the_rows_of_the_files(store: Path, tmp_path: Path, model_directory: Path) -> None:
    training = Training(command_of(tmp_path, str(model_directory)), seed=9)
    data = (store.parent / "train.jsonl",)
    # The script trains nothing, so all losses are the same, which is told.
    with pytest.raises(ComputationError, match="query 1: its loss is not finite, or the same under all 5"):
        run(store, tmp_path, ["random"], Retraining(training, subsets=5, jobs=1, data=data, keep=True))
    (directory,) = tmp_path.glob("bank-*")
    rows = {row["id"]: row for row in worlds.rows(12)}
    for number in range(5):
        place = place_of(directory, subset(12, 0.5, 0, number), 9)
        seen = json.loads((place / "seen.json").read_text())
        assert len(seen) == 6
        assert all(rows[row["id"]] == row for row in seen)
        ids = sorted(rows)
        assert [row["id"] for row in seen] == [ids[one] for one in np.flatnonzero(subset(12, 0.5, 0, number))]
        assert "training on 6 rows with seed 9" in (place / "log.txt").read_text()
        assert (place / "model").is_dir()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("fail", r"--command failed with exit code 1, see .*txt: training on 6 rows .* no such optimiser: adamx"),
        ("nothing", r"saved no checkpoint of transformers or PEFT in .* ends: training on 6 rows"),
    ],
)
def test_a_command_that_fails_says_why(store: Path, tmp_path: Path, model: str, message: str) -> None:
    training = Training(command_of(tmp_path, model))
    with pytest.raises(ComputationError, match=r"subset 0: .*" + message):
        run(store, tmp_path, ["random"], Retraining(training, subsets=5, jobs=1))


@pytest.mark.parametrize(
    ("settings", "methods", "message"),
    [
        ({"training": Training("train {data}")}, ["random"], "--command lacks {output}: write it like"),
        ({"training": Training("train '{data} {output}")}, ["random"], "--command cannot be read: No closing"),
        ({"subsets": 4}, ["random"], "--subsets 4 is too few to rank models: give at least 5"),
        ({"fraction": 1.5}, ["random"], "--fraction 1.5 cannot be used"),
        ({"fraction": 0.01}, ["random"], "--fraction 0.01 of 12 samples is 0"),
        ({}, ["chance"], "--method 'chance' is unknown: give one of rapidin"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    store: Path, tmp_path: Path, settings: dict[str, Any], methods: list[str], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        run(store, tmp_path, methods, Retraining(**settings))


@pytest.mark.slow
def test_an_interruption_ends_all_that_was_started(store: Path, tmp_path: Path) -> None:
    """The command's own child sleeps; after Ctrl-C neither it nor the process that started it is there."""
    started = tmp_path / "started"
    script = tmp_path / "sleeps.py"
    script.write_text(
        "import os, sys, time, pathlib\n"
        f"pathlib.Path({str(started)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}}')\n"
        "time.sleep(600)\n"
    )
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{data}} {{output}}"
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.evaluation.experiments.test_linear_datamodeling import run, Retraining, Training\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), ['random'], Retraining(Training(sys.argv[3]), subsets=5))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(store), str(tmp_path), command], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    pids = [int(pid) for pid in started.read_text().split()]
    parent.send_signal(signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def test_a_process_that_dies_is_an_error_with_its_log(tmp_path: Path) -> None:
    job = Job(tmp_path / "lds", Training(), ModelSettings(model="nowhere"), [], [Tokens((1, 2), (False, True))])
    members = np.ones((1, 1), dtype=bool)
    with pytest.raises(ComputationError, match=r"subset 0: its process ended .* ends: Killed: too large"):
        retrained_losses(job, members, [0], 1, lambda file, chosen: None, trainer=DYING)


def test_what_a_retraining_reads_decides_where_its_losses_are_kept(
    tmp_path: Path, model_directory: Path, other_model_directory: Path
) -> None:
    script, data, initial = tmp_path / "train.py", tmp_path / "rows.jsonl", tmp_path / "initial"
    script.write_text("first")
    data.write_text("{}")
    initial.symlink_to(model_directory)
    command, begun = Training(f"python '{script}' {{data}} {{output}}"), Training(initial=str(initial))

    def digests() -> list[object]:
        return [inputs_digest(command, ()), inputs_digest(Training(), (data,)), inputs_digest(begun, ())]

    before = digests()
    assert digests() == before
    script.write_text("other")
    data.write_text("[]")
    initial.unlink()
    initial.symlink_to(other_model_directory)
    assert all(new != old for new, old in zip(digests(), before, strict=True))


def test_kept_losses_do_not_stand_for_checkpoints_that_should_be_kept(tmp_path: Path) -> None:
    queries = [Tokens((1, 2), (False, True))]
    members = np.ones((1, 1), dtype=bool)
    place = place_of(tmp_path, members[0], 0)

    def job_of(keep: bool) -> Job:
        return Job(tmp_path, Training(), ModelSettings(model="nowhere"), [], queries, keep)

    def losses(keep: bool) -> list[list[float]]:
        return retrained_losses(job_of(keep), members, [0], 1, lambda file, chosen: None, trainer=DYING).tolist()

    place.mkdir()
    (place / job_of(True).losses_file).write_text("[1.5]")

    assert losses(keep=False) == [[1.5]]
    with pytest.raises(ComputationError, match="its process ended"):
        losses(keep=True)
    (place / OUTPUT).mkdir()
    assert losses(keep=True) == [[1.5]]


def test_a_checkpoint_of_a_run_that_was_cut_off_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).mkdir()
    (tmp_path / UNFINISHED / "config.json").write_text("{}")
    job = Job(tmp_path, Training("true {data} {output}"), ModelSettings(model="nowhere"), [], [])
    with pytest.raises(ComputationError, match="saved no checkpoint"):
        Trainer(job).train(tmp_path, [], 0)
