"""EK-FAC by kronfluence against a slow computation, and beside the influence function by conjugate gradients."""

from __future__ import annotations

import gc
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import rapidin
from rapidin.attribution import GaussNewton, TargetBatch
from rapidin.errors import ComputationError, DependencyError, ModelError, SettingError
from rapidin.evaluation.methods.ek_fac import EkFac, EkFacScorer, known_layers
from rapidin.evaluation.methods.influence_functions import InfluenceFunction
from rapidin.evaluation.methods.kronfluence_analysis import TargetLoss, drawn_labels
from rapidin.evaluation.methods.registry import METHODS, MethodOptions, method_settings, require_packages
from rapidin.evaluation.methods.scorer import AskedQuery, TrainingSet
from rapidin.evaluation.methods.tracin import TracIn
from rapidin.model import StoreModel
from rapidin.storage import Store
from rapidin.text import EncodedSample
from tests import tiny, worlds
from tests.evaluation.methods.test_influence_functions import dense_gauss_newton

SAMPLES = 24
LAYERS = r"layers\.1\.(self_attn\.v_proj|mlp\.down_proj)"


class World:
    """A store of some layers, its model, its samples, and the first three of them as queries."""

    def __init__(self, store: Store) -> None:
        self.model = StoreModel(store, device="cpu")
        self.training = TrainingSet(store.list(), self.model)
        self.queries = [self.asked(sample) for sample in self.training.samples[:3]]

    def asked(self, sample: rapidin.Sample) -> AskedQuery:
        query = rapidin.Query(
            id=sample.id,
            prompt=sample.prompt,
            generation=sample.response,
            generated=False,
            tokens=sample.tokens,
            targets=sample.targets,
            truncated=False,
            metadata={},
        )
        return AskedQuery(query, self.model.encode_stored(sample))


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> Iterator[None]:
    """kronfluence collects garbage at each step, and would look through all that other tests have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.write_rows(tmp_path_factory.mktemp("ek-fac") / "data.jsonl", worlds.rows(SAMPLES))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data: Path) -> Iterator[World]:
    place = tmp_path_factory.mktemp("ek-fac-store") / "store"
    rapidin.ingest_files(
        place, [data], model=str(model_directory), projection_dim=128, parameters=LAYERS, curvature=False
    )
    with Store.open(place) as store:
        made = World(store)
        yield made
        made.model.close()


def slow_scores(
    model: nn.Module, layers: Sequence[str], queries: Sequence[EncodedSample], samples: Sequence[EncodedSample]
) -> Tensor:
    """EK-FAC sample by sample in float64, from the definition (Grosse et al. 2023, section 2.4)."""
    model = deepcopy(model).double()
    for name in layers:
        model.get_submodule(name).weight.requires_grad_(True)

    def factors(sample: EncodedSample, draw: int | None) -> dict[str, tuple[Tensor, Tensor]]:
        """Inputs [t, i] of each layer, and the loss's gradients by its outputs [t, o]."""
        inputs, outputs = {}, {}

        def keep(name: str, given: Tensor, got: Tensor) -> None:
            inputs[name], outputs[name] = given[0].detach(), got

        handles = [
            model.get_submodule(name).register_forward_hook(
                lambda _, given, got, name=name: keep(name, given[0], got)
            )
            for name in layers
        ]
        logits = model(input_ids=torch.tensor([list(sample.ids)])).logits[0]
        for handle in handles:
            handle.remove()
        batch = TargetBatch.of([sample])
        logits = logits[batch.places - 1]
        labels = batch.targets if draw is None else drawn_labels(logits, batch, 0, draw)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        loss = losses.mean() if draw is None else losses.sum() / len(losses) ** 0.5
        gradients = torch.autograd.grad(loss, [outputs[name] for name in layers])
        return {name: (inputs[name], one[0]) for name, one in zip(layers, gradients, strict=True)}

    first = [factors(sample, 0) for sample in samples]
    second, own, of_queries = (
        [{name: by_outputs.T @ given for name, (given, by_outputs) in factors(one, draw).items()} for one in some]
        for some, draw in ((samples, 1), (samples, None), (queries, None))
    )
    total = torch.zeros(len(queries), len(samples), dtype=torch.float64)
    for name in layers:
        inputs = torch.cat([one[name][0] for one in first])
        by_outputs = torch.cat([one[name][1] for one in first])
        right = torch.linalg.eigh(inputs.T @ inputs / len(inputs)).eigenvectors
        left = torch.linalg.eigh(by_outputs.T @ by_outputs / len(by_outputs)).eigenvectors
        eigenvalues = torch.stack([left.T @ one[name] @ right for one in second]).square().mean(dim=0)
        damped = eigenvalues + 0.1 * eigenvalues.mean()
        asked = torch.stack([left.T @ one[name] @ right / damped for one in of_queries])
        against = torch.stack([left.T @ one[name] @ right for one in own])
        total += asked.flatten(1) @ against.flatten(1).T
    return total


