"""Influence functions over a store against dense Gauss–Newton and Hessian matrices of its traced parameters."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rapidin
from rapidin.attribution.curvature.curvature_products import largest_eigenvalue
from rapidin.attribution.curvature.gauss_newton import GaussNewton
from rapidin.attribution.curvature.lissa import Lissa
from rapidin.errors import SettingError
from rapidin.evaluation.methods.influence_functions import InfluenceFunction
from rapidin.evaluation.methods.registry import METHODS, MethodOptions, method_settings
from rapidin.evaluation.methods.scorer import AskedQuery, TrainingSet
from rapidin.model.store_model import StoreModel
from rapidin.search.queries import query_of_prompt
from rapidin.text import EncodedSample
from tests import worlds

NORMS = "layernorm|model.norm"
"""Five vectors of 32 numbers, so that dense matrices are small."""


def losses(model: nn.Module, names: list[str], flat: Tensor, sample: EncodedSample) -> Tensor:
    sizes = [model.get_parameter(name).numel() for name in names]
    parameters = dict(zip(names, flat.split(sizes), strict=True))
    logits = torch.func.functional_call(model, parameters, (torch.tensor([list(sample.ids)]),)).logits
    places = [place for place, target in enumerate(sample.targets) if target]
    targets = torch.tensor([sample.ids[place] for place in places])
    return nn.functional.cross_entropy(logits[0, [place - 1 for place in places]], targets, reduction="none")


def logits(model: nn.Module, names: list[str], flat: Tensor, sample: EncodedSample) -> Tensor:
    sizes = [model.get_parameter(name).numel() for name in names]
    parameters = dict(zip(names, flat.split(sizes), strict=True))
    found = torch.func.functional_call(model, parameters, (torch.tensor([list(sample.ids)]),)).logits
    return found[0, [place - 1 for place, target in enumerate(sample.targets) if target]]


def dense_gauss_newton(model: nn.Module, names: list[str], flat: Tensor, samples: list[EncodedSample]) -> Tensor:
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for sample in samples:
        jacobians = torch.func.jacfwd(lambda some, one=sample: logits(model, names, some, one))(flat).double()
        chances = logits(model, names, flat, sample).detach().softmax(dim=-1).double()
        for jacobian, chance in zip(jacobians, chances, strict=True):
            mean = chance @ jacobian
            total += (jacobian.T @ (chance[:, None] * jacobian) - torch.outer(mean, mean)) / len(chances)
    return total / len(samples)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    directory = tmp_path_factory.mktemp("influence")
    data = worlds.write_rows(directory / "train.jsonl", worlds.rows(6))
    rapidin.ingest_files(
        directory / "store",
        [data],
        model=str(model_directory),
        projection_dim=128,
        parameters=NORMS,
        curvature=False,
    )
    return directory / "store"


@pytest.mark.parametrize("kind", ["influence-cg", "influence-lissa"])
def test_scores_are_those_of_the_dense_inverse(store: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        training = TrainingSet(opened.list(), model)
        asked = [
            AskedQuery(*model.prepared(query_of_prompt(prompt, answer, opened.settings.text), 8))
            for prompt, answer in (("Hello?", "yes it is"), ("What is red?", "a colour"))
        ]
        with model.exclusive() as parts:
            encoded, names, module = list(training.encoded()), list(parts.engine.names), parts.module
        flat = torch.cat([module.get_parameter(name).detach().flatten() for name in names])

        def gradient(sample: EncodedSample) -> Tensor:
            return torch.func.grad(lambda some: losses(module, names, some, sample).mean())(flat).double()

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            queries = torch.stack([gradient(query.encoded) for query in asked])
            samples = torch.stack([gradient(sample) for sample in encoded])
            if kind == "influence-cg":
                inverse = GaussNewton(damping=0.02, samples=100, tolerance=1e-4, iterations=100)
                dense = dense_gauss_newton(module, names, flat, encoded)
                monkeypatch.setattr("rapidin.attribution.curvature.gauss_newton._POWER_ITERATIONS", 40)
                damping = 0.02 * float(torch.linalg.eigvalsh(dense)[-1])
            else:

                def loss(some: Tensor) -> Tensor:
                    return torch.stack([losses(module, names, some, one).mean() for one in encoded]).mean()

                dense = torch.func.hessian(loss)(flat).double()
                eigenvalues = torch.linalg.eigvalsh(dense)
                scale = 1.2 * float(eigenvalues.abs().max())
                share = 0.3 + max(0.0, -float(eigenvalues[0]) / scale)
                inverse = Lissa(damping=share, scale=scale, depth=40, batch=100)
                damping = share * scale
        told = []
        found = InfluenceFunction(kind, model, inverse).scores(
            asked, training, lambda step, done, of: told.append((step, done, of))
        )
    wanted = queries @ torch.linalg.inv(dense + damping * torch.eye(len(flat))) @ samples.T
    np.testing.assert_allclose(found, wanted.numpy(), rtol=5e-3, atol=2e-3 * float(wanted.abs().max()))
    plain = (queries @ samples.T).numpy()
    assert np.corrcoef(found.ravel(), plain.ravel())[0, 1] < 0.999  # the inverse makes a difference
    assert {step for step, _, _ in told} == {kind}
    assert told[-1][1:] == (6, 6)


def test_the_power_iterations_find_the_largest_eigenvalue() -> None:
    matrix = torch.diag(torch.tensor([-5.0, 3.0, 1.0]))
    like = {"x": torch.zeros(7, 3)}
    found = largest_eigenvalue(lambda vectors: {"x": vectors["x"] @ matrix}, like, 30, 0)
    assert found == pytest.approx(5.0, rel=1e-4)
    assert largest_eigenvalue(lambda vectors: {"x": vectors["x"] * 0}, like, 30, 0) == 0


def test_settings_of_the_command_line_reach_the_methods() -> None:
    found = method_settings(["influence-lissa.scale=300", "influence-cg.samples=8", "influence-lissa.depth=5"])
    assert found == {"influence-lissa": {"scale": "300", "depth": "5"}, "influence-cg": {"samples": "8"}}
    options = MethodOptions(seed=3, more=found)
    lissa = METHODS["influence-lissa"].settings(options)
    assert (lissa["scale"], lissa["depth"], lissa["seed"]) == (300.0, 5, 3)
    assert METHODS["influence-cg"].settings(options)["samples"] == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("influence-lissa", "write METHOD.NAME=NUMBER"),
        ("bm25.depth=3", "write METHOD.NAME=NUMBER"),
        ("influence-cg.depth=3", "influence-cg has no setting 'depth': give one of damping"),
        ("influence-lissa.depth=many", "influence-lissa.depth=many: "),
        ("influence-lissa.scale=0", "influence-lissa.scale=0: Input should be greater than 0"),
        ("influence-lissa.damping=1", "influence-lissa.damping=1: Input should be less than 1"),
        ("influence-lissa.repeats=0", "influence-lissa.repeats=0: Input should be greater than or equal to 1"),
        ("influence-cg.samples=0", "influence-cg.samples=0: Input should be greater than or equal to 1"),
        ("influence-cg.damping=nan", "influence-cg.damping=nan: "),
    ],
)
def test_settings_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)):
        method_settings([text])
