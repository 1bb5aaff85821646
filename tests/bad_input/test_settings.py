"""Settings that cannot be used or contradict the store's, and wrong usage of the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rapidin import cli
from tests.bad_input.command_line import FAILED, USAGE, CommandLine, MadeStore, run_process

VALUES: dict[str, tuple[tuple[object, ...], str]] = {
    "K no power of two": (
        ("--projection-dim", 1000),
        "projection dimension 1000 cannot be used: give a power of two",
    ),
    "K zero": (("--projection-dim", 0), "projection dimension 0 cannot be used: give a power of two"),
    "K negative": (("--projection-dim", -64), "projection dimension -64 cannot be used"),
    "K too large": (("--projection-dim", 2**40), "cannot be used: give a power of two from 64"),
    "K larger than the gradient": (("--projection-dim", 2**20), "1048576"),
    "no shuffles": (("--shuffles", 0), "--shuffles 0 cannot be used"),
    "many shuffles": (("--shuffles", 10**9), "--shuffles 1000000000 cannot be used"),
    "negative seed": (("--seed", -1), "--seed -1 cannot be used"),
    "huge seed": (("--seed", 2**70), f"--seed {2**70} cannot be used"),
    "length one": (("--max-length", 1), "--max-length 1 cannot be used"),
    "beyond the context": (
        ("--max-length", 257),
        "--max-length 257 is more than the model's context of 256 tokens",
    ),
    "parameters no expression": (("--parameters", "*mlp("), "--parameters '*mlp(' is not a regular expression"),
    "parameters match nothing": (
        ("--parameters", "convolution"),
        "--parameters 'convolution' matches none of the 21 trainable",
    ),
    "batch of nothing": (("--tokens-per-batch", 0), "--tokens-per-batch"),
    "dtype": (("--dtype", "float8"), "'float8' is not one of"),
    "targets": (("--targets", "none"), "'none' is not one of"),
    "quantization": (("--quantization", "2bit"), "'2bit' is not one of"),
    "on-error": (("--on-error", "ignore"), "'ignore' is not one of"),
    "seed no number": (("--seed", "seven"), "--seed"),
    "unknown flag": (("--layers", 3), "--layers"),
    "flag without value": (("--seed",), "--seed"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_cannot_be_used(
    rapidin: CommandLine, model_directory: Path, tmp_path: Path, data_file: Path, kind: str
) -> None:
    flags, expected = VALUES[kind]
    place = tmp_path / "new"
    rapidin("ingest", place, "--data", data_file, "--model", model_directory, *flags).error(USAGE, expected)
    assert not place.exists()


TEMPLATES: dict[str, tuple[str | None, str]] = {
    "missing file": (None, "cannot be read: No such file or directory"),
    "empty file": ("", "broken JSON"),
    "broken JSON": ('{"prompt": "{a}"', "broken JSON"),
    "not an object": ("[]", "is not a JSON object with the keys"),
    "unknown key": ('{"prompt": "{a}", "response": "{b}", "respond": ""}', "unknown key 'respond'; known are"),
    "missing key": ('{"prompt": "{a}"}', "key 'response'"),
    "wrong type": ('{"prompt": 7, "response": "{b}"}', "key 'prompt'"),
    "no field": ('{"prompt": "{a}", "response": "b"}', "names no field"),
    "open brace": ('{"prompt": "{a", "response": "{b}"}', "write {{ and }} for braces"),
    "reaches into Python": ('{"prompt": "{a.__class__}", "response": "{b}"}', "write only a field's name"),
    "a number as field": ('{"prompt": "{0}", "response": "{b}"}', "write only a field's name"),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_bad_template(
    rapidin: CommandLine, store: MadeStore, model_directory: Path, tmp_path: Path, data_file: Path, kind: str
) -> None:
    content, expected = TEMPLATES[kind]
    file = tmp_path / "template.json"
    if content is not None:
        file.write_text(content)
    with_template = ("--data", data_file, "--template", file)
    rapidin("ingest", tmp_path / "new", "--model", model_directory, *with_template).error(USAGE, file, expected)
    assert not (tmp_path / "new").exists()
    rapidin("ingest", store, *with_template).error(USAGE, file, expected)
    store.check_unharmed()


def test_a_template_whose_field_no_row_has(
    rapidin: CommandLine, model_directory: Path, tmp_path: Path, data_file: Path
) -> None:
    file = tmp_path / "template.json"
    file.write_text('{"prompt": "Q: {question}\\nA: ", "response": "{output}"}')
    place = tmp_path / "new"
    rapidin("ingest", place, "--model", model_directory, "--data", data_file, "--template", file).error(
        FAILED, f"{data_file}, row 1 (id 'row-0')", "field 'question' is missing; the template prompt needs it"
    )
    assert not place.exists()


CONTRADICTIONS: dict[str, tuple[tuple[object, ...], str]] = {
    "K": (("--projection-dim", 256), "projection_dim is 128, not 256"),
    "seed": (("--seed", 1), "seed is 0, not 1"),
    "shuffles": (("--shuffles", 3), "shuffles is 20, not 3"),
    "layer norm": (("--no-normalisation",), "normalise_layers is True, not False"),
    "max-length": (("--max-length", 100), "max_length is None, not 100"),
    "targets": (("--targets", "all"), "targets is 'response', not 'all'"),
    "dtype": (("--dtype", "bfloat16"), "dtype is 'auto', not 'bfloat16'"),
    "parameters": (("--parameters", "mlp"), "parameters is None, not 'mlp'"),
    "quantization": (("--quantization", "4bit"), "quantization is 'none', not '4bit'"),
    "template": (("--template", "TEMPLATE"), "template is None, not"),
    "two at once": (("--seed", 1, "--targets", "all"), "targets is 'response', not 'all'; seed is 0, not 1"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_second_ingest_that_contradicts_the_store(
    rapidin: CommandLine, store: MadeStore, tmp_path: Path, more_data: Path, kind: str
) -> None:
    template = tmp_path / "template.json"
    template.write_text(json.dumps({"prompt": "{instruction}", "response": "{output}"}))
    flags, expected = CONTRADICTIONS[kind]
    given = [template if flag == "TEMPLATE" else flag for flag in flags]
    rapidin("ingest", store, "--data", more_data, *given).error(
        FAILED, store, expected, "Leave that out, or ingest into a new store"
    )
    store.check_unharmed()


def test_the_same_settings_again_contradict_nothing(
    rapidin: CommandLine, store: MadeStore, model_directory: Path, more_data: Path
) -> None:
    same = ("--projection-dim", 128, "--seed", 0, "--shuffles", 20, "--targets", "response", "--dtype", "auto")
    again = rapidin("ingest", store, "--data", more_data, "--model", model_directory, *same, "--json")
    assert again.json["added"] == 2


USAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "ingest without data": (("ingest", "STORE"), "--data"),
    "ingest without a store": (("ingest",), "STORE"),
    "unknown command": (("ingst", "STORE"), "ingst"),
    "no command": (("--debug",), "Missing command"),
    "k of zero": (("search", "STORE", "--prompt", "a", "-k", 0), "-k"),
    "k no number": (("search", "STORE", "--prompt", "a", "-k", "many"), "-k"),
    "no new tokens": (("search", "STORE", "--prompt", "a", "--max-new-tokens", 0), "--max-new-tokens"),
    "neither prompt nor queries": (("search", "STORE"), "give either --prompt or --queries"),
    "prompt and queries": (("search", "STORE", "--prompt", "a", "--queries", "b"), "give either --prompt or"),
    "generation without prompt": (
        ("search", "STORE", "--generation", "a", "--queries", "b"),
        "goes with --prompt",
    ),
    "only a generation": (("search", "STORE", "--generation", "a"), "give either --prompt or --queries"),
    "negative limit": (("list", "STORE", "--limit", -1), "--limit"),
    "show without id": (("show", "STORE"), "ID"),
    "delete nothing": (("delete", "STORE"), "nothing to delete: give ids or a filter"),
}


@pytest.mark.parametrize("kind", USAGES)
def test_wrong_usage(rapidin: CommandLine, store: MadeStore, kind: str) -> None:
    arguments, expected = USAGES[kind]
    outcome = rapidin(*(store if argument == "STORE" else argument for argument in arguments))
    outcome.error(USAGE, expected)
    store.check_unharmed()


def test_help_and_version_are_no_errors(rapidin: CommandLine) -> None:
    for arguments in (("--help",), ("search", "--help"), ("--version",)):
        outcome = rapidin(*arguments)
        assert outcome.code == 0 and outcome.stdout and not outcome.stderr


def test_debug_shows_the_traceback(rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = run_process("--debug", "info", tmp_path / "absent")
    assert failed.code == 1 and failed.stdout == ""
    assert "Traceback" in failed.stderr
    assert "rapidin.errors.StoreNotFoundError: " in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("Error: ")


def test_processes_of_their_own(store: MadeStore, tmp_path: Path) -> None:
    """What the other tests see inside one process holds outside, too."""
    absent = tmp_path / "absent"
    run_process("info", absent).error(FAILED, absent, "there is no store; make one with 'rapidin ingest")
    run_process("list", store, "--where", "nonsense").error(USAGE, "filter 'nonsense' cannot be read")
    run_process("ingest", store).error(USAGE, "--data")


def test_an_interrupted_command_exits_with_130(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: MadeStore, more_data: Path
) -> None:
    from rapidin.ingest.pipeline import IngestPipeline

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(IngestPipeline, "_compute", interrupted)
    outcome = rapidin("ingest", store, "--data", more_data)
    assert (outcome.code, outcome.stdout) == (130, "")
    assert "0 samples are stored; run the same command to go on" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    store.check_unharmed()


def test_every_error_says_something(rapidin: CommandLine) -> None:
    """The helper that all these tests rest on does fail where the output is not as promised."""
    from tests.bad_input.command_line import Outcome

    good = Outcome(1, "", "loading x\nError: it is broken; mend it\n")
    assert good.error(1, "mend") == "it is broken; mend it"
    for bad in (
        Outcome(0, "", "Error: x\n"),
        Outcome(1, "data", "Error: x\n"),
        Outcome(1, "", "Error: x\nError: y\n"),
        Outcome(1, "", "Error: x\nmore\n"),
        Outcome(1, "", "a library warns\nError: x\n"),
        Outcome(1, "", "Traceback (most recent call last)\nError: x\n"),
        Outcome(1, "", ""),
    ):
        with pytest.raises(AssertionError):
            bad.error(1)
    with pytest.raises(AssertionError):
        good.error(1, "something else")
    assert re.fullmatch(r"[\w.]+", cli.__name__)
