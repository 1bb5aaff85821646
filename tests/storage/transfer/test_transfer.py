"""Exports: what other programs read from them, what goes back into a store, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file, save_file

from rapidin import ImportReport, import_vectors, recode
from rapidin.errors import (
    FilterError,
    SettingError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreMismatchError,
    StoreSpaceError,
)
from rapidin.records.json_form import to_json
from rapidin.settings.store_settings import GradientSettings, ProjectionSettings, TextSettings, TracedParameter
from rapidin.storage import MetadataChange, NewSample, Store, export_vectors
from rapidin.storage.transfer import export_format, importing
from rapidin.storage.transfer.built_aside import built_aside
from rapidin.storage.vectors.codecs import fitting_scales
from tests.storage.stores import (
    DIMENSION,
    halved,
    new_sample,
    numbered,
    plain,
    random_vectors,
    store_settings,
)

QUERIES = random_vectors(2, seed=9)
COLUMNS = [
    *("id", "prompt", "response", "metadata", "file", "row", "tokens", "targets", "truncated", "content_hash"),
    "target_spans",
]


def everything(path: Path):
    with Store.open(path) as store, store.snapshot() as snapshot:
        blocks = list(snapshot.blocks())
        vectors = np.concatenate([block.vectors for block in blocks]) if blocks else np.empty(0)
        assert [sample for block in blocks for sample in block.samples] == store.list()
        return [plain(sample) for sample in store.list()], vectors.tobytes()


def exported_vectors(directory: Path) -> np.ndarray:
    if (directory / "vectors.npy").exists():
        return np.load(directory / "vectors.npy", allow_pickle=False)
    return np.concatenate([load_file(file)["vectors"] for file in sorted(directory.glob("*.safetensors"))])


@pytest.fixture
def export(filled: Store, tmp_path: Path) -> Path:
    export_vectors(filled, tmp_path / "export")
    return tmp_path / "export"


@pytest.mark.parametrize("kind", ["safetensors", "numpy"])
def test_what_other_programs_read(filled: Store, tmp_path: Path, monkeypatch, kind) -> None:
    """Three shards, blocks that end within them, samples in several segments and one replaced."""
    monkeypatch.setattr(export_format, "SHARD_BYTES", 8 * 4 * DIMENSION)
    with filled.writer() as writer:
        writer.commit([new_sample("s002", content_hash="n", metadata={"a": [1, "ä"]})], random_vectors(1, seed=1))
    filled.delete(["s005"])
    told: list[tuple[int, int]] = []
    report = export_vectors(filled, tmp_path / "e", format=kind, on_progress=lambda *pair: told.append(pair))
    files = sorted(path.name for path in (tmp_path / "e").iterdir())
    vectors = [f"vectors-0000{i}.safetensors" for i in range(3)] if kind == "safetensors" else ["vectors.npy"]
    assert files == ["samples.parquet", "store.json", *vectors]
    assert (report.samples, report.format, told) == (19, kind, [(19, 19)])
    assert report.bytes == sum(path.stat().st_size for path in (tmp_path / "e").iterdir())
    table = pa.parquet.read_table(tmp_path / "e" / "samples.parquet")
    assert table.column_names == COLUMNS
    assert table["target_spans"].null_count == 19
    rows = [
        row | {"metadata": json.loads(row["metadata"]), "target_spans": row["target_spans"] or ()}
        for row in table.to_pylist()
    ]
    assert rows == [plain(sample) for sample in filled.list()]
    wanted = np.concatenate([halved(random_vectors(20)), halved(random_vectors(1, seed=1))])
    kept = [i for i in range(20) if i not in (2, 5)] + [20]
    np.testing.assert_array_equal(exported_vectors(tmp_path / "e"), wanted[kept])
    manifest = json.loads((tmp_path / "e" / "store.json").read_text())
    assert manifest["samples"] == 19 and "float32" in manifest["about"]
    assert manifest["settings"] == json.loads(filled.settings.model_dump_json())
    assert not (tmp_path / "e.partial").exists()


def test_only_what_a_filter_meets(filled: Store, tmp_path: Path) -> None:
    assert export_vectors(filled, tmp_path / "e", ["topic=odd", "rank>=10"]).samples == 5
    assert exported_vectors(tmp_path / "e").tolist() == halved(random_vectors(20))[11::2].tolist()
    for kind in ("safetensors", "numpy"):
        assert export_vectors(filled, tmp_path / f"none-{kind}", ["rank>99"], format=kind).samples == 0
        assert import_vectors(tmp_path / f"new-{kind}", tmp_path / f"none-{kind}") == ImportReport(0, 0, 0, 0)
    with pytest.raises(FilterError):
        export_vectors(filled, tmp_path / "bad", ["nonsense"])
    with pytest.raises(SettingError, match="'csv'"):
        export_vectors(filled, tmp_path / "bad", format="csv")  # type: ignore[arg-type]
    assert not list(tmp_path.glob("bad*"))


@pytest.mark.parametrize("bits", [4, 1])
def test_scores_are_products_with_exported_vectors(path: Path, tmp_path: Path, bits) -> None:
    """Turned back and scaled: to the rounding of the query, to 12 bits with four, to 8 with one."""
    with Store.create(path, store_settings(bits=bits)) as store:
        with store.writer() as writer:
            writer.commit(numbered(0, 20), random_vectors(20) * np.geomspace(1e-3, 1e3, 20)[:, None].astype("f4"))
        export_vectors(store, tmp_path / "e")
        with store.snapshot() as snapshot:
            scores = snapshot.scores(QUERIES)[1]
    vectors = exported_vectors(tmp_path / "e")
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(QUERIES, axis=1)[:, None]
    assert (np.abs(scores - QUERIES @ vectors.T) / norms).max() < {4: 5e-4, 1: 0.01}[bits]


@pytest.mark.parametrize("kind", ["safetensors", "numpy"])
def test_there_and_back(filled: Store, tmp_path: Path, monkeypatch, kind) -> None:
    """Into a new store, in commits of 6 samples: the same samples, order and numbers."""
    monkeypatch.setattr(importing, "BATCH_BYTES", 6 * 4 * DIMENSION)
    monkeypatch.setattr(export_format, "SHARD_BYTES", 8 * 4 * DIMENSION)
    export_vectors(filled, tmp_path / "e", format=kind)
    told: list[tuple[int, int]] = []
    report = import_vectors(tmp_path / "new", tmp_path / "e", on_progress=lambda *pair: told.append(pair))
    assert report == ImportReport(20, 0, 0, 20)
    assert told == [(6, 20), (12, 20), (18, 20), (20, 20)]
    assert everything(tmp_path / "new") == everything(filled.path)
    with Store.open(tmp_path / "new") as new:
        assert new.settings == filled.settings and new.verify().ok
        assert new.count(["topic=odd"]) == 10
    assert import_vectors(tmp_path / "new", tmp_path / "e") == ImportReport(0, 0, 20, 20)


@pytest.mark.parametrize("bits", [16, 4, 1])
def test_other_bits(filled: Store, export: Path, tmp_path: Path, bits) -> None:
    import_vectors(tmp_path / "new", export, bits=bits)
    with Store.open(tmp_path / "new") as new:
        assert (new.settings.codec.bits, new.count(), new.verify().ok) == (bits, 20, True)
    with pytest.raises(StoreMismatchError, match="bits"):
        import_vectors(tmp_path / "new", export, bits={16: 4, 4: 1, 1: 16}[bits])
    with pytest.raises(SettingError, match="--bits 3 cannot be used"):
        import_vectors(tmp_path / "newer", export, bits=3)  # type: ignore[arg-type]


def test_into_a_store_that_has_some(filled: Store, export: Path) -> None:
    """Equal samples are skipped, metadata is brought up to date, other content is replaced, and the rest stays."""
    original = filled.list()
    with filled.writer() as writer:
        writer.update_metadata([MetadataChange.of(NewSample.of(original[3], metadata={"old": True}))])
        writer.commit([new_sample("s004", content_hash="n"), new_sample("mine")], random_vectors(2, seed=1))
    filled.delete(["s005", "s006"])
    assert import_vectors(filled.path, export) == ImportReport(added=2, replaced=1, skipped=17, samples_total=21)
    assert sorted((s for s in filled.list() if s.id != "mine"), key=lambda s: s.id) == original
    with filled.snapshot() as snapshot:
        ids, scores = snapshot.scores(np.eye(DIMENSION, dtype=np.float32))
    np.testing.assert_array_equal(scores[:, [i != "mine" for i in ids]].T, halved(random_vectors(20)))
    assert filled.verify().ok


def test_vectors_computed_elsewhere(filled: Store, export: Path, tmp_path: Path) -> None:
    """Large, small and with other widths of text and integers, as other programs write them."""
    vectors = random_vectors(20, seed=4) * np.geomspace(1e-12, 1e12, 20, dtype=np.float32)[:, None]
    save_file({"vectors": vectors}, export / "vectors-00000.safetensors")
    table = pa.parquet.read_table(export / "samples.parquet")
    wide = [pa.large_string() if pa.types.is_string(f.type) else f.type for f in table.schema]
    narrow = [pa.int32() if pa.types.is_integer(kind) else kind for kind in wide]
    table = table.cast(pa.schema(list(zip(table.column_names, narrow, strict=True))))
    pa.parquet.write_table(table.append_column("extra", [pa.nulls(20)]), export / "samples.parquet")
    import_vectors(tmp_path / "new", export)
    with Store.open(tmp_path / "new") as new, new.snapshot() as snapshot:
        found = np.concatenate([block.vectors for block in snapshot.blocks()])
        assert new.list() == filled.list() and new.verify().ok
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    assert (np.abs(found - vectors) / largest).max() < 2**-11


def test_spans_of_chats_stay_with_their_samples(tmp_path: Path) -> None:
    """Through an export and an import, a compaction, a change of metadata and a recoding."""
    spans = ((0, 3), (5, 5), (7, 20))
    samples = [new_sample("chat", target_spans=spans), new_sample("pair"), new_sample("gone", target_spans=spans)]
    with Store.create(tmp_path / "store", store_settings()) as store:
        for index, sample in enumerate(samples):
            with store.writer() as writer:
                writer.commit([sample], random_vectors(1, seed=index))
        store.delete(["gone"])
        store.compact()
        with store.writer() as writer:
            changed = NewSample.of(samples[0], metadata={"new": 1})
            writer.update_metadata([MetadataChange.of(changed)])
        export_vectors(store, tmp_path / "export")
    rows = pa.parquet.read_table(tmp_path / "export" / "samples.parquet")["target_spans"].to_pylist()
    assert rows == ["[[0,3],[5,5],[7,20]]", None]
    import_vectors(tmp_path / "imported", tmp_path / "export")
    recode(tmp_path / "imported", tmp_path / "recoded", 4)
    for name in ("store", "imported", "recoded"):
        with Store.open(tmp_path / name) as store:
            assert [sample.target_spans for sample in store.list()] == [spans, ()]
            assert store.get("chat").metadata == {"new": 1}
            assert store.verify().ok
            chat, pair = (to_json(sample) for sample in store.list())
            assert chat["target_spans"] == [[0, 3], [5, 5], [7, 20]] and "target_spans" not in pair


@pytest.mark.parametrize("damage", [("target_spans", None), ("target_spans", [None] * 20, pa.null())])
def test_exports_without_any_spans(filled: Store, export: Path, tmp_path: Path, damage) -> None:
    """Another program wrote it, and none of its samples is a chat."""
    column(*damage)(export)
    import_vectors(tmp_path / "new", export)
    with Store.open(tmp_path / "new") as new:
        assert new.list() == filled.list()


def test_scales_change_nothing_that_was_in_half_precision() -> None:
    halves = random_vectors(8).astype(np.float16).astype(np.float32)
    assert fitting_scales(halves).tolist() == [1.0] * 8
    assert fitting_scales(np.zeros((2, 4), np.float32)).tolist() == [1.0, 1.0]
    assert fitting_scales(np.full((1, 4), np.nan, np.float32)).tolist() == [1.0]
    for factor in (1e-38, 1e-20, 1e-5, 1e5, 1e20, 1e37):
        vectors = random_vectors(4) * np.float32(factor)
        scales = fitting_scales(vectors)
        assert (np.frexp(scales)[0] == 0.5).all() and np.isfinite(1 / scales).all()
        assert ((np.abs(vectors).max(axis=1) / scales) < 2**15).all()
    tiny = np.float32(2) ** -24 * np.arange(1, 65, dtype=np.float32)[None]  # subnormal halves
    scales = fitting_scales(tiny)
    np.testing.assert_array_equal(
        (tiny / scales[:, None]).astype(np.float16).astype(np.float32) * scales[:, None], tiny
    )


def test_an_import_that_was_interrupted_is_continued(export: Path, tmp_path: Path, monkeypatch, filled) -> None:
    monkeypatch.setattr(importing, "BATCH_BYTES", 6 * 4 * DIMENSION)

    def interrupt(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_vectors(tmp_path / "new", export, on_progress=interrupt)
    assert import_vectors(tmp_path / "new", export) == ImportReport(8, 0, 12, 20)
    assert everything(tmp_path / "new") == everything(filled.path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"projection": ProjectionSettings(dimension=DIMENSION, seed=7)}, r"projection seed \(0 and 7\)"),
        ({"gradient": GradientSettings(objective="log-odds")}, r"gradient objective \('loss' and 'log-odds'\)"),
        ({"gradient": GradientSettings(objective="loss", normalise_layers=False)}, "gradient normalise_layers"),
        ({"text": TextSettings(targets="all")}, "text targets"),
        ({"traced": (TracedParameter(name="b", shape=(2,)),)}, "'a.weight'"),
        ({"fingerprint": store_settings().fingerprint.model_copy(update={"adapter": {"x": "1"}})}, "fingerprint"),
    ],
)
def test_other_settings_are_refused(filled: Store, export: Path, change, words: str) -> None:
    manifest = export_format.Manifest.model_validate_json((export / "store.json").read_bytes())
    changed = manifest.model_copy(update={"settings": manifest.settings.model_copy(update=change)})
    (export / "store.json").write_text(changed.model_dump_json())
    with pytest.raises(StoreMismatchError, match=words):
        import_vectors(filled.path, export)
    assert filled.count() == 20


def edited(edit):
    """Change the manifest."""

    def damage(export: Path) -> None:
        manifest = json.loads((export / "store.json").read_text())
        edit(manifest)
        (export / "store.json").write_text(json.dumps(manifest))

    return damage


def column(name: str, values, kind=None):
    """Change a column of the samples; None takes it away."""

    def damage(export: Path) -> None:
        table = pa.parquet.read_table(export / "samples.parquet")
        index = table.column_names.index(name)
        if values is None:
            table = table.remove_column(index)
        else:
            column = table[name].to_pylist()
            column[: len(values)] = values
            table = table.set_column(index, name, pa.array(column, kind))
        pa.parquet.write_table(table, export / "samples.parquet")

    return damage


def tensor(vectors, name: str = "vectors"):
    return lambda export: save_file({name: vectors}, export / "vectors-00000.safetensors")


def broken(value: float) -> np.ndarray:
    vectors = random_vectors(20)
    vectors[7] = value
    return vectors


def cut(name: str, keep: float):
    def damage(export: Path) -> None:
        content = (export / name).read_bytes()
        (export / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def linked(export: Path) -> None:
    (export / "samples.parquet").rename(export.parent / "elsewhere")
    (export / "samples.parquet").symlink_to(export.parent / "elsewhere")


def two_parameters_of_a_name(manifest) -> None:
    manifest["files"] = [{"name": "vectors-00000.safetensors", "rows": 10}] * 2


HOSTILE = {
    "spans that are no JSON": (column("target_spans", ["["], pa.string()), StoreError, r"row 1: its target_spans"),
    "spans of other things": (column("target_spans", ["[[1,true]]"], pa.string()), StoreError, "whole numbers"),
    "spans that are no list": (column("target_spans", ['{"a":1}'], pa.string()), StoreError, "not a list"),
    "no spans": (column("target_spans", ["[]"], pa.string()), StoreError, "not a list"),
    "spans in disorder": (column("target_spans", ["[[3,5],[4,6]]"], pa.string()), StoreError, "do not ascend"),
    "spans beyond the text": (column("target_spans", ["[[3,999]]"], pa.string()), StoreError, "beyond the end"),
    "spans of a negative place": (column("target_spans", ["[[-1,2]]"], pa.string()), StoreError, "ascend"),
    "spans as numbers": (column("target_spans", [5] * 20, pa.int64()), StoreError, "'target_spans' is int64"),
    "no manifest": (lambda export: (export / "store.json").unlink(), StoreFormatError, "store.json"),
    "no json": (lambda export: (export / "store.json").write_text("{"), StoreFormatError, "JSON"),
    "a list": (lambda export: (export / "store.json").write_text("[]"), StoreFormatError, "store.json"),
    "deep": (lambda export: (export / "store.json").write_text("[" * 10**5), StoreFormatError, "store.json"),
    "newer": (edited(lambda m: m.update(version=2)), StoreFormatError, "upgrade"),
    "older": (edited(lambda m: m.update(version=0)), StoreFormatError, "version"),
    "unknown key": (edited(lambda m: m.update(more=1)), StoreFormatError, "more"),
    "bad dimension": (edited(lambda m: m["settings"]["projection"].update(dimension=63)), StoreFormatError, "63"),
    "other dimension": (
        edited(lambda m: m["settings"]["projection"].update(dimension=128)),
        StoreError,
        r"\(20, 64\)",
    ),
    "more samples": (edited(lambda m: m.update(samples=21)), StoreError, "20 vectors for 21"),
    "fewer rows": (edited(lambda m: m["files"][0].update(rows=19)), StoreError, "19 vectors for 20"),
    "rows of both": (edited(lambda m: (m.update(samples=19), m["files"][0].update(rows=19))), StoreError, "shape"),
    "elsewhere": (
        edited(lambda m: m["files"][0].update(name="../vectors-00000.safetensors")),
        StoreFormatError,
        "name",
    ),
    "absolute": (edited(lambda m: m["files"][0].update(name="/etc/passwd")), StoreFormatError, "name"),
    "newline": (edited(lambda m: m["files"][0].update(name="vectors.npy\n")), StoreFormatError, "name"),
    "a file twice": (edited(two_parameters_of_a_name), StoreError, "twice"),
    "missing vectors": (lambda export: (export / "vectors-00000.safetensors").unlink(), StoreError, "missing"),
    "missing samples": (lambda export: (export / "samples.parquet").unlink(), StoreError, "missing"),
    "another file": (lambda export: (export / "run.sh").touch(), StoreError, "run.sh"),
    "a link": (linked, StoreError, "samples.parquet"),
    "truncated vectors": (cut("vectors-00000.safetensors", 0.9), StoreError, "vectors-00000"),
    "truncated header": (cut("vectors-00000.safetensors", 0.01), StoreError, "vectors-00000"),
    "empty vectors": (cut("vectors-00000.safetensors", 0), StoreError, "vectors-00000"),
    "truncated samples": (cut("samples.parquet", 0.9), StoreError, "samples.parquet"),
    "double precision": (tensor(random_vectors(20).astype(np.float64)), StoreError, "F64"),
    "other shape": (tensor(random_vectors(10).reshape(20, 32)), StoreError, "shape"),
    "other name": (tensor(random_vectors(20), "weights"), StoreError, "'vectors'"),
    "not finite": (tensor(broken(np.nan)), StoreError, "'s007'.*not finite"),
    "infinite": (tensor(broken(-np.inf)), StoreError, "'s007'.*not finite"),
    "zero": (tensor(broken(0)), StoreError, "'s007'"),
    "no ids": (column("id", None), StoreError, "'id' is missing"),
    "no metadata": (column("metadata", None), StoreError, "'metadata' is missing"),
    "numbers as ids": (column("id", list(range(20)), pa.int64()), StoreError, "'id' is int64"),
    "texts as rows": (column("row", ["1"] * 20), StoreError, "'row' is string"),
    "an id twice": (column("id", ["s000", "s001", "s000"]), StoreError, "'s000'.*twice"),
    "null": (column("prompt", [None]), StoreError, "null"),
    "negative": (column("tokens", [1, -5]), StoreError, "row 2.*-5"),
    "metadata is no json": (column("metadata", ["{}", "{'a': 1}"]), StoreError, "row 2.*JSON"),
    "metadata is a list": (column("metadata", ["[]"]), StoreError, "row 1.*object"),
    "metadata infinite": (column("metadata", ['{"a": 1e999}']), StoreError, "'s000'"),
    "metadata half a character": (column("metadata", ['{"a": "\\ud800"}']), StoreError, "'s000'"),
    "fewer samples": (
        lambda export: pa.parquet.write_table(
            pa.parquet.read_table(export / "samples.parquet").slice(1), export / "samples.parquet"
        ),
        StoreError,
        "19 rows for 20",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_refused_before_anything_is_written(
    filled: Store, export: Path, tmp_path: Path, case: str
) -> None:
    damage, error, words = HOSTILE[case]
    damage(export)
    filled.delete(["s007"])
    before = everything(filled.path)
    with pytest.raises(error, match=words) as raised:
        import_vectors(tmp_path / "new", export)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()
    with pytest.raises(StoreError):
        import_vectors(filled.path, export)
    assert everything(filled.path) == before


@pytest.mark.parametrize("kind", ["object", "fortran", "big-endian", "archive", "double", "text"])
def test_numpy_files_that_are_refused(filled: Store, tmp_path: Path, kind: str) -> None:
    """Nothing is unpickled, and the shape is what counts for an array in Fortran's order."""
    export_vectors(filled, tmp_path / "e", format="numpy")
    file, vectors = tmp_path / "e" / "vectors.npy", random_vectors(20)
    marker = tmp_path / "unpickled"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    if kind == "object":
        np.save(file, np.array([[Evil()] * DIMENSION] * 20, object), allow_pickle=True)
    elif kind == "archive":
        with file.open("wb") as opened:
            np.savez(opened, vectors=vectors)
    elif kind == "text":
        file.write_text("no array")
    else:
        changed = {
            "fortran": np.asfortranarray(vectors),
            "big-endian": vectors.astype(">f4"),
            "double": vectors.astype(float),
        }
        np.save(file, changed[kind])
    if kind == "fortran":
        import_vectors(tmp_path / "new", tmp_path / "e")
        with Store.open(tmp_path / "new") as store, store.snapshot() as snapshot:
            np.testing.assert_array_equal(next(snapshot.blocks()).vectors, halved(vectors))
        return
    with pytest.raises(StoreError, match=r"vectors\.npy"):
        import_vectors(tmp_path / "new", tmp_path / "e")
    assert not marker.exists() and not (tmp_path / "new").exists()


