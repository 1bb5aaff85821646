"""Which projection a new store gets, and that a store keeps it."""

import math
from pathlib import Path

import pytest

import rapidin
from rapidin.errors import SettingError, StoreMismatchError
from rapidin.ingest.projection_choice import choose_projection
from rapidin.settings import GradientSettings, ModelSettings, ProjectionSettings, TracedParameter
from tests import worlds

GRADIENT = GradientSettings(objective="loss")
MODEL = ModelSettings(model="some/model")
OPEN = {"model": MODEL, "gradient": GRADIENT, "kind_given": False, "dimension_given": False}
SAID = {"model": MODEL, "gradient": GRADIENT, "kind_given": True, "dimension_given": True}


def tensors(count: int, size: int) -> list[TracedParameter]:
    return [TracedParameter(name=f"tensor.{number}", shape=(size,)) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "kind"),
    [
        (64, 65536, "factored"),  # 64 parameters for each of 65,536 numbers
        (64, 65535, "shuffled"),  # a few less: the other is as fast
        (2048, 65536, "factored"),  # 32 numbers for each tensor
        (2049, 65536, "shuffled"),
    ],
)
def test_the_faster_one_is_taken_where_it_has_enough_numbers(count: int, size: int, kind: str) -> None:
    chosen = choose_projection(ProjectionSettings(), tensors(count, size), **OPEN)
    assert (chosen.kind, chosen.dimension) == (kind, 65536)


def test_what_the_user_says_is_kept() -> None:
    large, small = tensors(100, 1_000_000), tensors(10, 1_000)
    for kind in ("shuffled", "factored"):
        given = ProjectionSettings(kind=kind, dimension=4096)
        for parameters in (large, small):
            assert choose_projection(given, parameters, **SAID) == given
    heavier = GradientSettings(objective="loss", normalise_layers=False)
    # Without layer-wise normalisation layers are not equally heavy, which equal shares rely on.
    assert choose_projection(ProjectionSettings(), large, **OPEN | {"gradient": heavier}).kind == "shuffled"


def test_a_small_adapter_gets_the_dimension_that_fits() -> None:
    chosen = choose_projection(ProjectionSettings(), tensors(10, 1_000), **OPEN)
    assert (chosen.kind, chosen.dimension) == ("shuffled", 8192)
    both = OPEN | {"gradient": GradientSettings()}
    assert choose_projection(ProjectionSettings(), tensors(10, 1_000), **both).dimension == 2 * 8192


def test_each_of_two_objectives_has_half_of_the_numbers() -> None:
    both = OPEN | {"gradient": GradientSettings()}
    for size, kind in ((32768, "factored"), (32767, "shuffled")):
        chosen = choose_projection(ProjectionSettings(), tensors(64, size), **both)
        assert (chosen.kind, chosen.dimension) == (kind, 65536)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.write_rows(tmp_path_factory.mktemp("data") / "data.jsonl", worlds.rows(30))


@pytest.fixture(scope="module")
def factored_store(data: Path, model_directory: Path) -> Path:
    store = data.parent / "factored"
    report = rapidin.ingest_files(
        store,
        [data],
        model=str(model_directory),
        projection="factored",
        projection_dim=worlds.DIMENSION,
        curvature=False,
    )
    assert report.added == 30
    return store


def test_a_factored_store_finds_what_the_other_finds(
    factored_store: Path, data: Path, model_directory: Path
) -> None:
    other = data.parent / "shuffled"
    rapidin.ingest_files(
        other,
        [data],
        model=str(model_directory),
        projection="shuffled",
        projection_dim=worlds.DIMENSION,
        curvature=False,
    )
    scores = []
    for store, kind in ((factored_store, "factored"), (other, "shuffled")):
        with rapidin.Store.open(store) as opened:
            assert opened.info().projection == kind
            assert opened.verify().ok
        with rapidin.Searcher(store) as searcher:
            row = worlds.rows(30)[7]
            result = searcher.search(row["instruction"], row["output"], k=30)
        assert result.proponents[0].id == "row-7"
        scores.append({hit.id: hit.score for hit in result.proponents})
    assert scores[0]["row-7"] == pytest.approx(1, abs=0.01)  # the norm is the sketch's own
    differences = [scores[0][id] - scores[1][id] for id in scores[0]]
    assert max(map(abs, differences)) < 6 * math.sqrt(2 / worlds.DIMENSION)


def test_a_store_never_mixes_projections(factored_store: Path, data: Path) -> None:
    with pytest.raises(StoreMismatchError, match="projection is 'factored', not 'shuffled'"):
        rapidin.ingest_files(factored_store, [data], projection="shuffled", curvature=False)
    assert rapidin.ingest_files(factored_store, [data], curvature=False).skipped == 30


def test_shuffles_ask_for_the_projection_that_shuffles(tmp_path: Path, data: Path, model_directory: Path) -> None:
    settings = {"model": str(model_directory), "projection_dim": 128, "shuffles": 7}
    with pytest.raises(SettingError, match="--shuffles belongs to --projection shuffled"):
        rapidin.ingest_files(tmp_path / "store", [data], projection="factored", **settings, curvature=False)
    with pytest.raises(SettingError, match="--projection 'foo' cannot be used: Input should be"):
        rapidin.ingest_files(tmp_path / "store", [data], projection="foo", **settings, curvature=False)
    rapidin.ingest_files(tmp_path / "store", [data], **settings, curvature=False)
    with rapidin.Store.open(tmp_path / "store") as store:
        assert (store.info().projection, store.info().shuffles) == ("shuffled", 7)
    with pytest.raises(StoreMismatchError, match="no --shuffles"):
        rapidin.ingest_files(
            tmp_path / "other", [data], model=str(model_directory), projection="factored", curvature=False
        )
        rapidin.ingest_files(tmp_path / "other", [data], shuffles=20, curvature=False)
