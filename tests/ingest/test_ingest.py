"""Ingest end to end on a tiny model: incremental, resumable, the same whatever the batches."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rapidin
from rapidin.errors import GradientError, RowError, SettingError, StoreLockedError, StoreSpaceError
from rapidin.ingest import pipeline, run as ingest_run
from rapidin.ingest.planning import text_samples
from rapidin.model import loading
from rapidin.records import IngestListener, Preflight
from rapidin.text import EncodedSample, Encoder, TextSample
from tests import worlds


def scores_of(store: Path, count: int = 3) -> dict[str, list[float]]:
    """Scores of every sample against a few fixed queries, which tell stored vectors apart."""
    with rapidin.Searcher(store) as searcher:
        found: dict[str, list[float]] = {}
        for number in range(count):
            result = searcher.search(f"Name the colour number {number}.", "It is red", k=10_000)
            for hit in result.proponents:
                found.setdefault(hit.id, []).append(hit.score)
    return found


def assert_same_store(one: Path, other: Path) -> None:
    first, second = scores_of(one), scores_of(other)
    assert first.keys() == second.keys()
    # Batches differ between the runs, and with them the last bits; half precision makes these steps of 2^-11.
    np.testing.assert_allclose([first[id] for id in first], [second[id] for id in first], atol=1e-4)


def ingest(store: Path, data: Path, model: Path, **more: object) -> rapidin.IngestReport:
    """Ingest without a curvature, which `test_ingested_curvature` is about, unless `more` wants it."""
    options = {"projection_dim": worlds.DIMENSION, "curvature": False} | more
    return rapidin.ingest_files(store, [data], model=str(model), **options)


def test_adds_everything_once(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(40))
    report = ingest(tmp_path / "store", data, model_directory)
    assert (report.added, report.skipped, report.failed, report.samples_total) == (40, 0, 0, 40)
    with rapidin.Store.open(tmp_path / "store") as store:
        samples = store.list()
        assert report.tokens == sum(sample.tokens for sample in samples)
        assert {sample.id for sample in samples} == {f"row-{number}" for number in range(40)}
        sample = store.get("row-3")
        assert sample.prompt.startswith("Below is an instruction that describes a task, paired with an input")
        assert sample.response == "It is black 10 indeed indeed indeed"
        assert sample.metadata == {"source": "black", "number": 3, "even": False}
        assert (sample.file, sample.row) == (str(data), 4)
        assert store.verify().ok


@pytest.mark.parametrize(("objective", "halves"), [("both", 2), ("loss", 1)])
def test_few_parameters_get_the_largest_dimension_that_fits(
    tmp_path: Path, model_directory: Path, adapter_directory: Path, objective: str, halves: int
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(4))
    settings = {"model": str(model_directory), "adapter": str(adapter_directory), "objective": objective}
    rapidin.ingest_files(tmp_path / "store", [data], **settings, curvature=False)
    with rapidin.Store.open(tmp_path / "store") as store:
        info = store.info()
        assert info.projection_dim <= halves * info.traced_parameters < 2 * info.projection_dim
    assert rapidin.ingest_files(tmp_path / "store", [data], **settings, curvature=False).skipped == 4
    with pytest.raises(SettingError, match="larger than the gradient"):
        rapidin.ingest_files(tmp_path / "other", [data], projection_dim=65536, **settings, curvature=False)


def test_again_adds_nothing_and_does_not_load_the_model(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(20))
    ingest(tmp_path / "store", data, model_directory)
    for name in ("load_model", "load_tokenizer"):
        monkeypatch.setattr(loading, name, lambda *arguments: pytest.fail("was loaded"))
    report = rapidin.ingest_files(tmp_path / "store", [data], curvature=False)
    assert (report.added, report.skipped, report.samples_total) == (0, 20, 20)


def test_again_does_not_even_import_torch(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(8))
    ingest(tmp_path / "store", data, model_directory, curvature=True)
    program = (
        "import rapidin, sys; report = rapidin.ingest_files(sys.argv[1], [sys.argv[2]]);"
        "print(report.skipped, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store"), str(data)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.split() == ["8", "False", "False"]


def test_more_rows_add_only_themselves(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(20))
    ingest(tmp_path / "store", data, model_directory)
    worlds.write_rows(data, worlds.rows(30))
    report = rapidin.ingest_files(tmp_path / "store", [data], curvature=False)
    assert (report.added, report.skipped, report.samples_total) == (10, 20, 30)
    whole = worlds.write_rows(tmp_path / "whole.jsonl", worlds.rows(30))
    ingest(tmp_path / "at-once", whole, model_directory)
    assert_same_store(tmp_path / "store", tmp_path / "at-once")


def test_changed_text_replaces_and_changed_metadata_updates(tmp_path: Path, model_directory: Path) -> None:
    rows = worlds.rows(10)
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    ingest(tmp_path / "store", data, model_directory)
    rows[2]["output"] = "Something else entirely"
    rows[5]["source"] = "corrected"
    worlds.write_rows(data, rows)
    report = rapidin.ingest_files(tmp_path / "store", [data], curvature=False)
    assert (report.added, report.replaced, report.updated, report.skipped) == (0, 1, 1, 8)
    assert report.samples_total == 10
    with rapidin.Store.open(tmp_path / "store") as store:
        assert store.get("row-2").response == "Something else entirely"
        assert store.get("row-5").metadata["source"] == "corrected"
        assert [sample.id for sample in store.list(["source=corrected"])] == ["row-5"]
        assert store.verify().ok
    ingest(tmp_path / "fresh", data, model_directory)
    assert_same_store(tmp_path / "store", tmp_path / "fresh")


def test_only_metadata_changed_needs_no_model(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = worlds.rows(5)
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    ingest(tmp_path / "store", data, model_directory)
    rows[0]["note"] = "looked at"
    worlds.write_rows(data, rows)
    monkeypatch.setattr(loading, "load_model", lambda *arguments: pytest.fail("was loaded"))
    report = rapidin.ingest_files(tmp_path / "store", [data], curvature=False)
    assert (report.updated, report.skipped) == (1, 4)


def test_batches_and_windows_do_not_matter(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(30))
    ingest(tmp_path / "one", data, model_directory)
    monkeypatch.setattr(pipeline, "_BUFFER_BYTES", 2 * 7 * 4 * worlds.DIMENSION)
    monkeypatch.setattr(pipeline, "_SMALLEST_WINDOW", 9)
    ingest(tmp_path / "other", data, model_directory, tokens_per_batch=100)
    with rapidin.Store.open(tmp_path / "other") as store:
        info = store.info()
        assert len(info.segments) == 5
        assert max(segment.rows for segment in info.segments) == 7
    assert_same_store(tmp_path / "one", tmp_path / "other")


def test_rows_without_id_are_known_by_their_text(tmp_path: Path, model_directory: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "id"} for row in worlds.rows(6)]
    data = worlds.write_rows(tmp_path / "data.jsonl", [*rows, rows[0]])
    report = ingest(tmp_path / "store", data, model_directory)
    assert (report.added, report.skipped) == (6, 1)
    assert rapidin.ingest_files(tmp_path / "store", [data], curvature=False).skipped == 7


def test_truncation_is_counted(tmp_path: Path, model_directory: Path) -> None:
    rows = worlds.rows(4)
    rows[1]["output"] = "very " * 500
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    report = ingest(tmp_path / "store", data, model_directory)
    assert report.truncated == 1
    with rapidin.Store.open(tmp_path / "store") as store:
        assert [sample.id for sample in store.list(["truncated=true"])] == ["row-1"]
        assert store.get("row-1").tokens == 256


def test_dry_run_changes_nothing_and_tells_the_same(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(12))
    dry = ingest(tmp_path / "store", data, model_directory, dry_run=True)
    assert not (tmp_path / "store").exists()
    real = ingest(tmp_path / "store", data, model_directory)
    assert (
        (dry.added, dry.tokens, dry.truncated) == (real.added, real.tokens, real.truncated) == (12, real.tokens, 0)
    )
    assert dry.samples_total == 0


def test_skipped_errors_are_reported_and_the_rest_is_stored(tmp_path: Path, model_directory: Path) -> None:
    rows = worlds.rows(6)
    rows[1]["output"] = ""
    rows[4]["output"] = 5
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    with pytest.raises(RowError, match=r"data.jsonl, row 2 \(id 'row-1'\)"):
        ingest(tmp_path / "store", data, model_directory)
    assert not (tmp_path / "store").exists()
    report = ingest(tmp_path / "store", data, model_directory, on_error="skip")
    assert (report.added, report.failed) == (4, 2)
    assert [(failure.row, failure.id) for failure in report.failures] == [(2, "row-1"), (5, "row-4")]


class Meddler(IngestListener):
    """Does something between the plan and its execution."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self.meddle = meddle

    def loading_model(self, name: str) -> None:
        self.meddle()