def test_directories_that_are_not_empty(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    export_vectors(filled, tmp_path / "e")  # empty: taken
    with pytest.raises(StoreError, match="holds"):
        export_vectors(filled, tmp_path / "e")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        export_vectors(filled, tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be created"):
        export_vectors(filled, "/")
    with pytest.raises(StoreError):
        export_vectors(filled, "/proc/export")
    with pytest.raises(StoreError, match="holds"):
        import_vectors(tmp_path / "e", tmp_path / "e")  # an export is no place for a store


def test_an_export_is_there_wholly_or_not_at_all(filled: Store, tmp_path: Path, monkeypatch) -> None:
    target, partial = tmp_path / "e", tmp_path / "e.partial"
    partial.mkdir()
    (partial / "left").mkdir()
    (partial / "left" / "by a kill").touch()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_vectors(filled, target, on_progress=interrupt)
    assert not target.exists() and not partial.exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(StoreSpaceError, match="100 bytes are free"):
        export_vectors(filled, target)
    monkeypatch.undo()
    with built_aside(target), pytest.raises(StoreLockedError, match="another process"):
        export_vectors(filled, target)
    assert list(target.iterdir()) == []  # what the first of the two built
    export_vectors(filled, target)
    assert exported_vectors(target).shape == (20, DIMENSION)


def test_a_store_is_compacted_while_it_is_exported(filled: Store, tmp_path: Path, monkeypatch) -> None:
    """The export shows what was there when it began."""
    expected = filled.list()
    original, blocks = Store.snapshot, []

    def snapshot(self):
        opened = original(self)
        real = opened.blocks

        def slow(where=()):
            for number, block in enumerate(real(where, 4 * 4 * DIMENSION)):
                if number == 1:
                    filled.delete(where=["rank<15"])
                    filled.compact()
                blocks.append(number)
                yield block

        opened.blocks = slow
        return opened

    monkeypatch.setattr(Store, "snapshot", snapshot)
    with Store.open(filled.path) as other:
        assert export_vectors(other, tmp_path / "e").samples == 20
    assert len(blocks) == 5 and filled.count() == 5
    np.testing.assert_array_equal(exported_vectors(tmp_path / "e"), halved(random_vectors(20)))
    ids = pa.parquet.read_table(tmp_path / "e" / "samples.parquet")["id"].to_pylist()
    assert ids == [sample.id for sample in expected]


def test_odd_texts_survive(store: Store, tmp_path: Path) -> None:
    samples = [
        new_sample(id, prompt=f"{id}\r\n\0", metadata={id: [id, None, 1.5, 2**70]}, truncated=True)
        for id in ("", "a'b", "漢", "🦙", "\uffff", "a\0b")
    ]
    with store.writer() as writer:
        writer.commit(samples, random_vectors(6))
    export_vectors(store, tmp_path / "e")
    import_vectors(tmp_path / "new", tmp_path / "e")
    with Store.open(tmp_path / "new") as new:
        assert [plain(sample) for sample in new.list()] == [plain(sample) for sample in samples]
        assert replace(new.list()[0]) == store.list()[0]
