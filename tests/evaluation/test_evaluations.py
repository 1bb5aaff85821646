"""Evaluations as a program calls them, by a path or an open store."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidin.errors import DataFileError, SettingError, StoreNotFoundError
from rapidin.evaluation import (
    Retraining,
    evaluate_backdoor,
    evaluate_fidelity,
    evaluate_lds,
    evaluate_trace,
)
from rapidin.storage import Store
from tests.evaluation import worlds_of_colours

LABEL = worlds_of_colours.LABEL


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> tuple[Path, Path]:
    return worlds_of_colours.make(tmp_path_factory.mktemp("functions"), model_directory)


def test_a_backdoor_by_path_and_by_open_store(places: tuple[Path, Path]) -> None:
    store, queries = places
    first = evaluate_backdoor(
        store, str(queries), LABEL, baselines=["random"], ks=(5,), caching_seconds=1.0, device="cpu"
    )
    assert [method.name for method in first.methods] == ["rapidin", "random", "bm25"]
    assert list((store / "evaluation").iterdir())
    with Store.open(store) as opened:
        again = evaluate_backdoor(
            opened, queries, LABEL, baselines=["random"], ks=(5,), caching_seconds=1.0, device="cpu"
        )
        assert opened.info().samples == 60  # an open store stays open
    assert [method.at for method in again.methods] == [method.at for method in first.methods]
    assert all(method.cost.resumed for method in again.methods)


def test_only_some_answers_count(places: tuple[Path, Path]) -> None:
    report = evaluate_backdoor(
        *places, LABEL, attacked="indeed|12", baselines=["random"], ks=(5,), caching_seconds=1.0, device="cpu"
    )
    assert (report.queries, report.left_out, report.not_attacked) == (2, 1, 1)
    with pytest.raises(DataFileError, match="none of 3 answers matches"):
        evaluate_backdoor(*places, LABEL, attacked="violet", caching_seconds=1.0, device="cpu")


def test_wrong_words_are_asked_about(places: tuple[Path, Path], tmp_path: Path) -> None:
    report = evaluate_trace(*places, LABEL, ks=(5,), work=tmp_path / "work", device="cpu")
    assert [method.name for method in report.methods] == ["rapidin"]
    assert (tmp_path / "work").is_dir()


def test_fidelity_needs_no_queries(places: tuple[Path, Path]) -> None:
    assert evaluate_fidelity(places[0], samples=8, device="cpu").queries == 8


def test_what_cannot_work_is_refused_before_a_store_is_opened(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(SettingError, match="--subsets 4 is too few"):
        evaluate_lds(nowhere, "queries.jsonl", retraining=Retraining(subsets=4))
    with pytest.raises(SettingError, match="--baseline 'bm52' is unknown"):
        evaluate_backdoor(nowhere, "queries.jsonl", LABEL, baselines=["bm52"])
    with pytest.raises(SettingError, match="cannot be asked about single words"):
        evaluate_trace(nowhere, "queries.jsonl", LABEL, baselines=["bm25"])
    with pytest.raises(StoreNotFoundError):
        evaluate_fidelity(nowhere)
