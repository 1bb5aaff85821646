"""What no row can mend is not blamed on a row, and an ingest that adds nothing is no success."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import rapidin
from rapidin.errors import DataError, GradientError, ModelError
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.failures import Failures
from tests import worlds
from tests.ingest.planned import planned

BROKEN = "the model failed on it: RuntimeError: tensors of {} and 7 numbers"


def block(*lengths: int) -> WorkBlock:
    return WorkBlock(0, tuple(planned(number, length) for number, length in enumerate(lengths)))


def all_failing(lengths: Sequence[int]) -> dict[int, str]:
    return {row: BROKEN.format(length) for row, length in enumerate(lengths)}


@pytest.mark.parametrize("skip", [True, False])
def test_the_model_is_blamed_where_all_fail_alike(skip: bool) -> None:
    lengths = (9, 8, 7, 6, 5)
    with pytest.raises(ModelError, match=r"first 5 of 5 samples all failed in one way, so no row can mend"):
        Failures(lengths, skip).look_at(block(*lengths), all_failing(lengths))


def test_rows_that_failed_before_do_not_condemn_a_model_that_was_right_about_the_others() -> None:
    lengths = (9, 8)
    failures = Failures(lengths, skip_errors=True, usable=3)
    failures.look_at(block(*lengths), dict.fromkeys((0, 1), "its gradient is zero"))
    failures.finish()
    with pytest.raises(ModelError, match="the first 2 of 2 samples all failed"):
        Failures(lengths, True).look_at(block(*lengths), dict.fromkeys((0, 1), "its gradient is zero"))


def test_long_samples_alone_do_not_condemn_the_model() -> None:
    lengths = (*range(100, 90, -1), *[5] * 30)
    failures = Failures(lengths, skip_errors=True)
    failures.look_at(block(*lengths[:10]), all_failing(lengths[:10]))
    failures.look_at(block(*lengths[10:30]), {})
    failures.look_at(block(*lengths[30:]), all_failing(lengths[30:]))  # some were usable


def test_failures_of_several_kinds_are_of_the_rows() -> None:
    problems = {**all_failing((9, 8, 7, 6)), 4: "its gradient is zero"}
    Failures((9, 8, 7, 6, 5), skip_errors=True).look_at(block(9, 8, 7, 6, 5), problems)
    with pytest.raises(GradientError, match=r"^sample '0': the model failed .* \(f, row 1\); repair the row"):
        Failures((9, 8, 7, 6, 5), skip_errors=False).look_at(block(9, 8, 7, 6, 5), problems)


def test_an_error_of_a_row_waits_only_as_long_as_the_model_may_be_to_blame() -> None:
    failures = Failures([9] + [5] * 30, skip_errors=False)
    failures.look_at(block(9), all_failing((9,)))
    with pytest.raises(GradientError, match=r"^sample '0': .* repair the row"):
        failures.look_at(block(5, 5), {})
    alone = Failures([9], skip_errors=False)
    alone.look_at(block(9), all_failing((9,)))
    with pytest.raises(GradientError, match="repair the row"):
        alone.finish()


def test_what_is_certainly_the_models_needs_no_short_sample() -> None:
    problem = "the model failed on it: NotImplementedError: no backward on this device"
    with pytest.raises(ModelError, match="no backward on this device"):
        Failures([50] * 5 + [5] * 90, skip_errors=True).look_at(block(*[50] * 5), dict.fromkeys(range(5), problem))


def test_a_model_that_fails_on_everything_ends_the_ingest(
    tmp_path: Path, model_directory: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rapidin.attribution.rapidgrads import RapidGradEngine

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(RapidGradEngine, "begin", failing)
    for mode in ("fail", "skip"):
        with pytest.raises(
            ModelError, match=r"all failed in one way, so no row can mend it: .*no kernel for this"
        ):
            rapidin.ingest_files(
                tmp_path / mode, [data], model=str(model_directory), projection_dim=1024, on_error=mode
            )


def test_rows_of_which_none_is_added_are_no_success(tmp_path: Path, model_directory: Path, data: Path) -> None:
    store = tmp_path / "store"
    rapidin.ingest_files(store, [data], model=str(model_directory), projection_dim=1024, curvature=False)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"instruction": "x"}) + "\n")
    with pytest.raises(DataError, match=r"bad\.jsonl: none of its rows can be used: field 'output' is missing"):
        rapidin.ingest_files(store, [bad], on_error="skip")
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(bad.read_text() + data.read_text())
    assert rapidin.ingest_files(store, [mixed], on_error="skip").failed == 1


def test_metadata_of_many_levels_is_an_error_of_its_row(tmp_path: Path, model_directory: Path) -> None:
    deep = "[" * 900 + "]" * 900
    rows = [json.dumps(row) for row in worlds.rows(2)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join([rows[0], rows[1][:-1] + f', "deep": {deep}}}', deep]) + "\n")
    report = rapidin.ingest_files(
        tmp_path / "store",
        [data],
        model=str(model_directory),
        projection_dim=1024,
        curvature=False,
        on_error="skip",
    )
    assert (report.added, [failure.row for failure in report.failures]) == (1, [2, 3])
    assert "field 'deep' is nested more than 100 levels deep" in report.failures[0].reason
