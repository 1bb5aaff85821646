"""Bad data files and rows: named, nothing added; with --on-error skip left out and reported, the rest added."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rapidin.storage import Store
from tests import worlds
from tests.bad_input.command_line import FAILED, CommandLine, MadeStore, run_process

GOOD = worlds.rows(3, first=100)


def write(path: Path, lines: list[Any]) -> Path:
    """Rows as JSON, texts as they are."""
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


FILES: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("absent.jsonl", None, "no such file; check the path"),
    "empty": ("empty.jsonl", b"", "is empty; give a file"),
    "only blank lines": ("blank.jsonl", b"\n\n \n", "holds no rows; give a file"),
    "unknown kind": ("notes.docx", b"x", "unknown kind of file; known are"),
    "broken array": ("rows.json", b'[{"text": "a b c"}, {"text"', "broken JSON at line 1, column 28"),
    "not a Parquet file": ("rows.parquet", b"PAR0 and so on", "cannot be read as Parquet"),
    "cut gzip": ("rows.jsonl.gz", b"\x1f\x8b\x08\x00", "cannot be read"),
    "CSV without rows": ("rows.csv", b"prompt,completion\n", "holds no rows"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file(rapidin: CommandLine, store: MadeStore, tmp_path: Path, more_data: Path, kind: str) -> None:
    name, content, expected = FILES[kind]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    rapidin("ingest", store, "--data", path).error(FAILED, path, expected)
    rapidin("ingest", store, "--data", more_data, path, "--on-error", "skip").error(FAILED, path, expected)
    store.check_unharmed()


def test_a_directory_as_data(rapidin: CommandLine, store: MadeStore, tmp_path: Path) -> None:
    rapidin("ingest", store, "--data", tmp_path).error(FAILED, tmp_path, "is a directory; name the data files")


def test_a_file_name_that_is_no_text(store: MadeStore, more_data: Path) -> None:
    """Samples carry it, and the database holds only text. In a process, for pytest's stderr cannot print it."""
    file = Path(os.fsdecode(os.fsencode(more_data) + b"\xe4.jsonl"))
    more_data.rename(file)
    run_process("ingest", store, "--data", file).error(FAILED, "its name is not valid UTF-8; rename it")
    store.check_unharmed()


ROWS: dict[str, tuple[Any, str | None, str]] = {
    "broken JSON": ('{"id": "x", "text": "a"', None, "broken JSON at line 7, column 24"),
    "not an object": ("[1, 2]", None, "is not a JSON object"),
    "not UTF-8": ('{"text": "half \\ud800"}', None, "half a character"),
    "NaN": ('{"text": "a b c", "weight": NaN}', None, "NaN, which JSON does not have"),
    "no known shape": (
        {"id": "x", "question": "a", "reply": "b"},
        "x",
        "('id', 'question', 'reply') have no known",
    ),
    "output is a number": (
        {"id": "x", "instruction": "a", "output": 7},
        "x",
        "field 'output' is a number; it must",
    ),
    "messages a text": ({"id": "x", "messages": "hello"}, "x", "field 'messages' is text; it must be a list"),
    "a message a text": ({"id": "x", "messages": ["hello"]}, "x", "message 1 is text; it must be an object"),
    "messages empty": ({"id": "x", "messages": []}, "x", "at least one message"),
    "nobody answers": ({"id": "x", "messages": [{"role": "user", "content": "a"}]}, "x", "from the assistant"),
    "a chat without a chat template": (
        {"id": "x", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "x",
        "the tokenizer has no chat template; give rows of another shape",
    ),
    "prompt is a list": ({"id": "x", "prompt": ["a"], "completion": "b"}, "x", "field 'prompt' is a list"),
    "text is true": ({"id": "x", "text": True}, "x", "field 'text' is true or false"),
    "empty response": ({"id": "x", "instruction": "a", "output": ""}, "x", "field 'output' is empty; a training"),
    "blank response": ({"id": "x", "prompt": "a", "completion": " \n"}, "x", "field 'completion' is empty"),
    "no response": ({"id": "x", "prompt": "a"}, "x", "field 'completion' is missing"),
    "empty text": ({"id": "x", "text": ""}, "x", "field 'text' is empty"),
    "id is a list": ({"id": ["x"], "text": "a b c"}, None, "field 'id' is a list; an id is text"),
    "empty id": ({"id": " ", "text": "a b c"}, None, "field 'id' is empty; give each row an id"),
    "long prompt": (
        {"id": "x", "prompt": "long " * 300, "completion": "b"},
        "x",
        "the prompt alone fills the 256",
    ),
    "id of another row": (
        {"id": "row-101", "text": "other"},
        "row-101",
        "{file}, row 2, has the same id and another text",
    ),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_bad_row_is_named_and_left_out_if_wanted(
    rapidin: CommandLine, store: MadeStore, tmp_path: Path, kind: str
) -> None:
    bad, id, reason = ROWS[kind]
    file = write(tmp_path / "rows.jsonl", [*GOOD, "", "", "", bad])
    expected = reason.replace("{file}", str(file))
    named = f"{file}, row 7" + (f" (id {id!r}): " if id else ": ")

    rapidin("ingest", store, "--data", file).error(FAILED, named, expected)
    store.check_unharmed()

    skipping = ("ingest", store, "--data", file, "--on-error", "skip")
    report = rapidin(*skipping, "--json").json
    assert (report["added"], report["failed"], report["samples_total"]) == (3, 1, 9)
    (failure,) = report["failures"]
    assert (failure["file"], failure["row"], failure["id"]) == (str(file), 7, id)
    assert expected in failure["reason"]

    again = rapidin(*skipping)
    assert again.code == 0
    assert "0 added, 3 skipped, 1 failed" in again.stdout
    assert f"left out: {named}" in again.stdout and expected in again.stdout
    assert rapidin("verify", store).code == 0


def test_many_bad_rows_of_which_all_are_listed(rapidin: CommandLine, store: MadeStore, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [*GOOD, *({"id": f"x{number}"} for number in range(30))])
    skipping = ("ingest", store, "--data", file, "--on-error", "skip", "--dry-run")
    text = rapidin(*skipping).stdout
    assert text.count("left out:") == 20 and "and 10 more" in text
    assert [failure["id"] for failure in rapidin(*skipping, "--json").json["failures"]] == [
        f"x{number}" for number in range(30)
    ]
    store.check_unharmed()


def test_no_row_is_usable(rapidin: CommandLine, model_directory: Path, tmp_path: Path) -> None:
    """A new store is not made; an existing one takes it as any other run that adds nothing."""
    file = write(tmp_path / "rows.jsonl", [{"id": "x", "question": "a"}, {"id": "y"}])
    place = tmp_path / "new"
    rapidin("ingest", place, "--model", model_directory, "--data", file, "--on-error", "skip").error(
        FAILED, file, "none of its rows can be used", "no known shape"
    )
    assert not place.exists()


def test_a_response_of_ten_megabytes_is_cut(rapidin: CommandLine, store: MadeStore, tmp_path: Path) -> None:
    huge = {"id": "huge", "prompt": "Tell all.", "completion": "one two three " * 750_000}
    file = write(tmp_path / "rows.jsonl", [huge])
    report = rapidin("ingest", store, "--data", file, "--json").json
    assert (report["added"], report["truncated"], report["failed"]) == (1, 1, 0)
    sample = rapidin("show", store, "huge", "--json").json
    assert sample["tokens"] == 256 and sample["truncated"] and len(sample["response"]) == 14 * 750_000


def test_a_prompt_of_ten_megabytes(rapidin: CommandLine, store: MadeStore, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"id": "huge", "prompt": "one two " * 1_250_000, "completion": "b"}])
    message = rapidin("ingest", store, "--data", file).error(FAILED, f"{file}, row 1 (id 'huge')", "--max-length")
    assert len(message) < 1000
    store.check_unharmed()