def test_scores_are_those_of_the_definition(world: World) -> None:
    told: list[tuple[str, int, int]] = []
    scorer = EkFacScorer(world.model, EkFac())
    scorer.prepare(world.training, lambda *step: told.append(step))
    assert told[-1] == ("ek-fac", 2 * SAMPLES, 2 * SAMPLES)
    found = scorer.scores(world.queries, world.training, lambda *step: told.append(step))
    assert told[-1] == ("ek-fac", 3 + SAMPLES, 3 + SAMPLES)
    with world.model.exclusive() as parts:
        layers = [name.removesuffix(".weight") for name in parts.engine.names]
        samples = list(world.training.encoded())
        wanted = slow_scores(parts.module, layers, [query.encoded for query in world.queries], samples).numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_a_sample_influences_itself_most_and_scores_agree_with_conjugate_gradients(world: World) -> None:
    queries = [world.asked(sample) for sample in world.training.samples]
    found = EkFacScorer(world.model, EkFac()).scores(queries, world.training)
    assert (np.diag(found) > 0).all()
    np.testing.assert_allclose(found, found.T, rtol=1e-3, atol=1e-3 * found.max())
    inverse = GaussNewton(samples=SAMPLES, iterations=8)
    other = InfluenceFunction("", world.model, inverse).scores(queries[:3], world.training)
    apart = ~np.eye(SAMPLES, dtype=bool)
    ranks = [
        spearmanr(one[mask], two[mask]).statistic for one, two, mask in zip(found, other, apart, strict=False)
    ]
    assert np.mean(ranks) > 0.9
    assert min(ranks) > 0.8


def test_two_runs_agree_and_another_seed_does_not(world: World) -> None:
    runs = [EkFacScorer(world.model, EkFac(seed=seed)).scores(world.queries, world.training) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_batches_and_groups_do_not_matter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    together = EkFacScorer(world.model, EkFac()).scores(world.queries, world.training)
    monkeypatch.setattr(EkFacScorer, "_together", lambda *_: 2)
    monkeypatch.setattr("rapidin.attribution.GradientProducts.together", 2)
    apart = EkFacScorer(world.model, EkFac()).scores(world.queries, world.training)
    np.testing.assert_allclose(apart, together, rtol=2e-3, atol=2e-3 * np.abs(together).max())


def test_much_damping_leaves_the_inner_products_of_gradients(world: World) -> None:
    found = EkFacScorer(world.model, EkFac(damping=1e6)).scores(world.queries, world.training)
    wanted = TracIn(world.model).scores(world.queries, world.training)
    np.testing.assert_allclose(found * 1e6, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_labels_are_drawn_from_the_prediction() -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.0], [-3.0, 0.0, 0.0, 1.0]])
    sample = EncodedSample(
        id="a", ids=(5, 6, 7), targets=(False, True, True), truncated=False, prompt="", response=""
    )
    batch = TargetBatch.of([sample])
    drawn = torch.stack([drawn_labels(logits, batch, 0, number) for number in range(4000)])
    for place, chances in enumerate(logits.softmax(dim=1)):
        shares = torch.bincount(drawn[:, place], minlength=4) / len(drawn)
        torch.testing.assert_close(shares, chances, atol=0.03, rtol=0)
    other = torch.stack([drawn_labels(logits, batch, 1, number) for number in range(100)])
    assert not torch.equal(other, drawn[:100])


def test_gradients_of_drawn_labels_have_the_curvature_as_second_moment(world: World) -> None:
    """The curvature is that of the mean loss, so the number of targets must not enter it."""
    name = "model.norm.weight"
    with world.model.exclusive() as parts:
        module, sample = deepcopy(parts.module), next(world.training.encoded())
    assert sum(sample.targets) > 3
    weight = module.get_parameter(name).requires_grad_(True)
    task = TargetLoss([], 0, lambda _: None)
    batch = TargetBatch.of([sample])
    one = {"ids": batch.ids, "mask": batch.mask, "rows": batch.rows, "places": batch.places}
    one |= {"targets": batch.targets, "counts": batch.counts}
    total = torch.zeros(len(weight), len(weight))
    for draw in range(500):
        task.draw = draw
        (gradient,) = torch.autograd.grad(task.compute_train_loss(one, module, sample=True), weight)
        total += torch.outer(gradient, gradient)
    wanted = dense_gauss_newton(module, [name], weight.detach(), [sample]).float()
    assert float((total / 500).trace() / wanted.trace()) == pytest.approx(1, rel=0.1)
    assert float((total / 500 - wanted).norm() / wanted.norm()) < 0.3


