"""4-bit layers never repack their weights while rapidin uses them."""

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import modules

from rapidin.model.networks import SteadyLayers


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A 4-bit layer as on a CPU that has a kernel for repacked weights."""
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    torch.manual_seed(0)
    layer = modules.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    layer.load_state_dict({"weight": torch.randn(64, 64)})
    return layer.to("cpu").eval()


def test_a_pass_without_gradients_changes_nothing(layer: torch.nn.Module) -> None:
    weight, states = layer.weight.data.clone(), torch.randn(2, 64)
    steady = SteadyLayers(layer)
    with torch.no_grad():
        before = layer(states)
    assert torch.equal(layer.weight.data, weight)
    states.requires_grad_(True)
    assert layer(states).requires_grad
    torch.testing.assert_close(layer(states).detach(), before)
    steady.release()
    assert layer.support_avx512bf16_for_cpu


def test_a_layer_that_was_repacked_is_put_back(layer: torch.nn.Module) -> None:
    weight, states = layer.weight.data.clone(), torch.randn(2, 64)
    layer.support_avx512bf16_for_cpu = False
    before = layer(states)
    layer.support_avx512bf16_for_cpu = True
    packed, state = functional._convert_weight_packed_for_cpu(layer.weight.data, layer.weight.quant_state)
    layer.weight.data = packed
    assert state.packing_format_for_cpu and not torch.equal(packed.flatten(), weight.flatten())
    SteadyLayers(layer)
    assert torch.equal(layer.weight.data.flatten(), weight.flatten())
    states.requires_grad_(True)
    after = layer(states)
    assert after.requires_grad
    # The scales of the blocks were rounded to bfloat16 when they were repacked.
    torch.testing.assert_close(after.detach(), before, rtol=0.02, atol=0.02 * float(before.abs().max()))