@pytest.mark.parametrize("meddle", [lambda data: worlds.write_rows(data, worlds.rows(4)), Path.unlink])
def test_a_file_that_changes_meanwhile_does_not_matter(
    tmp_path: Path, model_directory: Path, meddle: Callable[[Path], object]
) -> None:
    """Rows are read once, when the plan is made."""
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(10))
    report = ingest(tmp_path / "store", data, model_directory, listener=Meddler(lambda: meddle(data)))
    assert report.added == 10
    worlds.write_rows(data, worlds.rows(10))
    ingest(tmp_path / "undisturbed", data, model_directory)
    assert_same_store(tmp_path / "store", tmp_path / "undisturbed")


def test_rows_are_read_and_tokenised_once(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    real = Encoder.encode

    def encode(self: Encoder, sample: TextSample) -> EncodedSample:
        encoded.append(sample.id)
        return real(self, sample)

    monkeypatch.setattr(Encoder, "encode", encode)
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(10))
    ingest(tmp_path / "store", data, model_directory)
    assert encoded == [f"row-{number}" for number in range(10)]


def test_nobody_else_writes_between_plan_and_commit(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(5))
    ingest(tmp_path / "store", data, model_directory)
    more = worlds.write_rows(tmp_path / "more.jsonl", worlds.rows(8))

    def meddle() -> None:
        with rapidin.Store.open(tmp_path / "store") as store, pytest.raises(StoreLockedError, match="is writing"):
            store.delete(["row-1"])
        with pytest.raises(StoreLockedError):
            rapidin.ingest_files(tmp_path / "store", [more], curvature=False)

    report = rapidin.ingest_files(tmp_path / "store", [more], listener=Meddler(meddle), curvature=False)
    assert (report.added, report.samples_total) == (3, 8)


