"""Searches with curvature: scores against dense algebra, levels that add up, and the choice of the measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import rapidin
from rapidin.attribution import QueryCorrection
from rapidin.cli import app
from rapidin.errors import DerivedNotFoundError, SettingError
from rapidin.model import StoreModel
from rapidin.search.queries import query_of_prompt

QUESTION = ("Name the colour.", "It is blue 99, and not red.")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data: Path) -> Path:
    path = tmp_path_factory.mktemp("influence") / "plain"
    rapidin.ingest_files(
        path,
        [data],
        model=str(model_directory),
        projection_dim=1024,
        bits=16,
        curvature=False,
        objective="loss",
    )
    return path


@pytest.fixture(scope="module")
def store(plain: Path) -> Path:
    path = Path(shutil.copytree(plain, plain.parent / "store"))
    rapidin.compute_curvature(path, probes=100, device="cpu")
    return path


def raw_vector(path: Path, objective: str = "loss") -> np.ndarray:
    """Compute the query's projected gradient without normalisation, float64 [K]."""
    with rapidin.Store.open(path) as opened, StoreModel(opened, device="cpu") as model:
        _, encoded = model.prepared(query_of_prompt(*QUESTION, opened.settings.text), 4)
        with model.exclusive() as parts:
            return parts.engine.compute([encoded], objective).vectors[0].astype(np.float64)


def test_scores_are_those_of_the_damped_inverse_curvature(store: Path) -> None:
    raw = raw_vector(store)
    with rapidin.Store.open(store) as opened, opened.snapshot() as snapshot:
        kept = snapshot.curvature()
        probes = kept.decoded(0, 100).astype(np.float64)
        products = probes @ probes.T
        pairs = np.square(products).sum() - np.square(products.diagonal()).sum()
        damping = kept.damping_of("loss") * pairs * 100 / 99 / products.trace()
        corrected = damping * np.linalg.solve(probes.T @ probes + damping * np.eye(1024), raw)
        ids, scores = snapshot.scores(corrected[None].astype(np.float32))
    expected = dict(zip(ids, scores[0].tolist(), strict=True))
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=60, opponents=True)
    assert (result.measure, result.curvature) == ("influence", kept.version)
    size = max(map(abs, expected.values()))
    for hit in result.proponents:
        assert hit.score == pytest.approx(expected[hit.id], abs=2e-3 * size)
    assert [hit.id for hit in result.opponents] == [hit.id for hit in result.proponents][::-1]


def test_tokens_and_spans_add_up_to_the_whole(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=60, by_token=True)
        whole = {hit.id: hit.estimate for hit in result.proponents}
        added = dict.fromkeys(whole, 0.0)
        for token in result.by_token:
            for hit in token.proponents:
                added[hit.id] += hit.estimate
    size = max(map(abs, whole.values()))
    for id, score in whole.items():
        assert added[id] == pytest.approx(score, abs=1e-4 * size)


def test_words_and_matrices_add_up_to_the_score_that_is_shown(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=5, rerank=60, opponents=True, matrices=True)
    assert result.explained == "forward mode along the query's gradient, corrected by its RapidGrad"
    for hit in (*result.proponents, *result.opponents):
        size = sum(abs(token.influence) for token in hit.token_influences)
        for parts in (hit.token_influences, hit.words):
            assert sum(part.influence for part in parts) == pytest.approx(hit.score, abs=1e-4 * size)
        matrix = np.array(hit.matrix)
        columns = [token.influence for token in hit.token_influences]
        np.testing.assert_allclose(matrix.sum(axis=0), columns, atol=1e-4 * size)
    scores = [hit.score for hit in result.proponents]
    assert scores == sorted(scores, reverse=True)


def test_exact_influences_are_products_with_the_gradient_without_what_the_curvature_takes(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=3, rerank=3)
    with rapidin.Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        _, encoded = model.prepared(query_of_prompt(*QUESTION, opened.settings.text), 4)
        with opened.snapshot() as snapshot:
            kept = snapshot.curvature()
        with model.exclusive() as parts:
            raw = parts.engine.compute([encoded], "loss").vectors
            taken = raw - QueryCorrection(kept).corrected(raw, "loss")
            whole = gradients(parts, encoded)
            restored = [
                parts.engine.restored(taken[0], position, gradient.shape).double()
                for position, gradient in enumerate(whole)
            ]
            for hit in result.proponents:
                own = gradients(parts, parts.encoder.encode_stored(opened.get(hit.id)))
                expected = sum(
                    float(((query - away) * sample).sum() / sample.norm()) / np.sqrt(len(own))
                    for query, away, sample in zip(whole, restored, own, strict=True)
                )
                assert hit.exact == pytest.approx(expected, rel=1e-4)


def gradients(parts, encoded) -> list[torch.Tensor]:
    """Compute the gradient of a sample's mean loss by one-sample autograd, float64, one tensor a parameter."""
    parameters = [parts.module.get_parameter(name).requires_grad_() for name in parts.engine.names]
    ids = torch.tensor([encoded.ids])
    labels = ids.masked_fill(~torch.tensor([encoded.targets]), -100)
    loss = torch.nn.functional.cross_entropy(parts.module(input_ids=ids).logits[0, :-1], labels[0, 1:])
    return [part.double() for part in torch.autograd.grad(loss, parameters)]


def test_without_memory_for_the_gradient_the_corrected_rapidgrad_is_explained(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapidin.attribution.influence.explainer._DIRECTION_SHARE", 0.0)
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=5, rerank=5, matrices=True)
    assert result.explained == "forward mode along the query's corrected RapidGrad"
    for hit in result.proponents:
        columns = [token.influence for token in hit.token_influences]
        size = sum(map(abs, columns))
        assert hit.exact == pytest.approx(hit.estimate, abs=2e-2 * size)  # stored in 16 bits
        np.testing.assert_allclose(np.array(hit.matrix).sum(axis=0), columns, atol=1e-4 * size)


