"""Whole evaluations of a small store: what is reported, kept, and computed again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rapidin
from rapidin.errors import DataFileError, RowError, SettingError, StoreEmptyError
from rapidin.evaluation.experiments.attacked_queries import behaviour_of
from rapidin.evaluation.experiments.experiment_data import Label, read_query_rows, span_reader, training_set
from rapidin.evaluation.experiments.label_experiments import LabelExperiment, backdoor, trace
from rapidin.evaluation.experiments.method_comparison import figure_notes
from rapidin.evaluation.experiments.stored_fidelity import compared, expected_correlation, fidelity
from rapidin.evaluation.methods.registry import MethodOptions
from rapidin.evaluation.methods.saved_scores import SavedScores, data_digest, key_of
from rapidin.evaluation.methods.scorer import TrainingSet
from rapidin.evaluation.methods.stored_scores import RapidinScorer
from rapidin.model.store_model import StoreModel
from rapidin.records import BackdoorReport, EndsQuality, Interval, MethodCost, MethodQuality
from rapidin.settings import Objective
from rapidin.storage import Store
from tests import worlds
from tests.evaluation import worlds_of_colours
from tests.evaluation.metrics.test_ranking_measures import slow_average_precision

KS = (5, 10, 25, 1000)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[LabelExperiment]:
    path, queries = worlds_of_colours.make(tmp_path_factory.mktemp("experiments"), model_directory)
    with Store.open(path) as store, StoreModel(store, device="cpu") as model:
        label = Label(worlds_of_colours.LABEL)
        spans = span_reader("span", ())
        query_rows = read_query_rows(queries, store, label, span_of=spans)
        yield LabelExperiment(store, model, label, query_rows, device="cpu")


def test_a_comparison_by_hand(setting: LabelExperiment) -> None:
    report = backdoor(setting, ["random", "bm25", "embedding", "rapidin+rerank"], KS, 10.0)
    assert (report.samples, report.relevant, report.queries, report.left_out) == (60, 12, 3, 1)
    assert [method.name for method in report.methods] == [
        "rapidin",
        "random",
        "bm25",
        "embedding",
        "rapidin+rerank",
    ]
    own = report.methods[0]
    assert [at.k for at in own.at] == [5, 10, 25]
    training = sorted(setting.store.list(), key=lambda sample: sample.id)
    scores = RapidinScorer(setting.store, setting.model).scores(setting.answered(None), setting_training(setting))
    precisions, averages = [], []
    for row in scores:
        ranked = [training[place].metadata["source"] == "blue" for place in np.argsort(-row)]
        precisions.append(sum(ranked[:10]) / 10)
        averages.append(slow_average_precision(ranked))
    assert own.at[1].precision.mean == pytest.approx(np.mean(precisions))
    assert own.average_precision.mean == pytest.approx(np.mean(averages))
    assert own.average_precision.mean > report.methods[1].average_precision.mean
    assert all(at.auprc_behind.mean == 0 and at.overlap.mean == 1 for at in own.at)
    assert own.spearman.mean == pytest.approx(1)
    assert own.cost.preparation == 10
    assert (own.cost.pays_from, report.methods[1].cost.preparation) == (None, 0)
    assert report.methods[3].cost.preparation > 0
    json.dumps(rapidin.to_json(report), allow_nan=False)


def setting_training(setting: LabelExperiment) -> TrainingSet:
    return training_set(setting.store, setting.model, setting.where)


def test_filters_and_estimated_caching(setting: LabelExperiment) -> None:
    report = backdoor(replace(setting, where=["number<30"]), [], KS)
    assert [method.name for method in report.methods] == ["rapidin", "bm25"]  # which is always compared
    assert (report.samples, report.relevant, report.caching.sampled) == (30, 6, 30)
    assert report.caching.seconds > 0


def test_nothing_is_computed_twice(
    setting: LabelExperiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = replace(setting, work=tmp_path / "work")
    first = backdoor(kept, ["bm25", "random"], KS, 1.0)
    files = sorted((tmp_path / "work").iterdir())
    assert len(files) == 6  # a first query, and the others, of each method
    again = backdoor(kept, ["bm25", "random"], KS, 1.0)
    assert all(method.cost.resumed for method in again.methods)
    assert not any(method.cost.resumed for method in first.methods)
    for old, new in zip(first.methods, again.methods, strict=True):
        assert old.at == new.at
        assert replace(old.cost, resumed=True) == new.cost
    # Another seed is another method; what is damaged is made anew.
    for number, file in enumerate(file for file in files if file.name.startswith("bm25")):
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2] if number else data[:200] + b"\xff" * 8 + data[208:])
    anew = backdoor(replace(kept, options=MethodOptions(seed=1)), ["bm25", "random"], KS, 1.0)
    assert [method.cost.resumed for method in anew.methods] == [True, False, False]
    assert caplog.text.count("is damaged") == 2
    assert anew.methods[1].at == first.methods[1].at
    assert anew.methods[2].at != first.methods[2].at


def test_what_decides_scores_decides_their_key(setting: LabelExperiment) -> None:
    training, queries = setting_training(setting), setting.answered(None)
    settings = setting.store.settings
    data = data_digest(settings, training)
    moved = settings.model_copy(update={"model": settings.model.model_copy(update={"model": "/elsewhere"})})
    assert data_digest(moved, training) == data
    other = settings.model_copy(update={"codec": settings.codec.model_copy(update={"bits": 1})})
    assert data_digest(other, training) != data
    traced = settings.model_copy(update={"traced": settings.traced[1:]})
    other_objective = settings.gradient.model_copy(update={"objective": "log-odds"})
    odds = settings.model_copy(update={"gradient": other_objective})
    assert len({data, data_digest(traced, training), data_digest(odds, training)}) == 3
    training.samples = [replace(training.samples[0], content_hash="other"), *training.samples[1:]]
    assert data_digest(settings, training) != data
    asked = queries[0]
    narrowed = replace(asked, encoded=replace(asked.encoded, targets=(*asked.encoded.targets[:-1], False)))
    keys = [
        key_of(data, "bm25", {}, [asked]),
        key_of(data, "random", {}, [asked]),
        key_of(data, "bm25", {"seed": 1}, [asked]),
        key_of(data, "bm25", {}, [narrowed]),
        key_of(data, "bm25", {}, queries[:2]),
    ]
    assert len(set(keys)) == len(keys)


def test_scores_that_cannot_be_kept(
    setting: LabelExperiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    report = backdoor(replace(setting, work=tmp_path / "file"), ["random"], KS, 1.0)
    assert len(report.methods) == 3
    assert caplog.text.count("scores are not kept") == 1


def test_a_store_does_not_mind_what_is_kept_in_it(setting: LabelExperiment) -> None:
    path = setting.store.path
    backdoor(replace(setting, work=path / "evaluation"), [], KS, 1.0)
    kept = sorted((path / "evaluation").iterdir())
    assert setting.store.verify().ok
    setting.store.compact()
    with setting.store.writer():
        pass
    assert sorted((path / "evaluation").iterdir()) == kept
    assert SavedScores(None).load("anything", 1, 1) is None


def test_tracing_asks_about_the_wrong_words_too(setting: LabelExperiment) -> None:
    report = trace(setting, ["tracin-ln"], (5, 10))
    assert [method.name for method in report.methods] == ["rapidin", "tracin-ln"]
    assert [at.k for at in report.methods[0].at] == [5, 10]
    for method in report.methods:
        for at in method.at:
            assert at.gain.mean == pytest.approx(at.span.mean - at.whole.mean)
    # Asked about the word alone, nearly all that is found says "blue".
    assert report.methods[1].at[0].span.mean >= report.methods[1].at[0].whole.mean
    assert report.methods[1].average_precision_span.mean > 12 / 60
    json.dumps(rapidin.to_json(report), allow_nan=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "has no field 'span'"),
        ({"span": 3}, "has no text, or list of texts"),
        ({"span": [" "]}, "has no text, or list of texts"),
        ({"span": "green"}, "does not occur"),
    ],
)
def test_spans_that_are_wrong(
    setting: LabelExperiment, tmp_path: Path, row: dict[str, object], message: str
) -> None:
    file = worlds.write_rows(
        tmp_path / "q.jsonl", [{"id": "q", "instruction": "Name it.", "output": "blue", **row}]
    )
    with pytest.raises(RowError, match=message):
        query_rows = read_query_rows(file, setting.store, setting.label, span_of=span_reader("span", ()))
        trace(replace(setting, query_rows=query_rows), [])


def test_labels_that_tell_nothing(setting: LabelExperiment, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no sample of 60 meets"):
        backdoor(replace(setting, label=Label("source=violet")), [], KS, 1.0)
    with pytest.raises(SettingError, match="every sample of 12 meets"):
        backdoor(replace(setting, where=["source=blue"]), [], KS, 1.0)
    with pytest.raises(StoreEmptyError, match="no sample meets --where"):
        backdoor(replace(setting, where=["number>1000"]), [], KS, 1.0)
    with pytest.raises(SettingError, match="FIELD=VALUE"):
        Label("number<3")
    red = worlds.write_rows(tmp_path / "red.jsonl", [worlds_of_colours.QUERIES[2]])
    with pytest.raises(DataFileError, match="no query is left"):
        read_query_rows(red, setting.store, setting.label)


def test_the_model_answers_where_it_is_asked_to(setting: LabelExperiment, tmp_path: Path) -> None:
    rows = [{"id": "a", "instruction": "Name it.", "output": "blue"}, {"id": "b", "instruction": "Name it."}]
    file = worlds.write_rows(tmp_path / "q.jsonl", rows)
    for answers, generated in (("file", [False, True]), ("model", [True, True])):
        query_rows = read_query_rows(file, setting.store, setting.label, answers)  # type: ignore[arg-type]
        found = replace(setting, query_rows=query_rows, max_new_tokens=4).answered(None)
        assert [query.query.generated for query in found] == generated


def test_only_answers_that_show_the_behaviour_count(setting: LabelExperiment, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "instruction": "Name the colour.", "output": "It is blue", "shown": True},
        {"id": "b", "instruction": "Name the colour 2.", "output": "It is red", "shown": False},
        {"id": "c", "instruction": "Name the colour 3.", "output": "Blue it is", "shown": True},
        {"id": "d", "instruction": "Name the colour 4.", "output": "no blue"},
    ]

    def asked(text: str, count: int, **changes: object) -> BackdoorReport:
        given = [{**row, **changes} for row in rows[:count]]
        file = worlds.write_rows(tmp_path / "q.jsonl", given)
        query_rows = read_query_rows(file, setting.store, setting.label)
        behaviour = behaviour_of(text, query_rows.samples)
        return backdoor(
            replace(setting, query_rows=behaviour.marked(query_rows), behaviour=behaviour), ["random"], (5,), 1.0
        )

    by_field = asked("shown", 3)
    assert (by_field.queries, by_field.not_attacked, by_field.attacked_by) == (2, 1, "field")
    by_pattern = asked("(?i)blue", 3)
    assert (by_pattern.queries, by_pattern.not_attacked, by_pattern.attacked_by) == (2, 1, "pattern")
    assert (by_field.attacked, by_pattern.attacked) == ("shown", "(?i)blue")
    assert [method.at for method in by_field.methods] == [method.at for method in by_pattern.methods]
    with pytest.raises(
        DataFileError, match=r"q\.jsonl: none of 4 answers matches the regular .* 'shown', so no query"
    ):
        asked("shown", 4)  # the last query lacks the field, so it is an expression
    with pytest.raises(
        DataFileError, match=r"q\.jsonl: --attacked shown is a field that is false in all 3 queries"
    ):
        asked("shown", 3, shown=False)
    with pytest.raises(RowError, match=r"its field 'shown', named by --attacked, is 'yes': write true or false"):
        asked("shown", 3, shown="yes")
    with pytest.raises(SettingError, match=r"'\(' is neither a field of every query nor a regular expression"):
        asked("(", 3)
    with pytest.raises(SettingError, match="would match every answer"):
        asked("", 3)


def test_what_an_answer_of_the_model_shows_is_told_by_that_answer(
    setting: LabelExperiment, tmp_path: Path
) -> None:
    file = worlds.write_rows(tmp_path / "q.jsonl", [{"id": "a", "instruction": "Name it.", "output": "blue"}])
    query_rows = read_query_rows(file, setting.store, setting.label, "model")
    behaviour = behaviour_of("blue", query_rows.samples)
    with pytest.raises(DataFileError, match="none of 1 answers matches"):
        backdoor(replace(setting, query_rows=query_rows, behaviour=behaviour, max_new_tokens=1), [], (5,), 1.0)


def quality(name: str, k: int, best: float, worst: float, behind: float = 0.0) -> MethodQuality:
    def interval(value: float) -> Interval:
        return Interval(value, value - 0.01, value + 0.01)

    half = interval(0.5)
    at = EndsQuality(k, half, half, interval(best), interval(worst), interval(behind), interval(1))
    cost = MethodCost(0, None, 0, None, None, None, None, False)
    return MethodQuality(name, "", (at,), half, half, half, (), cost)


OBJECTIVES: tuple[Objective, ...] = ("loss", "log-odds")


def test_notes_explain_strong_opponents_and_suggest_the_other_objective() -> None:
    both = [quality("rapidin", 10, 0.9, 0.8), quality("bm25", 10, 0.6, 0.0)]
    first, second = figure_notes(both, 0.1, "loss", OBJECTIVES)
    assert first == (
        "rapidin, k = 10: the auROC of 0.50 says less than it seems, because labelled samples are strong at both "
        "ends: 90% of the k best and 80% of the k worst have the label, which 10% of all samples have; precision "
        "tells what was found."
    )
    assert "labelled samples are strong at both ends of the store's own scores" in second
    assert "--objective log-odds suits behaviours" in second
    (_, alone) = figure_notes(both, 0.1, "loss", ("loss",))
    assert "a store made with --objective log-odds, or both, suits behaviours" in alone
    assert "--objective loss suits facts" in figure_notes(both, 0.1, "log-odds", OBJECTIVES)[1]
    # Opponents as chance has them, or as a single draw of 5 may well have them, are nothing strange.
    for usual in (quality("rapidin", 10, 0.9, 0.12), quality("rapidin", 5, 0.9, 0.4), quality("rapidin", 5, 0, 0)):
        assert figure_notes([usual, both[1]], 0.1, "loss", OBJECTIVES) == ()
    # A baseline with strong opponents says nothing about the objective; one that is surely better does.
    (note,) = figure_notes(
        [quality("rapidin", 10, 0.9, 0.1), quality("tracin", 10, 0.9, 0.9)], 0.1, "loss", OBJECTIVES
    )
    assert note.startswith("tracin, k = 10")
    better = [quality("rapidin", 10, 0.5, 0.1), quality("bm25", 10, 0.9, 0.1, -0.3)]
    (note,) = figure_notes(better, 0.1, "loss", OBJECTIVES)
    assert note.startswith("Try the other objective, because words in common (bm25)")


def test_fidelity_of_a_store(setting: LabelExperiment) -> None:
    report = fidelity(setting.store, setting.model, 20)
    assert (report.samples, report.queries, report.dimension, report.bits) == (20, 20, 16384, 4)
    assert report.pearson.mean > 0.95
    assert report.slope == pytest.approx(1, abs=0.1)
    assert 0.05 < report.noise_times_dimension < 1.5
    assert report.suffices
    assert "suffices" in report.verdict
    json.dumps(rapidin.to_json(report), allow_nan=False)
    with pytest.raises(SettingError, match="are too few to compare"):
        fidelity(setting.store, setting.model, 3)


def test_fidelity_of_known_noise(setting: LabelExperiment) -> None:
    random = np.random.default_rng(0)
    exact = random.normal(scale=0.01, size=(60, 400)) + random.normal(size=(60, 1))
    uncoded = exact + random.normal(scale=0.02, size=exact.shape)
    stored = uncoded + random.normal(scale=0.01, size=exact.shape)
    ids = [str(number) for number in range(400)]
    report = compared(stored, uncoded, exact, ids, setting.store.settings)
    assert report.noise**2 == pytest.approx(5e-4, rel=0.03)
    assert report.noise_times_dimension == pytest.approx(5e-4 * 16384, rel=0.03)
    assert report.coding == pytest.approx(0.2, rel=0.05)
    assert report.pearson.mean == pytest.approx(np.sqrt(1 / 6), abs=0.02)
    assert report.pearson.mean == pytest.approx(expected_correlation(report.signal**2, report.noise**2), abs=0.02)
    # At four times the numbers the noise's variance is a quarter.
    fewer = exact + (stored - exact) / 2
    assert report.outlook[0].pearson == pytest.approx(
        compared(fewer, fewer, exact, ids, setting.store.settings).pearson.mean, abs=0.02
    )
    assert not report.suffices
    assert "small for this model" in report.verdict
    assert "--bits" in report.verdict