def test_the_model_is_given_back_as_it_was(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with world.model.exclusive() as parts:
        before = [(name, type(part), id(part)) for name, part in parts.module.named_modules()]
    rows = world.model.rows([query.encoded for query in world.queries])
    scorer = EkFacScorer(world.model, EkFac())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        scorer.scores(world.queries, world.training)
    assert [str(one.message) for one in heard if "kronfluence" in one.filename] == []
    with world.model.exclusive() as parts:
        assert [(name, type(part), id(part)) for name, part in parts.module.named_modules()] == before
        assert not any(parameter.requires_grad for parameter in parts.module.parameters())
    np.testing.assert_array_equal(world.model.rows([query.encoded for query in world.queries]), rows)
    assert list(tmp_path.iterdir()) == []
    directory = scorer._directory
    assert directory.parent == Path(tempfile.gettempdir())
    del scorer
    gc.collect()
    assert not directory.exists()


def test_the_layers_are_unwrapped_after_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("linalg.eigh: the input is broken")

    monkeypatch.setattr("kronfluence.Analyzer.perform_eigendecomposition", fail)
    with pytest.raises(ComputationError, match=r"ek-fac cannot be computed: .*the input is broken; leave"):
        EkFacScorer(world.model, EkFac()).scores(world.queries, world.training)
    with world.model.exclusive() as parts:
        assert not [name for name, _ in parts.module.named_modules() if "original_module" in name]


def test_memory_that_runs_out_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("kronfluence.Analyzer.fit_lambda_matrices", fail)
    with pytest.raises(ComputationError, match="memory does not suffice: lower --tokens-per-batch"):
        EkFacScorer(world.model, EkFac()).scores(world.queries, world.training)


def test_an_adapter(tmp_path: Path, data: Path, model_directory: Path, adapter_directory: Path) -> None:
    rapidin.ingest_files(
        tmp_path / "store",
        [data],
        model=str(model_directory),
        adapter=str(adapter_directory),
        projection_dim=128,
        curvature=False,
    )
    with Store.open(tmp_path / "store") as store:
        adapted = World(store)
        scorer = EkFacScorer(adapted.model, EkFac())
        found = scorer.scores(adapted.queries, adapted.training)
        with adapted.model.exclusive() as parts:
            layers = [name.removesuffix(".weight") for name in parts.engine.names]
            samples = list(adapted.training.encoded())
            wanted = slow_scores(
                parts.module, layers, [query.encoded for query in adapted.queries], samples
            ).numpy()
        adapted.model.close()
    assert len(layers) == 12
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def encoded(*ids: int) -> EncodedSample:
    targets = (False, *(True for _ in ids[1:]))
    return EncodedSample(id="a", ids=ids, targets=targets, truncated=False, prompt="", response="")


def traced(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("architecture", ["llama-tied", "llama-untied", "qwen3", "gpt-neox"])
def test_all_linear_layers_are_known_but_those_that_are_too_large(architecture: str) -> None:
    model = tiny.make(architecture)
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    samples = [encoded(5, 6, 7), encoded(8, 9)]
    assert set(known_layers(model, traced(model), samples, tiny.VOCABULARY)) == set(linear)
    small = {name for name, part in linear.items() if max(part.weight.shape) < tiny.VOCABULARY}
    assert small < set(linear)  # without the output layer, at least
    assert set(known_layers(model, traced(model), samples, tiny.VOCABULARY - 1)) == small


def test_layers_that_are_not_traced_are_left_out() -> None:
    model = tiny.make("lora-llama")
    names = [name for name in traced(model) if "lora_B" in name]
    found = known_layers(model, names, [encoded(5, 6, 7)], 1000)
    assert {f"{name}.weight" for name in found} == set(names)


def test_models_without_such_layers_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.make("gpt2")  # its layers are of another type, but for the output layer
    assert known_layers(model, traced(model), [encoded(5, 6, 7)], 1000) == ["lm_head"]
    assert "takes 1 layers with 10 % of the traced parameters" in caplog.text
    with pytest.raises(ModelError, match=r"torch\.nn\.Linear with at most 50 inputs.*: use influence-cg"):
        known_layers(model, traced(model), [encoded(5, 6, 7)], 50)


def test_a_layer_that_is_used_twice_is_left_out() -> None:
    model = tiny.make("llama-untied")
    first, second = model.model.layers
    second.mlp.up_proj = first.mlp.up_proj
    found = known_layers(model, traced(model), [encoded(5, 6, 7)], 1000)
    assert "model.layers.0.mlp.up_proj" not in found
    assert "model.layers.0.mlp.down_proj" in found


def test_damping_longest_side_and_seed_are_settings() -> None:
    found = method_settings(["ek-fac.damping=0.5"])
    given = METHODS["ek-fac"].settings(MethodOptions(seed=3, more=found))
    assert given == {"damping": 0.5, "longest_side": 16_384, "seed": 3}
    default = METHODS["ek-fac"].settings(MethodOptions())
    assert json.loads(json.dumps(default)) == default == {"damping": None, "longest_side": 16_384, "seed": 0}
    with pytest.raises(SettingError, match=re.escape("ek-fac has no setting 'scale': give one of damping")):
        method_settings(["ek-fac.scale=2"])
    with pytest.raises(SettingError, match=r"ek-fac\.damping=0: Input should be greater than 0"):
        method_settings(["ek-fac.damping=0"])


def test_without_kronfluence_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kronfluence", None)
    with pytest.raises(DependencyError, match=r"needs the package kronfluence.*pip install 'rapidin\[ekfac\]'"):
        require_packages(["ek-fac"], MethodOptions())
    require_packages(["influence-cg"], MethodOptions())
