"""What of a token is differentiated, against the formulas in double precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from rapidin.attribution.gradients.objectives import token_objectives


@given(st.lists(st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5), min_size=1, max_size=4), st.data())
def test_values_and_gradients(rows: list[list[float]], data: st.DataObject) -> None:
    logits = torch.tensor(rows, requires_grad=True)
    ids = torch.tensor([data.draw(st.integers(0, 4)) for _ in rows])
    double = logits.detach().double().requires_grad_()
    likelihood = double.softmax(1).gather(1, ids[:, None])[:, 0]
    others = torch.stack([row[torch.arange(5) != own].logsumexp(0) for row, own in zip(double, ids, strict=True)])
    wanted = {"loss": -likelihood.log(), "log-odds": others - double.gather(1, ids[:, None])[:, 0]}
    for objective, values in wanted.items():
        found = token_objectives(logits, ids, objective)
        torch.testing.assert_close(found.double(), values, atol=1e-4, rtol=1e-5)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        (truth,) = torch.autograd.grad(values.sum(), double, retain_graph=True)
        torch.testing.assert_close(gradient.double(), truth, atol=1e-5, rtol=1e-4)


def test_what_the_model_is_sure_of_counts_as_much() -> None:
    """The gradient of the log-odds stays, where that of the loss vanishes: they differ by 1 − p."""
    logits = torch.tensor([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0]], requires_grad=True)
    ids = torch.tensor([0, 0])
    (of_loss,) = torch.autograd.grad(token_objectives(logits, ids, "loss").sum(), logits)
    (of_odds,) = torch.autograd.grad(token_objectives(logits, ids, "log-odds").sum(), logits)
    assert of_loss[1].norm() < 1e-12
    assert float(of_odds[1].norm()) == pytest.approx(float(of_odds[0].norm()), rel=1e-5)