def test_cosine_is_what_it_was_without_a_curvature(plain: Path, store: Path) -> None:
    with rapidin.Searcher(plain) as before, rapidin.Searcher(store) as after:
        expected = before.search(*QUESTION, k=60)
        found = after.search(*QUESTION, k=60, measure="cosine")
    assert found.proponents == expected.proponents
    assert (found.measure, found.curvature, expected.measure) == ("cosine", None, "cosine")


def test_the_objective_is_chosen_at_search(plain: Path, store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        own = searcher.search(*QUESTION, k=60)
        same = searcher.search(*QUESTION, k=60, objective="loss")
        other = searcher.search(*QUESTION, k=5, rerank=5, objective="log-odds", by_token=True, matrices=True)
    assert (own.objective, same.objective, other.objective) == ("loss", "loss", "log-odds")
    assert same.proponents == own.proponents
    raw = raw_vector(store, "log-odds")
    with rapidin.Store.open(store) as opened, opened.snapshot() as snapshot:
        kept = snapshot.curvature()
        made = QueryCorrection(kept)
        ids, scores = snapshot.scores(made.corrected(raw[None].astype(np.float32), "log-odds"))
    expected = dict(zip(ids, scores[0].tolist(), strict=True))
    size = max(map(abs, expected.values()))
    for hit in other.proponents:
        assert hit.estimate == pytest.approx(expected[hit.id], abs=1e-3 * size)
        columns = [token.influence for token in hit.token_influences]
        largest = sum(map(abs, columns))
        np.testing.assert_allclose(np.array(hit.matrix).sum(axis=0), columns, atol=1e-4 * largest)
    with (
        rapidin.Searcher(plain) as searcher,
        pytest.raises(SettingError, match="--objective log-odds needs --measure influence"),
    ):
        searcher.search(*QUESTION, objective="log-odds")


def test_a_store_without_curvature_says_how_to_get_it(plain: Path) -> None:
    with (
        rapidin.Searcher(plain) as searcher,
        pytest.raises(DerivedNotFoundError, match=f"'rapidin curvature {plain}', or give --measure cosine"),
    ):
        searcher.search(*QUESTION, measure="influence")


def test_a_searcher_follows_a_new_curvature(plain: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(plain, tmp_path / "store"))
    with rapidin.Searcher(path) as searcher:
        assert searcher.search(*QUESTION).measure == "cosine"
        rapidin.compute_curvature(path, probes=40, device="cpu")
        first = searcher.search(*QUESTION)
        rapidin.compute_curvature(path, damping=1.0)
        second = searcher.search(*QUESTION)
    assert first.measure == second.measure == "influence"
    assert first.curvature != second.curvature


def test_the_index_serves_corrected_queries(store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "store"))
    with rapidin.Store.open(path) as opened:
        opened.build_index("ivf", nlist=4, nprobe=4)
    with rapidin.Searcher(path) as searcher:
        exact = searcher.search(*QUESTION, k=5, opponents=True)
        found = searcher.search(*QUESTION, k=5, opponents=True, index="ivf")
    assert [hit.id for hit in found.proponents] == [hit.id for hit in exact.proponents]
    assert [hit.id for hit in found.opponents] == [hit.id for hit in exact.opponents]


def test_on_the_command_line(plain: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(plain, tmp_path / "store"))
    run = CliRunner()

    def rapidin_json(*arguments: str) -> dict:
        found = run.invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    report = rapidin_json("curvature", str(path), "--probes", "20", "--device", "cpu")
    assert (report["name"], report["parameters"]["probes"]) == ("curvature", 20)
    info = rapidin_json("info", str(path))
    assert info["curvature"] == info["derived"][0]
    assert info["curvature"]["parameters"]["probes"] == 20
    shown = run.invoke(app, ["info", str(path)], catch_exceptions=False).stdout
    assert "20 probes of 60 samples, damping 0.1 for loss, 3 for log-odds" in " ".join(shown.split())
    asked = ("search", str(path), "--prompt", QUESTION[0], "--generation", QUESTION[1], "--rerank", "0")
    found = rapidin_json(*asked)
    assert (found["measure"], found["curvature"]) == ("influence", rapidin_version(path))
    assert rapidin_json(*asked, "--measure", "cosine")["measure"] == "cosine"
    version = rapidin_version(path)
    assert rapidin_json("curvature", str(path), "--damping", "0.7")["parameters"]["damping"] == 0.7
    assert rapidin_version(path) != version
    assert rapidin_json("curvature", str(path), "--damping", "default")["parameters"]["damping"] is None
    assert rapidin_version(path) == version
    refused = run.invoke(app, ["curvature", str(path), "--damping", "little"])
    assert refused.exit_code == 2
    assert "--damping little cannot be used: give a positive number, or 'default'" in refused.output
    assert rapidin_json("verify", str(path))["ok"]
    assert rapidin_json("curvature", str(path), "--drop") == {"dropped": "curvature"}
    assert rapidin_json(*asked)["measure"] == "cosine"
    shown = run.invoke(app, ["curvature", str(path), "--drop"])
    assert shown.exit_code == 1
    assert "there is no curvature to drop" in shown.output


def rapidin_version(path: Path) -> str | None:
    with rapidin.Store.open(path) as opened, opened.snapshot() as snapshot:
        return snapshot.curvature_version()
