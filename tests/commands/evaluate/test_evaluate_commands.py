"""``rapidin evaluate`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapidin.cli import main
from rapidin.errors import SettingError
from rapidin.evaluation.retraining.trainer import Job
from tests.evaluation import worlds_of_colours

LABEL = ("--label", worlds_of_colours.LABEL)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> tuple[str, str]:
    store, queries = worlds_of_colours.make(tmp_path_factory.mktemp("commands"), model_directory)
    return str(store), str(queries)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["rapidin", "evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_backdoor(
    places: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, queries = places
    plot, work = tmp_path / "p.png", str(tmp_path / "work")
    command = ("backdoor", store, "--queries", queries, *LABEL, "--device", "cpu", "--work", work)
    command += ("--caching-seconds", "5")
    assert run(monkeypatch, *command, "-k", "5", "-k", "20", "--json", "--plot", str(plot)) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [method["name"] for method in found["methods"]] == ["rapidin", "random", "bm25", "embedding"]
    assert [at["k"] for at in found["methods"][0]["at"]] == [5, 20]
    assert found["left_out"] == 1
    assert f"plot: {plot}" in captured.err
    assert plot.read_bytes().startswith(b"\x89PNG")

    assert run(monkeypatch, *command, "--baseline", "bm25") == 0
    text = capsys.readouterr().out
    assert "3 queries; 60 samples, 12 (20.0%) with source=blue; 1 queries of another kind left out" in " ".join(
        text.split()
    )
    assert "rapidin *" in text  # kept from the first run
    assert "auPRC" in text
    assert run(monkeypatch, *command, "--attacked", "indeed|12") == 0
    assert "1 queries left out because their answers do not match the regular expression indeed|12" in " ".join(
        capsys.readouterr().out.split()
    )
    assert run(monkeypatch, *command, "--attacked", "id") == 1
    assert "none of 3 answers matches" in capsys.readouterr().err
    assert run(monkeypatch, *command, "--limit-queries", "1", "--plot", str(tmp_path / "p.nonsense")) == 1
    assert "the plot cannot be written" in capsys.readouterr().err


def test_trace(
    places: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, queries = places
    command = ("trace", store, "--queries", queries, *LABEL, "--device", "cpu", "--work", str(tmp_path / "work"))
    assert run(monkeypatch, *command, "--baseline", "tracin-ln") == 0
    text = capsys.readouterr().out
    assert "rapidin, whole" in text
    assert "tracin-ln, span" in text
    assert run(monkeypatch, *command, "--span", "blue", "--json") == 0
    assert [at["k"] for at in json.loads(capsys.readouterr().out)["methods"][0]["at"]] == [5, 10, 25, 50]
    assert run(monkeypatch, *command, "--baseline", "bm25") == 2
    assert "cannot be asked about single words" in capsys.readouterr().err


def test_fidelity(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "fidelity", places[0], "--sample", "8", "--device", "cpu") == 0
    assert "K = 16,384" in capsys.readouterr().out
    assert run(monkeypatch, "fidelity", places[0], "--sample", "8", "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dimension"] == 16384


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--baseline", "bm52"), "give one of rapidin"),
        (("--label", "number"), "cannot be read"),
        (("--checkpoint", "nonsense"), "DIRECTORY=LEARNING_RATE"),
        (("--checkpoint", "=0.1"), "DIRECTORY=LEARNING_RATE"),
        (("--checkpoint", "/no/such/place=0.1"), "is not a directory"),
        (("--checkpoint", ".=nan"), "nan is not a learning rate"),
        (("--checkpoint", ".=0"), "0 is not a learning rate"),
        (("--embedding-model", "/no/such/place"), "is not a directory"),
        (("--plot", "/no/such/place/p.png"), "its directory does not exist"),
    ],
)
def test_wrong_usage(
    places: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    store, queries = places
    assert run(monkeypatch, "backdoor", store, "--queries", queries, *LABEL, *more) == 2
    assert message in capsys.readouterr().err


def test_lds(
    places: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Retraining itself is `test_lds`'s; here it is a table of losses."""
    seen: dict[str, Any] = {}

    def losses(job: Job, members: np.ndarray, seeds: list[int], jobs: int, *_: object) -> np.ndarray:
        seen.update(training=job.training, jobs=jobs, members=members.shape)
        return np.random.default_rng(0).normal(size=(len(members), len(job.queries)))

    monkeypatch.setattr("rapidin.evaluation.experiments.retrained_queries.retrained_losses", losses)
    store, queries = places
    command = ("lds", store, "--queries", queries, "--work", str(tmp_path), "--device", "cpu", "--subsets", "6")
    command += ("--method", "random", "--method", "rapidin", "--jobs", "3", "--epochs", "2", "--seed", "4")
    assert run(monkeypatch, *command, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [method["name"] for method in found["methods"]] == ["random", "rapidin", "bm25"]
    assert all(-1 <= value <= 1 for method in found["methods"] for value in method["by_query"])
    assert (found["subsets"], found["samples"], len(found["queries"])) == (6, 60, 4)
    assert (seen["jobs"], seen["members"]) == (3, (6, 60))
    assert (seen["training"].schedule.epochs_response, seen["training"].seed) == (2, 4)
    assert run(monkeypatch, *command) == 0
    text = capsys.readouterr().out
    assert "6 models, each of 50% of 60 samples; 4 queries" in text
    assert "Noise ceiling: unknown; --repeats 2" in text
    assert run(monkeypatch, *command, "--fraction", "0.98", "--repeats", "2") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "12 models, 2 of each of 98% of 60 samples" in text
    assert "Noise ceiling: about" in text

    for more, message in (
        (("--setting", "influence-cg.depth=3"), "influence-cg has no setting 'depth'"),
        (("--data", queries), "--data goes with --command"),
        (("--initial", "/no/such/place"), "is not a directory"),
        (("--method", "chance"), "--method 'chance' is unknown"),
    ):
        assert run(monkeypatch, *command, *more) == 2
        assert message in capsys.readouterr().err


def test_settings_of_influence_functions_reach_lds(
    places: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def evaluated(*arguments: object, **named: Any) -> None:
        seen.update(named)
        raise SettingError("enough")

    monkeypatch.setattr("rapidin.evaluation.evaluate_lds", evaluated)
    store, queries = places
    command = ("lds", store, "--queries", queries, "--work", str(tmp_path), "--setting", "influence-cg.samples=3")
    assert run(monkeypatch, *command) == 2
    assert seen["options"].more == {"influence-cg": {"samples": "3"}}


def test_qld(
    places: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Retraining itself is tested elsewhere; here a model's loss is the number of samples that it lacks."""
    jobs: list[tuple[Job, int, int]] = []

    def losses(job: Job, members: np.ndarray, seeds: list[int], processes: int, *_: object) -> np.ndarray:
        jobs.append((job, len(members), processes))
        return np.tile(1.0 + (~members).sum(axis=1)[:, None], (1, len(job.queries)))

    monkeypatch.setattr("rapidin.evaluation.experiments.retrained_queries.retrained_losses", losses)
    store, queries = places
    command = ("qld", store, "--queries", queries, "--work", str(tmp_path), "--device", "cpu", "--top", "0.05")
    command += ("--method", "rapidin", "--random-sets", "2", "--jobs", "3", "--seed", "4", "--repeats", "2")
    assert run(monkeypatch, *command, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["removed"], found["top"], found["samples"], len(found["queries"])) == (3, 0.05, 60, 4)
    assert [method["rise"] for method in found["methods"]] == [{"mean": 3.0, "low": 3.0, "high": 3.0}]
    assert found["random"]["mean"] == 3
    assert found["methods"][0]["beyond_random"]["mean"] == 0
    ((job, models, processes),) = jobs
    assert (models, processes, job.keep, job.training.seed) == (2 * (1 + 2 + 4), 3, True, 4)
    assert run(monkeypatch, *command, "--no-keep") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "3 of 60 samples removed (5%)" in text
    assert "rapidin 3.000 [3.000, 3.000] 0.000 [0.000, 0.000]" in text
    assert "2 random sets 3.000 [3.000, 3.000]" in text
    assert not jobs[1][0].keep
    for more, message in (
        (("--top", "0.001"), "--top 0.001 of 60 samples is 0: give a share"),
        (("--random-sets", "0"), "--random-sets 0 cannot be used"),
        (("--method", "chance"), "--method 'chance' is unknown"),
    ):
        assert run(monkeypatch, *command, *more) == 2
        assert message in capsys.readouterr().err