def test_two_that_create_the_same_store(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(5))

    def meddle() -> None:
        ingest(tmp_path / "store", data, model_directory)

    with pytest.raises(StoreLockedError, match="run the same command again"):
        ingest(tmp_path / "store", data, model_directory, listener=Meddler(meddle))
    assert rapidin.ingest_files(tmp_path / "store", [data], curvature=False).skipped == 5


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_inside_a_commit_loses_nothing(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    from rapidin.storage.store_writer import StoreWriter

    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(12))
    real, calls = StoreWriter.commit, []

    def commit(self: StoreWriter, *arguments: object) -> None:
        calls.append(None)
        if len(calls) == 1 and when == "before":
            raise KeyboardInterrupt
        real(self, *arguments)
        if len(calls) == 1 and when == "after":
            raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "commit", commit)
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path / "store", data, model_directory)
    with rapidin.Store.open(tmp_path / "store") as store:
        assert store.count() == 12
        assert store.verify().ok


def test_a_row_too_large_for_memory_is_skipped_or_named(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rapidin.attribution.rapidgrads import RapidGradEngine

    rows = worlds.rows(8)
    rows[3]["output"] = "long " * 100
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    real = RapidGradEngine.compute

    def limited(self: RapidGradEngine, samples: list, raw: object = None) -> object:
        if max(len(sample.ids) for sample in samples) > 200:
            raise MemoryError
        return real(self, samples, raw)

    monkeypatch.setattr(RapidGradEngine, "compute", limited)
    with pytest.raises(GradientError, match=r"sample 'row-3': its \d+ tokens do not fit into memory"):
        ingest(tmp_path / "store", data, model_directory)
    report = rapidin.ingest_files(tmp_path / "store", [data], on_error="skip", curvature=False)
    assert [failure.id for failure in report.failures] == ["row-3"]
    assert report.samples_total == 7


class Recorder(IngestListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.preflight: Preflight | None = None
        self.samples = self.tokens = self.stored = 0

    def planned(self, preflight: Preflight) -> None:
        self.preflight = preflight

    def advanced(self, samples: int, tokens: int) -> None:
        self.samples += samples
        self.tokens += tokens

    def committed(self, samples: int) -> None:
        self.stored += samples


def test_listener_hears_of_everything(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(12))
    recorder = Recorder()
    report = ingest(tmp_path / "store", data, model_directory, listener=recorder)
    assert recorder.preflight is not None
    assert (recorder.preflight.samples, recorder.preflight.tokens) == (12, report.tokens)
    assert (recorder.samples, recorder.tokens, recorder.stored) == (12, report.tokens, 12)
    with rapidin.Store.open(tmp_path / "store") as store:
        assert store.info().bytes_vectors <= recorder.preflight.bytes


def test_a_disk_too_small_is_told_beforehand(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(12))
    monkeypatch.setattr(ingest_run, "_free_bytes", lambda path: 20_000)
    for dry_run in (False, True):
        with pytest.raises(StoreSpaceError, match=r"12 samples need about .* GB of temporary data: make room"):
            ingest(tmp_path / "store", data, model_directory, dry_run=dry_run)
    assert not (tmp_path / "store").exists()


def test_a_dry_run_counts_the_temporary_data_as_well(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(12))
    monkeypatch.setattr(ingest_run, "_free_bytes", lambda path: 10**9)
    dry, real = Recorder(), Recorder()
    ingest(tmp_path / "store", data, model_directory, dry_run=True, listener=dry)
    ingest(tmp_path / "store", data, model_directory, listener=real)
    assert dry.preflight is not None
    assert real.preflight is not None
    assert dry.preflight.bytes_free < real.preflight.bytes_free == 10**9


def test_an_interruption_commits_what_is_done(tmp_path: Path, model_directory: Path) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(30))

    class Impatient(Recorder):
        def advanced(self, samples: int, tokens: int) -> None:
            super().advanced(samples, tokens)
            if self.samples >= 10:
                raise KeyboardInterrupt

    impatient = Impatient()
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path / "store", data, model_directory, listener=impatient, tokens_per_batch=200)
    assert 10 <= impatient.stored < 30
    report = rapidin.ingest_files(tmp_path / "store", [data], curvature=False)
    assert (report.skipped, report.added) == (impatient.stored, 30 - impatient.stored)
    ingest(tmp_path / "undisturbed", data, model_directory)
    assert_same_store(tmp_path / "store", tmp_path / "undisturbed")


