"""Every causal architecture of transformers and every method of PEFT, against one-sample autograd.

The lists grow with the installed versions. See docs/reference/models.md, which `model_table` writes.
"""

import pytest

from tests.attribution.gradients.model_table import (
    ADAPTERS,
    ARCHITECTURES,
    architecture_outcome,
    method_outcome,
    methods,
    recorded,
    versions,
)
from tests.attribution.gradients.small_models import architectures

TEXT, RECORDED = recorded()
SAME_VERSIONS = versions() in TEXT.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", architectures())
def test_an_architecture(name: str) -> None:
    found, _ = architecture_outcome(name)  # raises an error if a gradient is wrong
    if SAME_VERSIONS:
        assert found == RECORDED[ARCHITECTURES, name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", methods())
def test_an_adapter(name: str) -> None:
    found, _ = method_outcome(name)
    if SAME_VERSIONS:
        assert found == RECORDED[ADAPTERS, name]


def test_the_page_leaves_nothing_out() -> None:
    """It is total for the versions that it names; other versions may have more."""
    if SAME_VERSIONS:
        assert RECORDED.keys() == {
            *((ARCHITECTURES, name) for name in architectures()),
            *((ADAPTERS, name) for name in methods()),
        }
    assert len(RECORDED) > 200
