"""Stores with several checkpoints, against the slow way: a store or a model of each checkpoint alone."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rapidin
from rapidin.attribution import BatchRunner, FisherDraw, RapidGradBatch, RapidGradEngine
from rapidin.attribution.projections import make_projection
from rapidin.errors import FingerprintMismatchError, GradientError, ModelError, SettingError, StoreMismatchError
from rapidin.ingest.committing import Committer
from rapidin.ingest.learning_rates import learning_rates
from rapidin.model import StoreModel, load_model
from rapidin.records import IngestListener
from rapidin.search.queries import query_of_prompt
from rapidin.settings import ModelSettings
from rapidin.storage import NewSample
from rapidin.storage.derived import CURVATURE
from rapidin.storage.derived.curvature.probe_choice import choose_probes
from rapidin.text import EncodedSample
from tests import worlds
from tests.ingest.runs_with_checkpoints import RATES, RUNS, Run

QUESTION = ("Name the colour.", "It is blue 99, and not red.")
SHARES = (0.75, 0.25)
DIMENSION = 1024


@pytest.fixture(scope="module", params=["full-llama", "full-gpt2", "lora-llama", "lora-gpt2"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return RUNS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return RUNS["full-llama"](tmp_path_factory.mktemp("llama"))


def ingest(store: Path, data: Path, settings: dict[str, object], **more: object) -> Path:
    options = {
        "projection_dim": DIMENSION,
        "bits": 16,
        "curvature": False,
        "objective": "loss",
        "device": "cpu",
        **settings,
        **more,
    }
    rapidin.ingest_files(store, [data], **options)  # type: ignore[arg-type]
    return store


def kept_vectors(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The dictionary that the next ingest fills with its vectors by id, before they are coded."""
    kept: dict[str, np.ndarray] = {}
    add = Committer.add

    def keeping(self: Committer, sample: NewSample, vector: np.ndarray) -> None:
        kept[sample.id] = vector.copy()
        add(self, sample, vector)

    monkeypatch.setattr(Committer, "add", keeping)
    return kept