def test_an_unusable_gradient_stops_after_committing_the_others_or_is_skipped(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rapidin.attribution.rapidgrads import RapidGradEngine

    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(12))
    real = RapidGradEngine.compute

    def spoiled(self: RapidGradEngine, samples: list, raw: object = None) -> object:
        batch = real(self, samples, raw)
        for row, sample in enumerate(samples):
            if sample.sample.id == "row-7":
                batch.problems[row] = "its gradient is zero"
        return batch

    monkeypatch.setattr(RapidGradEngine, "compute", spoiled)
    with pytest.raises(GradientError, match=r"sample 'row-7': its gradient is zero.*data.jsonl, row 8"):
        ingest(tmp_path / "store", data, model_directory, tokens_per_batch=150)
    report = rapidin.ingest_files(
        tmp_path / "store", [data], on_error="skip", tokens_per_batch=150, curvature=False
    )
    assert report.failed == 1
    assert report.failures[0].id == "row-7"
    assert report.samples_total == 11


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    import rapidin
    from rapidin.storage.store_writer import StoreWriter

    real, wanted = StoreWriter.commit, int(sys.argv[4])
    commits = 0

    def commit(self, *arguments):
        global commits
        commits += 1
        if commits == wanted and sys.argv[5] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, *arguments)
        if commits == wanted and sys.argv[5] == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    StoreWriter.commit = commit
    from rapidin.ingest import pipeline
    pipeline._BUFFER_BYTES = 2 * 4 * 4 * 1024
    rapidin.ingest_files(sys.argv[1], [sys.argv[2]], model=sys.argv[3], projection_dim=1024, curvature=False)
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("commit", [1, 3])
def test_killed_and_resumed_is_the_same_as_undisturbed(
    tmp_path: Path, model_directory: Path, commit: int, when: str
) -> None:
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(16))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(data), str(model_directory)]
    died = subprocess.run([*command, str(commit), when], check=False)
    assert died.returncode == -signal.SIGKILL
    done = 4 * (commit - (when == "before"))
    report = rapidin.ingest_files(tmp_path / "store", [data], curvature=False)
    assert (report.skipped, report.added) == (done, 16 - done)
    with rapidin.Store.open(tmp_path / "store") as store:
        assert store.verify().ok
    ingest(tmp_path / "undisturbed", data, model_directory)
    assert_same_store(tmp_path / "store", tmp_path / "undisturbed")


