"""Searches, lists and deletions that cannot be done as asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rapidin.ingest import ingest_files
from rapidin.storage import Store
from tests import worlds
from tests.bad_input.command_line import FAILED, USAGE, CommandLine, MadeStore, copied

ASKED = ("--prompt", "Say it.", "--generation", "It is said.")


@pytest.mark.parametrize("command", ["search", "list", "info", "show", "delete", "verify"])
def test_no_store_there(rapidin: CommandLine, tmp_path: Path, command: str) -> None:
    more = {"search": ASKED, "show": ("x",), "delete": ("x",)}.get(command, ())
    absent = tmp_path / "absent"
    for place in (absent, tmp_path):
        rapidin(command, place, *more).error(FAILED, place, "there is no store; make one with 'rapidin ingest")
    assert not absent.exists()


FILTERS = {
    "nonsense": "filter 'nonsense' cannot be read: write FIELD OPERATOR VALUE",
    "": "filter '' cannot be read",
    "=x": "cannot be read",
    "source~(": "is not a regular expression",
    "source='x": 'the quotes of "\'x" do not match',
    "colour=red": "no sample has a field 'colour'; the fields are id, ",
}


@pytest.mark.parametrize("expression", FILTERS)
def test_a_bad_filter(rapidin: CommandLine, store: MadeStore, expression: str) -> None:
    for command in (("search", *ASKED), ("list",), ("delete", "--yes"), ("delete",)):
        name, *more = command
        rapidin(name, store, *more, "--where", expression).error(USAGE, FILTERS[expression])
    store.check_unharmed()


QUERY_FILES: dict[str, tuple[str | None, int, str]] = {
    "missing": (None, FAILED, "no such file; check the path"),
    "empty": ("", FAILED, "is empty; give a file with at least one row"),
    "blank": ("\n\n", FAILED, "holds no rows"),
    "broken JSON": ('{"prompt": "a"}\n{"prompt"\n', FAILED, "row 2: broken JSON at line 2"),
    "unknown shape": ('{"id": "x", "question": "a"}\n', FAILED, "row 1 (id 'x'): its fields ('id', 'question')"),
    "wrong type": ('{"id": "x", "prompt": 7}\n', FAILED, "row 1 (id 'x'): field 'prompt' is a number"),
    "empty prompt": (
        '{"id": "x", "prompt": "", "completion": ""}\n',
        FAILED,
        "row 1 (id 'x'): asks nothing: its prompt is empty",
    ),
    "empty text": ('{"id": "x", "text": ""}\n', FAILED, "row 1 (id 'x'): field 'text' is empty"),
    "long prompt": (
        json.dumps({"id": "x", "prompt": "long " * 300}) + "\n",
        FAILED,
        "row 1 (id 'x'): the prompt alone fills the 256 tokens",
    ),
    "a chat": (
        json.dumps({"id": "x", "messages": [{"role": "user", "content": "a"}]}) + "\n",
        FAILED,
        "row 1 (id 'x'): the row is a chat and the tokenizer has no chat template",
    ),
}


@pytest.mark.parametrize("kind", QUERY_FILES)
def test_a_bad_file_of_queries(rapidin: CommandLine, store: MadeStore, tmp_path: Path, kind: str) -> None:
    content, code, expected = QUERY_FILES[kind]
    file = tmp_path / "queries.jsonl"
    if content is not None:
        file.write_text(content)
    rapidin("search", store, "--queries", file).error(code, file, expected)
    store.check_unharmed()


PROMPTS: dict[str, tuple[tuple[str, ...], str]] = {
    "empty prompt": (("--prompt", ""), "--prompt is empty"),
    "blank prompt": (("--prompt", " \n"), "--prompt is empty"),
    "empty prompt with a generation": (("--prompt", "", "--generation", "a"), "--prompt is empty"),
    "empty generation": (("--prompt", "a", "--generation", ""), "--generation is empty"),
    "blank generation": (("--prompt", "a", "--generation", "  "), "--generation is empty"),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_an_empty_question(rapidin: CommandLine, store: MadeStore, kind: str) -> None:
    flags, expected = PROMPTS[kind]
    rapidin("search", store, *flags).error(USAGE, expected)


@pytest.mark.parametrize("generation", [(), ("--generation", "It is.")])
def test_a_prompt_longer_than_the_context(
    rapidin: CommandLine, store: MadeStore, generation: tuple[str, ...]
) -> None:
    rapidin("search", store, "--prompt", "long " * 300, *generation).error(
        FAILED, "the query: the prompt alone fills the 256 tokens of --max-length"
    )


def test_a_prompt_that_is_no_text(rapidin: CommandLine, store: MadeStore) -> None:
    """Bytes that are no UTF-8 arrive from the shell as lone surrogates."""
    rapidin("search", store, "--prompt", "a\udce4b", "--generation", "c").error(USAGE, "half a character")
    for command in (("show", store), ("delete", store), ("list", store, "--where")):
        text = "id=a\udce4b" if "--where" in command else "a\udce4b"
        rapidin(*command, text).error(USAGE, "a\\udce4b' holds half a character")
    store.check_unharmed()


def test_a_template_of_several_fields_cannot_take_a_prompt(
    rapidin: CommandLine, model_directory: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template.json"
    template.write_text('{"prompt": "{who} asks {what}: ", "response": "{answer}"}')
    data = worlds.write_rows(tmp_path / "rows.jsonl", [{"who": "A", "what": "why", "answer": "Because."}])
    place = tmp_path / "store"
    made = ("ingest", place, "--data", data, "--model", model_directory, "--projection-dim", 128)
    assert rapidin(*made, "--template", template).code == 0
    rapidin("search", place, *ASKED).error(USAGE, "who, what, answer: write the fields into a file", "--queries")


def test_an_unknown_id(rapidin: CommandLine, store: MadeStore) -> None:
    rapidin("show", store, "nobody").error(
        FAILED, store, "no sample has the id 'nobody'; 'rapidin list' shows them"
    )
    rapidin("delete", store, "row-1", "nobody").error(FAILED, store, "no sample has the id 'nobody'; nothing was")
    store.check_unharmed()


def test_a_deleted_id_is_unknown(rapidin: CommandLine, store: MadeStore) -> None:
    assert rapidin("delete", store, "row-1").code == 0
    rapidin("show", store, "row-1").error(FAILED, "no sample has the id 'row-1'")
    rapidin("delete", store, "row-1").error(FAILED, "no sample has the id 'row-1'")


def test_nobody_confirms_a_deletion(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: MadeStore
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    rapidin("delete", store, "--where", "number<3").error(USAGE, "nothing was deleted", "give --yes")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    declined = rapidin("delete", store, "--where", "number<3")
    assert (declined.code, declined.stdout) == (FAILED, "")
    store.check_unharmed()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert rapidin("delete", store, "--where", "number<3", "--json").json == {"deleted": 3}


def test_nothing_is_left_to_find(rapidin: CommandLine, store: MadeStore) -> None:
    """No failure: an empty result, also of an empty store."""
    assert rapidin("search", store, *ASKED, "--where", "number>100", "--json").json["proponents"] == []
    assert rapidin("delete", store, "--yes", "--where", "number>=0", "--json").json == {"deleted": 6}
    assert rapidin("search", store, *ASKED, "--opponents", "--json").json["opponents"] == []
    assert rapidin("search", store, *ASKED).code == 0
    assert rapidin("list", store).code == 0
    assert rapidin("verify", store).code == 0


def test_more_wanted_than_there_is(rapidin: CommandLine, store: MadeStore) -> None:
    assert len(rapidin("search", store, *ASKED, "-k", 10**6, "--json").json["proponents"]) == 6


@pytest.fixture(scope="module")
def without_model(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data_file: Path) -> Path:
    """A store whose model is gone."""
    place = tmp_path_factory.mktemp("gone")
    model = copied(model_directory, place / "model")
    ingest_files(place / "store", [data_file], model=str(model), projection_dim=128, curvature=False)
    shutil.rmtree(model)
    return place / "store"


WAYS: dict[str, tuple[tuple[object, ...], int, str]] = {
    "no ivf": (("--index", "ivf"), FAILED, "there is no index 'ivf'; build it with 'rapidin index"),
    "no rabitq": (("--index", "rabitq"), FAILED, "there is no index 'rabitq'; build it with 'rapidin index"),
    "no ivf, filtered": (("--index", "ivf", "--where", "number<3"), FAILED, "there is no index 'ivf'"),
    "lists without ivf": (("--nprobe", 3), FAILED, "there is no index 'ivf'"),
    "lists of exact": (("--index", "exact", "--nprobe", 3), USAGE, "--nprobe is of index 'ivf' only"),
    "lists of rabitq": (("--index", "rabitq", "--nprobe", 3), USAGE, "--nprobe is of index 'ivf' only"),
    "exact lists": (("--exact", "--nprobe", 5), USAGE, "leave out --nprobe or --exact"),
    "exact ivf": (("--exact", "--index", "ivf"), USAGE, "--exact and --index ivf contradict each other"),
    "no lists": (("--nprobe", 0), USAGE, "--nprobe"),
    "unknown": (("--index", "flat"), USAGE, "--index"),
    "filter": (("--where", "colour=red"), USAGE, "no sample has a field 'colour'"),
}


@pytest.mark.parametrize("kind", WAYS)
def test_a_wrong_way_of_searching_is_told_before_the_model_is_loaded(
    rapidin: CommandLine, without_model: Path, kind: str
) -> None:
    flags, code, expected = WAYS[kind]
    rapidin("search", without_model, *ASKED, *flags).error(code, expected)


def test_a_right_way_then_needs_the_model(rapidin: CommandLine, without_model: Path) -> None:
    rapidin("search", without_model, *ASKED, "--exact").error(FAILED, without_model.parent / "model")


def test_a_damaged_index_is_told_before_the_model_is_loaded(
    rapidin: CommandLine, without_model: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(without_model, tmp_path / "store")
    with Store.open(place) as opened:
        opened.build_index("ivf", nlist=2)
    for file in (place / "indexes").iterdir():
        file.write_bytes(b"")
    rapidin("search", place, *ASKED, "--index", "ivf").error(
        FAILED, place / "indexes", "instead of", "rapidin index"
    )