@pytest.mark.parametrize("kind", ["factored", "shuffled"])
def test_a_section_is_the_rapidgrad_of_the_checkpoint_alone_to_the_last_bit(
    run: Run, kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, settings, dimension in (
        ("both", run.settings, DIMENSION),
        ("first", run.alone(0), DIMENSION // 2),
        ("second", run.alone(1), DIMENSION // 2),
    ):
        with monkeypatch.context() as patch:
            found.append(kept_vectors(patch))
            more = {"projection": kind, "projection_dim": dimension, "tokens_per_batch": 400}
            ingest(tmp_path / name, data, settings, **more)
    both, *alone = found
    assert len(both) == 60
    for id, vector in both.items():
        expected = np.concatenate([one[id] for one in alone]) * np.float32(1 / math.sqrt(2))
        np.testing.assert_array_equal(vector, expected)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=0.2)


class Dense:
    """A checkpoint by itself: gradients by one-sample autograd, and the projection as a matrix, float64."""

    def __init__(self, run: Run, number: int, store: rapidin.Store) -> None:
        loaded = load_model(ModelSettings(**run.alone(number)), "cpu")  # type: ignore[arg-type]
        self.model = loaded.model
        self.parameters = [self.model.get_parameter(one.name).requires_grad_() for one in store.settings.traced]
        projection = make_projection(store.settings.section, [tuple(one.shape) for one in self.parameters])
        self.matrices = []
        for position, parameter in enumerate(self.parameters):
            columns = [
                projection.restored(basis, position, parameter.numel())
                for basis in torch.eye(store.settings.section.dimension)
            ]
            self.matrices.append(torch.stack(columns).double())

    def gradients(self, encoded: EncodedSample, tokens: bool = False) -> list[torch.Tensor]:
        """The gradient of the mean loss by tensor, flat; with `tokens`, the parts of it of each target [g, …]."""
        ids = torch.tensor([encoded.ids])
        losses = torch.nn.functional.cross_entropy(
            self.model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"
        )
        wanted = losses[torch.tensor(encoded.targets[1:])] / sum(encoded.targets)
        parts = wanted if tokens else [wanted.sum()]
        found = [
            [part.flatten().double() for part in torch.autograd.grad(one, self.parameters, retain_graph=True)]
            for one in parts
        ]
        stacked = [torch.stack(rows) for rows in zip(*found, strict=True)]
        return stacked if tokens else [rows[0] for rows in stacked]

    def projected(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        return sum(matrix @ one for matrix, one in zip(self.matrices, gradients, strict=True))


def normalised(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    return [one / one.norm() / math.sqrt(len(gradients)) for one in gradients]


@pytest.fixture(scope="module")
def store(run: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose projection divides by exact norms, with a curvature."""
    path = tmp_path_factory.mktemp("checkpoints") / "store"
    return ingest(path, data, run.settings, projection="shuffled", curvature=True, probes=30)


def test_scores_are_dense_products_weighted_by_learning_rates(run: Run, store: Path) -> None:
    with rapidin.Searcher(store, device="cpu") as searcher:
        estimated = searcher.search(*QUESTION, k=60, rerank=0, measure="cosine")
        result = searcher.search(*QUESTION, k=8, rerank=8, measure="cosine", opponents=True, matrices=True)
    with rapidin.Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        _, query = model.prepared(query_of_prompt(*QUESTION, opened.settings.text), 4)
        checkpoints = [Dense(run, number, opened) for number in range(2)]
        asked = [normalised(one.gradients(query)) for one in checkpoints]
        asked_tokens = [one.gradients(query, tokens=True) for one in checkpoints]
        for hit in estimated.proponents:
            sample = model.encode_stored(opened.get(hit.id))
            expected = sum(
                share * float(one.projected(mine) @ one.projected(normalised(one.gradients(sample))))
                for share, one, mine in zip(SHARES, checkpoints, asked, strict=True)
            )
            assert hit.estimate == pytest.approx(expected, abs=1e-3)
        for hit in (*result.proponents, *result.opponents):
            sample = model.encode_stored(opened.get(hit.id))
            expected, tokens, matrix = 0.0, 0.0, 0.0
            for share, one, mine, parts in zip(SHARES, checkpoints, asked, asked_tokens, strict=True):
                whole, own = one.gradients(query), one.gradients(sample)
                own_parts = one.gradients(sample, tokens=True)
                for position, (query_part, sample_part) in enumerate(zip(mine, own, strict=True)):
                    scale = share / sample_part.norm() / math.sqrt(len(own))
                    expected += scale * float(query_part @ sample_part)
                    tokens += scale * (own_parts[position] @ query_part)
                    one_by_one = parts[position] / whole[position].norm() / math.sqrt(len(own))
                    matrix += scale * (one_by_one @ own_parts[position].T)
            assert hit.exact == pytest.approx(float(expected), abs=1e-5)
            found = [token.influence for token in hit.token_influences]
            np.testing.assert_allclose(found, tokens.detach().numpy(), atol=1e-5)
            np.testing.assert_allclose(np.array(hit.matrix), matrix.detach().numpy(), atol=1e-5)


def test_the_curvature_is_that_of_each_checkpoint(run: Run, store: Path) -> None:
    with rapidin.Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        _, query = model.prepared(query_of_prompt(*QUESTION, opened.settings.text), 4)
        with opened.snapshot() as snapshot:
            kept = snapshot.curvature()
            facts, record = snapshot.derived("curvature")
            arrays = CURVATURE._arrays(facts, record)
        contents = [(one.id, one.content_hash) for one in opened.list()]
        requests = choose_probes(contents, 30, 0)
        samples = {one.id: one for one in opened.list()}
        assert kept.gram.shape == (2, 30, 30)
        expected = dict.fromkeys(samples, 0.0)
        for number, share in enumerate(SHARES):
            section = slice(number * DIMENSION // 2, (number + 1) * DIMENSION // 2)
            with rapidin_engine(run, number, opened) as engine:
                for row, request in enumerate(requests):
                    assert arrays.keys[row] == request.key
                    encoded = model.encode_stored(samples[request.id])
                    probe = engine.compute([encoded], FisherDraw(0, request.draw)).vectors[0]
                    decoded = arrays.codes[row, section] * arrays.scales[row][0]
                    np.testing.assert_allclose(decoded, probe, rtol=0, atol=0.51 * arrays.scales[row][0])
            one = Dense(run, number, opened)
            psi = torch.from_numpy(kept.decoded(0, 30)[:, section]).double()
            products = psi @ psi.T
            np.testing.assert_allclose(kept.gram[number], products, rtol=1e-4, atol=1e-7)
            pairs = products.square().sum() - products.diagonal().square().sum()
            damping = kept.damping_of("loss") * pairs * 30 / 29 / products.trace()
            raw = one.projected(one.gradients(query))
            corrected = damping * torch.linalg.solve(psi.T @ psi + damping * torch.eye(psi.shape[1]), raw)
            for id, sample in samples.items():
                own = normalised(one.gradients(model.encode_stored(sample)))
                expected[id] += share * float(corrected @ one.projected(own))
    with rapidin.Searcher(store, device="cpu") as searcher:
        result = searcher.search(*QUESTION, k=60, rerank=0)
        explained = searcher.search(*QUESTION, k=5, rerank=10, matrices=True)
        by_token = searcher.search(*QUESTION, k=60, rerank=0, by_token=True).by_token
    assert result.measure == "influence"
    size = max(map(abs, expected.values()))
    summed = dict.fromkeys(expected, 0.0)
    for token in by_token:
        for hit in token.proponents:
            summed[hit.id] += hit.score
    for hit in result.proponents:
        assert hit.score == pytest.approx(expected[hit.id], abs=5e-3 * size)
        assert summed[hit.id] == pytest.approx(expected[hit.id], abs=2e-2 * size)
    for hit in explained.proponents:
        size = sum(abs(token.influence) for token in hit.token_influences)
        assert sum(token.influence for token in hit.token_influences) == pytest.approx(hit.exact, abs=1e-4 * size)
        columns = [token.influence for token in hit.token_influences]
        np.testing.assert_allclose(np.array(hit.matrix).sum(axis=0), columns, atol=1e-4 * size)


@contextmanager
def rapidin_engine(run: Run, number: int, store: rapidin.Store) -> Iterator[RapidGradEngine]:
    """The engine of a checkpoint by itself."""
    settings = store.settings
    module = load_model(ModelSettings(**run.alone(number)), "cpu").model  # type: ignore[arg-type]
    with RapidGradEngine(module, settings.traced, settings.section, settings.gradient) as engine:
        yield engine


def test_a_single_checkpoint_takes_the_place_of_the_model(
    llama: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, settings in (
        ("one", llama.settings | {"checkpoints": [llama.checkpoints[1]]}),
        ("alone", llama.alone(1)),
    ):
        with monkeypatch.context() as patch:
            found.append(kept_vectors(patch))
            ingest(tmp_path / name, data, settings, curvature=True, probes=20)
    one, alone = found
    for id, vector in one.items():
        np.testing.assert_array_equal(vector, alone[id])
    results = []
    for name in ("one", "alone"):
        with rapidin.Searcher(tmp_path / name, device="cpu") as searcher:
            results.append(searcher.search(*QUESTION, k=5, rerank=9))
    assert results[0].proponents == results[1].proponents
    with rapidin.Searcher(tmp_path / "one", device="cpu") as searcher, StoreModel(searcher.store) as model:
        answer = searcher.search(QUESTION[0], k=1, rerank=0, max_new_tokens=8).query.generation
        _, encoded = model.prepared(query_of_prompt(QUESTION[0], None, searcher.store.settings.text), 8)
        assert answer == encoded.response  # of the model itself, after vectors of the checkpoint were computed


def test_any_number_of_workers_makes_the_same_rows(
    llama: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for workers in (1, 2):
        with monkeypatch.context() as patch:
            found.append(kept_vectors(patch))
            ingest(tmp_path / str(workers), data, llama.settings, workers=workers, tokens_per_batch=300)
    one, two = found
    assert one.keys() == two.keys()
    for id in one:
        np.testing.assert_array_equal(one[id], two[id])


def test_after_a_search_and_after_an_error_the_weights_are_those_of_the_model(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rapidin.Store.open(store) as opened, StoreModel(opened, device="cpu") as model:
        _, query = model.prepared(query_of_prompt(*QUESTION, opened.settings.text), 4)
        with model.exclusive() as parts:
            before = {name: tensor.clone() for name, tensor in parts.module.state_dict().items()}
            model.vectors([query])
            parts.token_queries.vectors(query)
            parts.explainer.influences([query], parts.explainer.direction(query))
            after_use = {name: tensor.clone() for name, tensor in parts.module.state_dict().items()}
            calls = []

            def failing(*_: object) -> None:
                calls.append(parts.runner._states._at)
                if len(calls) == 2:
                    raise RuntimeError("made by the test")

            compute = RapidGradEngine.compute
            monkeypatch.setattr(RapidGradEngine, "compute", lambda *arguments: (failing(), compute(*arguments))[1])
            with pytest.raises(GradientError, match="made by the test"):
                model.vectors([query])
            assert calls == [0, 1]
            for name, tensor in parts.module.state_dict().items():
                assert torch.equal(tensor, before[name]), name
                assert torch.equal(tensor, after_use[name]), name


def test_a_network_that_is_lent_gets_its_own_weights_back(run: Run, store: Path) -> None:
    settings = {name: value for name, value in run.settings.items() if name != "checkpoints"}
    network = load_model(ModelSettings(**settings), "cpu").model  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with rapidin.Searcher(store, device="cpu") as searcher:
        expected = searcher.search(*QUESTION, k=5, rerank=5)
    with rapidin.Searcher(store, model=network) as searcher:
        found = searcher.search(*QUESTION, k=5, rerank=5)
    assert [(hit.id, hit.score) for hit in found.proponents] == [
        (hit.id, hit.score) for hit in expected.proponents
    ]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_other_checkpoints_are_refused_and_moved_ones_can_be_given(
    run: Run, store: Path, data: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    moved = [Path(shutil.copytree(place, tmp_path / place.name)) for place in run.checkpoints]
    with rapidin.Searcher(copy, checkpoints=moved, device="cpu") as searcher:
        found = searcher.search(*QUESTION, k=5, rerank=0)
    with rapidin.Searcher(store, device="cpu") as searcher:
        assert found.proponents == searcher.search(*QUESTION, k=5, rerank=0).proponents
    with pytest.raises(
        FingerprintMismatchError, match="checkpoint 1 is the store's checkpoint 2, in another order"
    ):
        rapidin.Searcher(copy, checkpoints=moved[::-1])
    with pytest.raises(FingerprintMismatchError, match="checkpoints are 1 now, and the store was built with 2"):
        rapidin.Searcher(copy, checkpoints=moved[:1])
    file = next(moved[1].glob("*.safetensors"))
    weights = load_file(file)
    name = sorted(weights)[0]
    weights[name].view(-1)[3] += 1
    save_file(weights, file, metadata={"format": "pt"})
    message = r"checkpoint 2 of 2 has other weights\. Give the right ones with --checkpoint"
    with pytest.raises(FingerprintMismatchError, match=message):
        rapidin.Searcher(copy, checkpoints=moved)
    with pytest.raises(FingerprintMismatchError, match=message):
        rapidin.compute_curvature(copy, probes=40, checkpoints=moved, device="cpu")
    with pytest.raises(FingerprintMismatchError, match="checkpoint 2 of 2 has other weights"):
        ingest(copy, data, {"checkpoints": moved})
    with pytest.raises(ModelError, match="there is no such directory; check the path"):
        rapidin.Searcher(copy, checkpoints=["gone", "lost"])


def test_an_ingest_that_was_interrupted_goes_on(llama: Run, tmp_path: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(60))

    class Impatient(IngestListener):
        def advanced(self, samples: int, tokens: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path / "store", data, llama.settings, tokens_per_batch=100, listener=Impatient())
    with rapidin.Store.open(tmp_path / "store") as opened:
        assert 0 < opened.count() < 60
    ingest(tmp_path / "store", data, {}, tokens_per_batch=100)
    ingest(tmp_path / "whole", data, llama.settings, tokens_per_batch=100)
    found = []
    for path in (tmp_path / "store", tmp_path / "whole"):
        with rapidin.Searcher(path, device="cpu") as searcher:
            found.append({hit.id: hit.score for hit in searcher.search(*QUESTION, k=60, rerank=0).proponents})
    assert found[0].keys() == found[1].keys()
    for id, score in found[0].items():
        assert score == pytest.approx(found[1][id], abs=1e-4)


def test_without_learning_rates_checkpoints_have_equal_weights(
    llama: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert learning_rates([str(place) for place in llama.checkpoints]) == RATES
    bare = Path(shutil.copytree(llama.checkpoints[1], tmp_path / "bare"))
    (bare / "trainer_state.json").unlink()
    assert learning_rates([str(llama.checkpoints[0]), str(bare)]) == ()
    assert "has no learning rate in a trainer_state.json, so all have the same weight" in caplog.text
    assert ModelSettings(model="m", checkpoints=("a", "b")).shares == (0.5, 0.5)
    caplog.clear()
    state = {"global_step": 5, "log_history": [{"step": 5, "learning_rate": 1e-9}]}
    (bare / "trainer_state.json").write_text(json.dumps(state))
    assert learning_rates([str(llama.checkpoints[0]), str(bare)]) == (RATES[0], 1e-9)
    assert "leave it out to spare its share" in caplog.text
    (bare / "trainer_state.json").write_text("{")
    with pytest.raises(ModelError, match=r"trainer_state.json cannot be read"):
        learning_rates([str(bare)])


def test_learning_rates_can_be_given(llama: Run, data: Path, tmp_path: Path) -> None:
    given = [f"{place}={rate}" for place, rate in zip(llama.checkpoints, ("1e-5", "3e-5"), strict=True)]
    store = ingest(tmp_path / "store", data, llama.settings | {"checkpoints": given})
    with rapidin.Store.open(store) as opened:
        info = opened.info()
        assert info.checkpoints == tuple(map(str, llama.checkpoints))
        assert (info.learning_rates, info.shares) == ((1e-5, 3e-5), (0.25, 0.75))
    ingest(store, data, {"checkpoints": given})
    with pytest.raises(StoreMismatchError, match="learning rates are"):
        ingest(store, data, {"checkpoints": [f"{place}=1" for place in llama.checkpoints]})
    with pytest.raises(SettingError, match="0 is not a learning rate"):
        ingest(store, data, {"checkpoints": [f"{place}=0" for place in llama.checkpoints]})
    with pytest.raises(SettingError, match="give the learning rate of every checkpoint"):
        ingest(store, data, {"checkpoints": [given[0], llama.checkpoints[1]]})


def test_what_cannot_be_used_is_an_error_at_once(llama: Run, data: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], message: str, **settings: object) -> None:
        with pytest.raises(error, match=message):
            ingest(tmp_path / "store", data, llama.settings | settings)
        assert not (tmp_path / "store").exists()

    first, second = llama.checkpoints
    third = tmp_path / "third"
    shutil.copytree(first, third)
    refused(SettingError, "a directory is given twice", checkpoints=[first, first])
    refused(SettingError, "3 checkpoints cannot share", checkpoints=[first, second, third])
    refused(
        SettingError, "--projection-dim 64 is too small for 2 checkpoints", projection_dim=64, objective="both"
    )
    refused(ModelError, "there is no such directory", checkpoints=[first, "some/hub-id"])
    (third / "config.json").unlink()
    refused(ModelError, "has no config.json", checkpoints=[first, third])
    other = worlds.save_model(tmp_path / "other", hidden_size=64)
    refused(
        ModelError,
        r"its tensor '.*' has the shape .* give checkpoints of the store's own",
        checkpoints=[first, other],
    )
    fewer = worlds.save_model(tmp_path / "fewer", num_hidden_layers=1)
    refused(ModelError, r"lacks 9 of the tensors that the model has in memory", checkpoints=[first, fewer])
    for file in fewer.glob("*.safetensors"):
        file.rename(file.with_name("pytorch_model.bin"))
    refused(ModelError, r"has no \*\.safetensors file", checkpoints=[first, fewer])


def test_an_adapter_that_acts_otherwise_is_refused(data: Path, tmp_path: Path) -> None:
    run = RUNS["lora-llama"](tmp_path)
    config = run.checkpoints[1] / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 99}))
    with pytest.raises(ModelError, match=r"its adapter_config\.json differs from that of .* in how weights act"):
        ingest(tmp_path / "store", data, run.settings)


def test_a_sample_without_a_gradient_at_one_checkpoint_is_named(
    llama: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = BatchRunner.block
    calls = []

    def failing(self: BatchRunner, samples: list[EncodedSample], draw: object) -> RapidGradBatch:
        calls.append(draw)
        batch = block(self, samples, draw)
        if len(calls) == 2:
            batch.problems[0] = "its gradient is zero"
        return batch

    monkeypatch.setattr(BatchRunner, "block", failing)
    with pytest.raises(GradientError, match=r"its gradient is zero, at checkpoint '.*checkpoint-200' "):
        ingest(tmp_path / "store", data, llama.settings)


def test_two_objectives_lie_one_after_the_other_each_with_a_section_for_each_checkpoint(
    llama: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for objective, dimension in (("both", DIMENSION), ("loss", DIMENSION // 2), ("log-odds", DIMENSION // 2)):
        with monkeypatch.context() as patch:
            found.append(kept_vectors(patch))
            more = {"objective": objective, "projection_dim": dimension, "projection": "factored", "probes": 20}
            ingest(tmp_path / objective, data, llama.settings, **more, curvature=True)
    both, *alone = found
    for id, vector in both.items():
        expected = np.concatenate([one[id] for one in alone]) / math.sqrt(2)
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-7)
    with rapidin.Searcher(tmp_path / "both") as searcher, rapidin.Searcher(tmp_path / "log-odds") as other:
        options = {"k": 60, "rerank": 60, "by_token": True}
        result = searcher.search(*QUESTION, objective="log-odds", **options)
        expected = {hit.id: hit for hit in other.search(*QUESTION, **options).proponents}
    size = max(abs(hit.estimate) for hit in result.proponents)
    for hit in result.proponents:
        assert hit.estimate == pytest.approx(expected[hit.id].estimate, abs=3e-3 * size)
        assert hit.exact == pytest.approx(expected[hit.id].exact, rel=1e-3, abs=1e-5 * size)
