"""Exact influences whose curvature's part comes from the probes' own gradients, against dense autograd."""

from __future__ import annotations

import json
import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import rapidin
from rapidin.attribution import FisherDraw, TargetBatch
from rapidin.attribution.influence import explainer
from rapidin.cli import app
from rapidin.errors import SettingError
from rapidin.model import StoreModel, load_model
from rapidin.search.queries import query_of_prompt
from rapidin.settings import ModelSettings, Objective
from rapidin.text import EncodedSample
from tests.ingest.runs_with_checkpoints import RUNS, Run

QUESTION = ("Name the colour.", "It is blue 99, and not red.")
OTHER = ("Name the colour number 3.", "It is white.")
PROBES = 30
EXACTLY = "forward mode along the query's gradient, corrected by the probes' gradients"


@dataclass(frozen=True)
class World:
    """A store of both objectives, and the models of its states with their shares."""

    path: Path
    states: tuple[tuple[float, dict[str, object]], ...]


def world(directory: Path, run: Run, data: Path, checkpoints: bool) -> World:
    settings, states = run.alone(0), ((1.0, run.alone(0)),)
    if checkpoints:
        settings, states = run.settings, ((0.75, run.alone(0)), (0.25, run.alone(1)))
    rapidin.ingest_files(
        directory,
        [data],
        projection_dim=1024,
        bits=16,
        probes=PROBES,
        device="cpu",
        **settings,  # type: ignore[arg-type]
    )
    return World(directory, states)