@pytest.mark.slow
def test_control_c_at_the_command_line(tmp_path: Path, model_directory: Path) -> None:
    """A real SIGINT: exit code 130, what was done is stored, and the same command goes on."""
    rows = worlds.rows(3000)
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    command = [
        *(sys.executable, "-m", "rapidin", "ingest", str(tmp_path / "store"), "--data", str(data)),
        *("--model", str(model_directory), "--projection-dim", "1024", "--tokens-per-batch", "300"),
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while not (tmp_path / "store" / "writer.lock").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    with rapidin.Store.open(tmp_path / "store") as store:
        stored = store.count()
        assert 0 < stored < 3000
        assert store.verify().ok


def test_what_was_ingested_is_encoded_again(tmp_path: Path) -> None:
    """Rows of every shape in one store, some cut off, from what the store keeps of them."""
    from rapidin.model import load_tokenizer
    from tests.text.tiny_tokenizers import CHAT

    model = worlds.save_model(tmp_path / "model")
    tokenizer = worlds.make_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(model)
    turns = [("user", "Hi"), ("assistant", "Hello 👍"), ("user", "More </s>"), ("assistant", "red")]
    messages = [{"role": role, "content": text} for role, text in turns]
    fields = [
        {"id": "chat", "messages": messages},
        {"id": "long chat", "messages": messages * 30},
        {"id": "one turn", "messages": messages[:2]},
        {"id": "pair", "prompt": "Say </s>", "completion": " hello é"},
        {"id": "text", "text": "All of it is the target. " * 40},
        *worlds.rows(4),
    ]
    data = worlds.write_rows(tmp_path / "data.jsonl", fields)
    assert ingest(tmp_path / "store", data, model, max_length=200).truncated == 2
    with rapidin.Store.open(tmp_path / "store") as store:
        loaded, context_length = load_tokenizer(store.settings.model, False)
        encoder = Encoder(loaded, store.settings.text, context_length)
        originals = {sample.id: encoder.encode(sample) for sample in text_samples([data], None, pytest.fail)}
        for sample in store.list():
            again = encoder.encode_stored(sample)
            assert again == originals[sample.id]
            assert bool(sample.target_spans) == sample.id.endswith(("chat", "turn"))
            spans = encoder.token_spans(again)
            assert "".join(sample.text[start:end] for start, end in spans) == sample.text[: spans[-1][1]]
            assert sample.truncated or spans[-1][1] == len(sample.text)