ODD_IDS = {
    "quotes": 'it\'s "quoted" `so`',
    "newline": "two\nlines\r\n",
    "unicode": "naïve Ωmega 漢字 🦀 \u202eback",
    "percent": "100%s %(x)s %20",
    "slash": "../../etc/passwd\\x",
    "markup": "[bold]not[/bold] [/] {x}",
    "option": "-rf",
    "spaces": "  around  ",
    "SQL": "'; DROP TABLE samples; --",
    "NUL": "a\0b",
    "very long": "x" * 10_000,
}


@pytest.mark.parametrize("kind", ODD_IDS)
def test_odd_ids(rapidin: CommandLine, store: MadeStore, tmp_path: Path, kind: str) -> None:
    id = ODD_IDS[kind]
    file = write(tmp_path / "rows.jsonl", [{"id": id, "instruction": "Say it.", "output": "It is said."}])
    assert rapidin("ingest", store, "--data", file, "--json").json["added"] == 1
    assert rapidin("show", store, "--json", "--", id).json["id"] == id
    assert rapidin("show", store, "--", id).code == 0
    listed = rapidin("list", store, "--json", "--limit", 0)
    assert id in [json.loads(line)["id"] for line in listed.stdout.splitlines()]
    assert rapidin("list", store).code == 0
    queries = write(tmp_path / "queries.jsonl", [{"id": id, "instruction": "Say it.", "output": "It is said."}])
    found = rapidin("search", store, "--queries", queries, "-k", 1, "--json").json
    assert [found["query"]["id"], *(hit["id"] for hit in found["proponents"])] == [id, id]
    assert rapidin("search", store, "--queries", queries).code == 0
    assert rapidin("delete", store, "--json", "--", id).json == {"deleted": 1}
    rapidin("show", store, "--", id).error(FAILED, "no sample has the id")
    assert rapidin("verify", store).code == 0
    store.check_unharmed()


@pytest.mark.parametrize("kind", ODD_IDS)
def test_an_error_of_a_row_with_an_odd_id_is_one_line(
    rapidin: CommandLine, store: MadeStore, tmp_path: Path, kind: str
) -> None:
    file = write(tmp_path / "rows.jsonl", [{"id": ODD_IDS[kind], "prompt": "a"}])
    message = rapidin("ingest", store, "--data", file).error(FAILED, f"{file}, row 1", "is missing")
    assert repr(ODD_IDS[kind])[:90] in message
    assert len(message) < 1_000  # an id that would make a message of its own is shortened
    skipped = rapidin("ingest", store, "--data", file, "--on-error", "skip")
    skipped.error(FAILED, file, "none of its rows can be used")


def test_data_files_with_odd_names(rapidin: CommandLine, store: MadeStore, tmp_path: Path) -> None:
    file = write(tmp_path / "100% [red]naïve[bold] 'x'.jsonl", [*GOOD, {"id": "x"}])
    rapidin("ingest", store, "--data", file).error(FAILED, file, "row 4")
    assert rapidin("ingest", store, "--data", file, "--on-error", "skip").code == 0
    with Store.open(store.path) as opened:
        assert opened.get("row-100").file == str(file)
