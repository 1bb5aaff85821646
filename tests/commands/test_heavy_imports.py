"""Python's collection of garbage around imports."""

import gc
from collections.abc import Iterator

import pytest

from rapidin.commands.heavy_imports import importing


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """Afterwards garbage is collected as before, and nothing more is kept out of it."""
    enabled = gc.isenabled()
    frozen = gc.get_freeze_count()
    yield
    if gc.get_freeze_count() != frozen:
        gc.unfreeze()
    (gc.enable if enabled else gc.disable)()


def test_nothing_is_collected_during_imports_and_what_they_made_is_kept_out_of_collections() -> None:
    gc.unfreeze()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("fails", [False, True])
def test_an_application_that_switched_collection_off_finds_it_off(fails: bool) -> None:
    gc.unfreeze()
    gc.disable()
    try:
        with importing():
            if fails:
                raise ModuleNotFoundError
    except ModuleNotFoundError:
        assert fails
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0
