"""Products with the curvature against the matrix itself, formed column by column in double precision."""

import pytest
import torch
import transformers
from torch import Tensor, nn

from rapidin.attribution.curvature import parameter_vectors as algebra
from rapidin.attribution.curvature.conjugate_gradients import conjugate_gradients
from rapidin.attribution.curvature.curvature_products import Curvature, largest_eigenvalue
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.errors import ComputationError
from rapidin.text import EncodedSample
from tests import tiny

IDS = ([3, 7, 5, 9, 4, 8, 6], [5, 3, 8], [9, 9, 4, 7, 3], [6, 4, 4, 5, 8, 3, 9])


def samples(vocabulary: int = 10) -> list[EncodedSample]:
    return [
        EncodedSample(
            id=str(number),
            ids=tuple(one % vocabulary for one in ids),
            targets=(False,) * (1 + number % 2) + (True,) * (len(ids) - 1 - number % 2),
            truncated=False,
            prompt="",
            response="",
        )
        for number, ids in enumerate(IDS)
    ]


def small() -> nn.Module:
    """A Llama of 148 parameters in double precision."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=10,
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        tie_word_embeddings=True,
        initializer_range=0.3,
        pad_token_id=None,
    )
    return transformers.LlamaForCausalLM(config).double().eval()


def adapted() -> nn.Module:
    return tiny.with_lora(small(), ["q_proj", "down_proj"]).double().eval()


def traced(model: nn.Module) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if "lora_" in name] or names


def logits_of(model: nn.Module, names: list[str], flat: Tensor, sample: EncodedSample) -> Tensor:
    """Logits of one unpadded sample's targets, as a function of the flattened parameters."""
    parameters, start = {}, 0
    for name in names:
        shape = model.get_parameter(name).shape
        parameters[name] = flat[start : start + shape.numel()].view(shape)
        start += shape.numel()
    output = torch.func.functional_call(model, parameters, (torch.tensor([list(sample.ids)]),))
    return output.logits[0, [place - 1 for place, target in enumerate(sample.targets) if target]]


def flat_parameters(model: nn.Module, names: list[str]) -> Tensor:
    return torch.cat([model.get_parameter(name).detach().flatten() for name in names])


def loss_of(model: nn.Module, names: list[str], flat: Tensor) -> Tensor:
    """Mean over samples of the mean over targets."""
    losses = [
        nn.functional.cross_entropy(
            logits_of(model, names, flat, sample),
            torch.tensor([one for one, target in zip(sample.ids, sample.targets, strict=True) if target]),
        )
        for sample in samples()
    ]
    return torch.stack(losses).mean()


def dense_hessian(model: nn.Module, names: list[str]) -> Tensor:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(
            lambda flat: loss_of(model, names, flat), flat_parameters(model, names)
        )
    return hessian


def dense_gauss_newton(model: nn.Module, names: list[str]) -> Tensor:
    flat = flat_parameters(model, names)
    total = torch.zeros(len(flat), len(flat), dtype=flat.dtype)
    for sample in samples():
        jacobian = torch.autograd.functional.jacobian(
            lambda some, sample=sample: logits_of(model, names, some, sample), flat
        )
        chances = logits_of(model, names, flat, sample).detach().softmax(dim=-1)
        for row, chance in zip(jacobian, chances, strict=True):
            curved = torch.diag(chance) - torch.outer(chance, chance)
            total += row.T @ curved @ row / (len(chances) * len(samples()))
    return total


def identity(model: nn.Module, names: list[str]) -> Vectors:
    """Every unit vector of the parameters' space, side by side."""
    shapes = [model.get_parameter(name).shape for name in names]
    size = sum(shape.numel() for shape in shapes)
    parts = torch.eye(size, dtype=torch.float64).split([shape.numel() for shape in shapes], dim=1)
    return {name: part.reshape(size, *shape) for name, shape, part in zip(names, shapes, parts, strict=True)}


def flattened(vectors: Vectors) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in vectors.values()], dim=1)


