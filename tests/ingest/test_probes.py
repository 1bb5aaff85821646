"""Computing a store's curvature: the same probes for any number of workers, and each of them as defined."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import rapidin
from rapidin.attribution import FisherDraw
from rapidin.errors import FingerprintMismatchError, SettingError, StoreEmptyError
from rapidin.model import StoreModel
from rapidin.storage.derived import CURVATURE
from rapidin.storage.derived.curvature.probe_choice import choose_probes
from tests import worlds


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data: Path) -> Path:
    path = tmp_path_factory.mktemp("curvature") / "store"
    rapidin.ingest_files(path, [data], model=str(model_directory), projection_dim=1024, curvature=False)
    return path


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def arrays(path: Path):
    with rapidin.Store.open(path) as opened, opened.snapshot() as snapshot:
        return CURVATURE._arrays(*snapshot.derived("curvature"))


def test_probes_are_the_projected_draws_of_the_chosen_samples(copy: Path) -> None:
    report = rapidin.compute_curvature(copy, probes=30, device="cpu")
    assert (report.name, report.trained, report.parameters["probes"]) == ("curvature", True, 30)
    found = arrays(copy)
    with rapidin.Store.open(copy) as opened, StoreModel(opened, device="cpu") as model:
        contents = [(one.id, one.content_hash) for one in opened.list()]
        for row, request in enumerate(choose_probes(contents, 30, 0)):
            assert found.keys[row] == request.key
            encoded = model.encode_stored(opened.get(request.id))
            with model.exclusive() as parts:
                alone = parts.engine.compute([encoded], FisherDraw(0, request.draw))
            kept = found.codes[row] * found.scales[row]  # one block
            np.testing.assert_allclose(kept, alone.vectors[0], rtol=0, atol=0.51 * found.scales[row][0])
            assert found.tokens[row] == sum(encoded.targets)


def test_any_number_of_workers_computes_the_same_probes(copy: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    options = {"probes": 60, "device": "cpu", "tokens_per_batch": 200}
    rapidin.compute_curvature(copy, **options)
    rapidin.compute_curvature(other, workers=2, **options)
    one, two = arrays(copy), arrays(other)
    for name in ("keys", "codes", "scales", "tokens", "gram"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_a_second_call_computes_nothing_and_does_not_load_the_model(copy: Path, tmp_path: Path) -> None:
    rapidin.compute_curvature(copy, probes=10, device="cpu")
    before = arrays(copy)
    told: list[tuple[str, int, int]] = []
    report = rapidin.compute_curvature(
        copy, damping=0.5, model=str(tmp_path / "gone"), on_progress=lambda *step: told.append(step)
    )
    assert report.parameters["damping"] == 0.5
    assert not [step for step in told if step[0] == "probes"]
    np.testing.assert_array_equal(arrays(copy).codes, before.codes)


def test_progress_counts_all_probes(copy: Path) -> None:
    told: list[tuple[str, int, int]] = []
    rapidin.compute_curvature(copy, probes=20, device="cpu", on_progress=lambda *step: told.append(step))
    assert [step for step in told if step[0] == "probes"][-1] == ("probes", 20, 20)


def test_another_model_is_refused(copy: Path, tmp_path: Path) -> None:
    other = worlds.save_model(tmp_path / "model", seed=5)
    with pytest.raises(FingerprintMismatchError):
        rapidin.compute_curvature(copy, model=str(other), device="cpu")
    with rapidin.Store.open(copy) as opened:
        assert opened.info().derived == ()


def test_what_cannot_be_used_is_refused(copy: Path) -> None:
    with pytest.raises(SettingError, match="--tokens-per-batch 0"):
        rapidin.compute_curvature(copy, tokens_per_batch=0)
    with rapidin.Store.open(copy) as opened:
        opened.delete([sample.id for sample in opened.list()])
    with pytest.raises(StoreEmptyError):
        rapidin.compute_curvature(copy, device="cpu")