@pytest.fixture(scope="module", params=["full-llama", "full-gpt2", "lora-llama"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return RUNS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=["one state", "two checkpoints"])
def made(request: pytest.FixtureRequest, run: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("exact-curvature") / "store"
    return world(path, run, data, request.param == "two checkpoints")


@pytest.fixture(scope="module")
def simple(data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    run = RUNS["full-llama"](tmp_path_factory.mktemp("llama"))
    return world(tmp_path_factory.mktemp("simple") / "store", run, data, False)


class Dense:
    """A state of the model by itself: whole gradients by one-sample autograd, float64."""

    def __init__(self, store: rapidin.Store, settings: dict[str, object]) -> None:
        self.model = load_model(ModelSettings(**settings), "cpu").model  # type: ignore[arg-type]
        self.parameters = [self.model.get_parameter(one.name).requires_grad_() for one in store.settings.traced]

    def gradients(self, encoded: EncodedSample, objective: Objective) -> list[Tensor]:
        """The gradient of the mean objective."""
        ids = torch.tensor([encoded.ids])
        logits = self.model(input_ids=ids).logits[0, :-1][torch.tensor(encoded.targets[1:])]
        own = ids[0, 1:][torch.tensor(encoded.targets[1:])][:, None]
        likelihoods = logits.log_softmax(dim=1).gather(1, own)[:, 0]
        if objective == "log-odds":
            likelihoods = likelihoods - torch.log1p(-likelihoods.double().exp())
        return self._of(-likelihoods.mean())

    def probe(self, encoded: EncodedSample, draw: FisherDraw) -> list[Tensor]:
        """The gradient of the sum of a draw's quantities."""
        batch = TargetBatch.of([encoded])
        logits = self.model(input_ids=batch.ids).logits
        return self._of(draw.values(batch.predicting(logits), batch).sum())

    def _of(self, value: Tensor) -> list[Tensor]:
        return [part.double() for part in torch.autograd.grad(value, self.parameters)]


def expected_scores(world: World, objective: Objective, ids: list[str]) -> dict[str, float]:
    """The exact influences, from whole gradients of the query, of every probe, and of the samples.

    The sketch takes the place of the gradient of a probe whose sample is gone.
    """
    found = dict.fromkeys(ids, 0.0)
    with rapidin.Store.open(world.path) as store, StoreModel(store, device="cpu") as model:
        _, query = model.prepared(query_of_prompt(*QUESTION, store.settings.text), 4)
        raw = model.vectors([query], objective, raw=True)[0].astype(np.float64)
        with store.snapshot() as snapshot:
            kept = snapshot.curvature()
            probed = snapshot.probed(kept.keys)
        sections = kept.gram.reshape(-1, PROBES, PROBES).astype(np.float64)
        size = len(raw) // len(sections)
        for number, ((share, settings), gram) in enumerate(zip(world.states, sections, strict=True)):
            dense = Dense(store, settings)
            pairs = np.square(gram).sum() - np.square(gram.diagonal()).sum()
            damping = kept.damping_of(objective) * pairs * PROBES / (PROBES - 1) / gram.trace()
            psi = kept.decoded(0, PROBES)[:, number * size : (number + 1) * size].astype(np.float64)
            alone = raw[number * size : (number + 1) * size] / (share * math.sqrt(len(sections)))
            coefficients = np.linalg.solve(gram + damping * np.eye(PROBES), psi @ alone)
            direction = dense.gradients(query, objective)
            for row, (coefficient, one) in enumerate(zip(coefficients, probed, strict=True)):
                if one is None:
                    with model.exclusive() as parts:
                        gradients = [
                            parts.engine.restored(psi[row].astype(np.float32), position, part.shape) / kept.scale
                            for position, part in enumerate(direction)
                        ]
                else:
                    gradients = dense.probe(model.encode_stored(one[0]), FisherDraw(0, one[1]))
                for part, gradient in zip(direction, gradients, strict=True):
                    part -= coefficient * kept.scale * gradient
            for id in ids:
                sample = dense.gradients(model.encode_stored(store.get(id)), objective)
                cosines = [
                    float((part * own).sum() / own.norm()) for part, own in zip(direction, sample, strict=True)
                ]
                found[id] += share * sum(cosines) / math.sqrt(len(cosines))
    return found


@pytest.mark.parametrize("objective", ["loss", "log-odds"])
def test_exact_influences_are_those_along_the_dense_direction(made: World, objective: Objective) -> None:
    with rapidin.Searcher(made.path, device="cpu") as searcher:
        options = {"k": 2, "rerank": 4, "opponents": True, "objective": objective}
        result = searcher.search(*QUESTION, exact_curvature=True, matrices=True, **options)
        restored = searcher.search(*QUESTION, **options)
    assert result.explained == EXACTLY
    hits = [*result.proponents, *result.opponents]
    expected = expected_scores(made, objective, [hit.id for hit in hits])
    before = {hit.id: hit.exact for hit in (*restored.proponents, *restored.opponents)}
    for hit in hits:
        columns = [token.influence for token in hit.token_influences]
        size = sum(map(abs, columns))
        assert hit.exact == pytest.approx(expected[hit.id], rel=1e-4, abs=1e-4 * size)
        assert hit.score == hit.exact != before.get(hit.id)
        for parts in (hit.token_influences, hit.words):
            assert sum(part.influence for part in parts) == pytest.approx(hit.score, abs=1e-4 * size)
        np.testing.assert_allclose(np.array(hit.matrix).sum(axis=0), columns, atol=1e-4 * size)


def test_queries_of_one_call_share_a_pass_and_are_answered_as_alone(
    simple: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "queries.jsonl"
    rows = [{"instruction": prompt, "output": answer} for prompt, answer in (QUESTION, OTHER, QUESTION)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"k": 5, "rerank": 5, "exact_curvature": True}
    passes: list[int] = []
    compute = explainer.Explainer.taken_away

    def counted(self, probes, coefficients, *rest):
        passes.append(len(coefficients))
        return compute(self, probes, coefficients, *rest)

    monkeypatch.setattr(explainer.Explainer, "taken_away", counted)
    with rapidin.Searcher(simple.path, device="cpu") as searcher:
        alone = [searcher.search(*question, **options) for question in (QUESTION, OTHER)]
        steps: list[tuple[str, int, int]] = []
        asked = rapidin.SearchOptions(**options)
        together = list(searcher.search_file(file, options=asked, on_step=lambda *step: steps.append(step)))
        monkeypatch.setattr(explainer.Explainer, "taken_together", 2)
        in_groups = list(searcher.search_file(file, options=rapidin.SearchOptions(**options)))
    assert passes == [1, 1, 3, 2, 1]
    assert ("probes", PROBES, PROBES) in steps
    for found in (together, in_groups):
        for result, expected in zip(found, [*alone, alone[0]], strict=True):
            assert result.explained == EXACTLY
            assert [hit.id for hit in result.proponents] == [hit.id for hit in expected.proponents]
            for hit, other in zip(result.proponents, expected.proponents, strict=True):
                assert hit.exact == pytest.approx(other.exact, rel=1e-4)


def test_the_pass_over_the_probes_tells_its_progress(simple: World) -> None:
    told: list[tuple[str, int, int]] = []
    with rapidin.Searcher(simple.path, device="cpu", tokens_per_batch=200) as searcher:
        searcher.search(
            *QUESTION, k=2, rerank=2, exact_curvature=True, on_progress=lambda *step: told.append(step)
        )
    probes = [(done, total) for step, done, total in told if step == "probes"]
    assert len(probes) > 3
    assert probes == sorted(probes)
    assert probes[-1] == (PROBES, PROBES)


def test_a_part_in_the_generation_is_asked_about_alone(simple: World) -> None:
    with rapidin.Searcher(simple.path, device="cpu") as searcher:
        result = searcher.search(*QUESTION, k=3, rerank=9, spans=["blue"], exact_curvature=True, by_token=True)
    assert result.explained == EXACTLY
    assert len(result.by_token) == result.query.targets
    for hit in result.proponents:
        values = [token.influence for token in hit.token_influences]
        assert sum(values) == pytest.approx(hit.score, abs=1e-4 * sum(map(abs, values)))


def test_probes_of_samples_that_are_gone_are_restored_and_the_result_says_so(
    simple: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copytree(simple.path, tmp_path / "store"))
    with rapidin.Store.open(path) as store:
        with store.snapshot() as snapshot:
            probed = snapshot.probed(snapshot.curvature().keys)
        deleted = [one[0].id for one in probed[:3] if one is not None]
        gone = sum(one is not None and one[0].id in deleted for one in probed)
        store.delete(deleted)
        with store.snapshot() as snapshot:
            assert snapshot.probed(snapshot.curvature().keys).count(None) == gone
    options = {"k": 5, "rerank": 50, "exact_curvature": True}
    with rapidin.Searcher(path, device="cpu") as searcher, caplog.at_level(logging.WARNING, "rapidin"):
        result = searcher.search(*QUESTION, **options)
        assert result.explained == f"{EXACTLY}, but for {gone} of {PROBES} by their RapidGrads"
        assert f"{gone} of {PROBES} probes cannot be computed again" in caplog.text
        assert f"'rapidin curvature {path}' draws others" in caplog.text
        expected = expected_scores(World(path, simple.states), "loss", [hit.id for hit in result.proponents])
        for hit in result.proponents:
            assert hit.exact == pytest.approx(expected[hit.id], rel=1e-3)
        rapidin.compute_curvature(path, device="cpu")
        assert searcher.search(*QUESTION, **options).explained == EXACTLY


def test_probes_that_do_not_fit_into_memory_alone_are_restored(
    simple: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rapidin.attribution.influence.probe_sums import ProbeSums

    compute = ProbeSums._batch

    def failing(self, batch, draw, weights):
        if any(one.number == 4 for one in batch):
            raise MemoryError
        return compute(self, batch, draw, weights)

    monkeypatch.setattr(ProbeSums, "_batch", failing)
    with rapidin.Searcher(simple.path, device="cpu") as searcher:
        result = searcher.search(*QUESTION, k=3, rerank=3, exact_curvature=True)
    assert result.explained == f"{EXACTLY}, but for 1 of {PROBES} by their RapidGrads"


def test_without_memory_for_the_sums_the_curvatures_part_is_restored(
    simple: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"k": 3, "rerank": 3, "matrices": True}
    with rapidin.Searcher(simple.path, device="cpu") as searcher:
        expected = searcher.search(*QUESTION, **options)
        monkeypatch.setattr(explainer.Explainer, "taken_together", 0)
        with caplog.at_level(logging.WARNING, "rapidin"):
            result = searcher.search(*QUESTION, exact_curvature=True, **options)
    assert result == expected
    assert result.explained == "forward mode along the query's gradient, corrected by its RapidGrad"
    assert "the gradients of the probes do not fit into memory" in caplog.text


def test_what_contradicts_it_is_refused(simple: World, tmp_path: Path) -> None:
    path = Path(shutil.copytree(simple.path, tmp_path / "store"))
    with rapidin.Store.open(path) as store:
        store.drop_derived("curvature")
    with (
        rapidin.Searcher(path, device="cpu") as searcher,
        pytest.raises(SettingError, match=f"--exact-curvature needs a curvature: .*'rapidin curvature {path}'"),
    ):
        searcher.search(*QUESTION, k=3, rerank=3, exact_curvature=True)
    with pytest.raises(SettingError, match="give --rerank"):
        rapidin.SearchOptions(exact_curvature=True)
    with pytest.raises(SettingError, match="--measure cosine contradict each other"):
        rapidin.SearchOptions(exact_curvature=True, rerank=10, measure="cosine")


def test_on_the_command_line_and_in_the_report(simple: World, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    asked = ["search", str(simple.path), "--prompt", QUESTION[0], "--generation", QUESTION[1], "-k", "3"]
    found = CliRunner().invoke(
        app, [*asked, "--exact-curvature", "--report", str(report), "--json"], catch_exceptions=False
    )
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["explained"] == EXACTLY
    assert EXACTLY.split(",")[1] in report.read_text().replace("\\u0027", "'")
    shown = CliRunner().invoke(app, [*asked, "--exact-curvature"], catch_exceptions=False)
    assert "the probes' gradients" in " ".join(shown.stdout.split())