@pytest.mark.parametrize("make", [small, adapted])
@pytest.mark.parametrize("tokens", [20, 100_000])
def test_products_are_those_of_the_dense_matrices(make, tokens):
    model = make()
    names = traced(model)
    curvature = Curvature(model, names, tokens)
    every = identity(model, names)
    found = flattened(curvature.gauss_newton(samples(), every))
    torch.testing.assert_close(found, dense_gauss_newton(model, names), rtol=1e-5, atol=1e-7)
    found = flattened(curvature.hessian(samples(), every))
    torch.testing.assert_close(found, dense_hessian(model, names), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [small, adapted])
def test_conjugate_gradients_invert_the_damped_gauss_newton_matrix(make):
    model = make()
    names = traced(model)
    curvature, chosen = Curvature(model, names), samples()
    dense = dense_gauss_newton(model, names)
    wanted = algebra.chosen(identity(model, names), torch.tensor([0, 17, 40]))

    def product(vectors: Vectors) -> Vectors:
        return curvature.gauss_newton(chosen, vectors)

    largest = largest_eigenvalue(product, wanted, 60, 0)
    assert largest == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-3)
    solution = conjugate_gradients(product, wanted, 1e-3 * largest, tolerance=1e-6, iterations=400)
    inverse = torch.linalg.inv(dense + 1e-3 * largest * torch.eye(len(dense)))
    expected = flattened(wanted) @ inverse
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(flattened(solution.vectors), expected, rtol=1e-4, atol=atol)
    assert float(solution.residuals.max()) <= 1e-6
    left = flattened(solution.vectors) @ dense + 1e-3 * largest * flattened(solution.vectors) - flattened(wanted)
    assert float(left.norm(dim=1).max()) < 3e-6


def test_a_right_hand_side_that_has_converged_is_multiplied_no_more():
    torch.manual_seed(0)
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    counts = []

    def product(vectors: Vectors) -> Vectors:
        counts.append(len(vectors["x"]))
        return {"x": vectors["x"] @ matrix}

    # One step solves an eigenvector, and none a zero; four solve anything in four dimensions.
    wanted = {"x": torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]], dtype=torch.float64)}
    solution = conjugate_gradients(product, wanted, 0.5, tolerance=1e-10, iterations=9)
    assert counts == [2, 1, 1, 1]
    expected = wanted["x"] @ torch.linalg.inv(matrix + 0.5 * torch.eye(4))
    torch.testing.assert_close(solution.vectors["x"], expected)
    short = conjugate_gradients(product, wanted, 0.5, tolerance=1e-10, iterations=2)
    left = short.vectors["x"] @ (matrix + 0.5 * torch.eye(4)) - wanted["x"]
    assert float(short.residuals[2]) == pytest.approx(float(left[2].norm() / wanted["x"][2].norm()))


def test_a_matrix_that_is_not_positive_is_an_error():
    wanted = {"x": torch.ones(1, 3, dtype=torch.float64)}
    with pytest.raises(ComputationError, match=r"not positive \(iteration 1\); give a larger damping"):
        conjugate_gradients(lambda vectors: algebra.zeros_like(vectors), wanted, 0.0, tolerance=0.1, iterations=3)


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES])
def test_padding_changes_nothing_on_any_architecture(architecture):
    model = tiny.make(architecture)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    chosen, several = samples(), Curvature(model, names, 10_000)
    one = Curvature(model, names, 1)
    vectors = {
        name: torch.randn(2, *parameter.shape, generator=torch.Generator().manual_seed(1))
        for name, parameter in several.parameters.items()
    }
    if architecture == "lora-experts":  # PEFT replaces its parameters in place during the forward pass
        with pytest.raises(ComputationError, match="this model cannot be computed, so it has no influence"):
            several.gauss_newton(chosen, vectors)
        return
    for kind in ("gauss_newton", "hessian"):
        together = flattened(getattr(several, kind)(chosen, vectors))
        alone = flattened(getattr(one, kind)(chosen, vectors))
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=2e-5 * float(alone.abs().max()))
