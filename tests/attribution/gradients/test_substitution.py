"""A model that is called with other parameters has its own ones again afterwards, wherever they are shared."""

import peft
import torch
from torch import nn

from rapidin.attribution.gradients import call_with
from tests import tiny

IDS = {"input_ids": torch.arange(3, 15).unsqueeze(0)}


class SharedModule(nn.Module):
    """One module under two names, whose parameter is also tied to another module's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = self.first
        self.third = nn.Linear(3, 3, bias=False)
        self.third.weight = self.first.weight

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.third(self.second(self.first(states)))
        return found


def test_all_uses_of_a_shared_parameter_are_exchanged_and_put_back() -> None:
    model = SharedModule()
    own, states = model.first.weight, torch.ones(1, 3)
    doubled = call_with(model, {"first.weight": 2 * own.detach()}, {"states": states})
    torch.testing.assert_close(doubled, 8 * model(states))
    assert model.first.weight is own and model.third.weight is own


def test_an_adapter_that_ties_two_layers_is_put_back() -> None:
    model = peft.get_peft_model(
        tiny.llama(tie_word_embeddings=True),
        peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5, 7], task_type="CAUSAL_LM"),
    ).eval()
    (name,) = [name for name, _ in model.named_parameters() if "trainable_tokens" in name]
    own = model.get_parameter(name)
    before = model(**IDS).logits
    changed = call_with(model, {name: own.detach() + 1}, IDS).logits
    assert (changed[:, :, 5] - before[:, :, 5]).abs().min() > 0.01  # as an input and as an output
    assert model.get_parameter(name) is own
    torch.testing.assert_close(model(**IDS).logits, before)


def test_vectors_that_all_layers_share_are_put_back() -> None:
    model = peft.get_peft_model(
        tiny.llama(num_key_value_heads=4),
        peft.VBLoRAConfig(r=4, num_vectors=8, vector_length=4, topk=2, target_modules=["q_proj", "v_proj"]),
    ).eval()
    bank = next(name for name, _ in model.named_parameters() if "vector_bank" in name)
    own = model.get_parameter(bank)
    call_with(model, {bank: torch.zeros_like(own)}, IDS)
    assert model.get_parameter(bank) is own
