"""Every kind of derived data passes the same suite: all built-in kinds, and three kinds that only tests know."""

from __future__ import annotations

import pytest

from rapidin.errors import SettingError
from rapidin.storage import Store
from rapidin.storage.derived import KINDS
from tests.storage.derived.kind_suite import KindSuite
from tests.storage.derived.mean_kinds import SegmentMeans, StoreMean
from tests.storage.derived.third_index import NormKind


class TestIvf(KindSuite):
    KIND = KINDS["ivf"]


class TestRabitq(KindSuite):
    KIND = KINDS["rabitq"]


class TestCurvature(KindSuite):
    KIND = KINDS["curvature"]


class TestStoreMean(KindSuite):
    KIND = StoreMean()


class TestSegmentMeans(KindSuite):
    KIND = SegmentMeans()


class TestThirdIndex(KindSuite):
    KIND = NormKind()


def test_what_is_no_index_is_not_built_as_one(filled: Store, monkeypatch) -> None:
    monkeypatch.setitem(KINDS, "store-mean", StoreMean())
    for refused in (filled.build_index, filled.drop_index):
        with pytest.raises(SettingError, match="'store-mean' is unknown: choose from ivf, rabitq"):
            refused("store-mean")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="no options"):
        filled.build_derived("store-mean", {"some": 1})
    assert filled.build_derived("store-mean").parameters == {"samples": 20}
