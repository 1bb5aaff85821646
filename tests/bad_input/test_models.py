"""Models, adapters and tokenizers that cannot be loaded, lack something, or are not the store's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from tests import worlds
from tests.bad_input.command_line import FAILED, USAGE, CommandLine, MadeStore, copied

ASKED = ("--prompt", "Say it.", "--generation", "It is said.")


def new_store(rapidin: CommandLine, model: object, data: Path, *more: object):
    """Outcome of an ingest into a new store beside the data."""
    return rapidin(
        "ingest", data.parent / "new", "--data", data, "--model", model, "--projection-dim", 128, "--json", *more
    )


def nothing_left(data: Path) -> None:
    assert not (data.parent / "new").exists()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def set_config(directory: Path, **values: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    (file,) = directory.glob("*.safetensors")
    tensors = safetensors.torch.load_file(file)
    change(tensors)
    safetensors.torch.save_file(tensors, file, {"format": "pt"})


def without(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return change


def save_classifier(directory: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertForSequenceClassification(config).save_pretrained(directory)


def save_sequence_to_sequence(directory: Path) -> None:
    config = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(config).save_pretrained(directory)


def only_config(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def empty(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


CHECKPOINTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "empty directory": (empty, ("holds no weights",)),
    "no weights": (only_config, ("holds no weights",)),
    "truncated": (lambda model: truncate(model / "model.safetensors"), ("model.safetensors", "again")),
    "cut to nothing": (lambda model: (model / "model.safetensors").write_bytes(b""), ("model.safetensors",)),
    "broken config": (lambda model: (model / "config.json").write_text("{"), ("config.json",)),
    "unknown architecture": (lambda model: set_config(model, model_type="novelty"), ("novelty",)),
    "no causal model": (save_classifier, ("lacks", "causal language model")),
    "encoder and decoder": (save_sequence_to_sequence, ("has an encoder and a decoder",)),
    "lacks a layer": (
        lambda model: change_weights(model, without("layers.1.")),
        ("lacks 9 weight tensors", "complete checkpoint"),
    ),
    "lacks its head": (lambda model: change_weights(model, without("lm_head")), ("lacks 1", "'lm_head.weight'")),
    "weights of other shapes": (
        lambda model: set_config(model, hidden_size=48),
        ("weight tensors have another shape than its config.json says", "give a complete checkpoint"),
    ),
    "no tokenizer": (
        lambda model: [file.unlink() for file in model.glob("*token*")],
        ("tokenizer of", "must have the tokenizer's files"),
    ),
    "broken tokenizer": (lambda model: (model / "tokenizer.json").write_text("{"), ("tokenizer of",)),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_bad_checkpoint(
    rapidin: CommandLine, model_directory: Path, tmp_path: Path, more_data: Path, kind: str
) -> None:
    change, expected = CHECKPOINTS[kind]
    model = copied(model_directory, tmp_path / "model", change)
    new_store(rapidin, model, more_data).error(FAILED, model, *expected)
    nothing_left(more_data)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_bad_checkpoint_given_to_a_store(
    rapidin: CommandLine, store: MadeStore, model_directory: Path, tmp_path: Path, more_data: Path, kind: str
) -> None:
    """Whether or not it can be loaded, it is not the store's, unless only the tokenizer is damaged."""
    model = copied(model_directory, tmp_path / "model", CHECKPOINTS[kind][0])
    rapidin("ingest", store, "--data", more_data, "--model", model).error(FAILED, model)
    rapidin("search", store, *ASKED, "--model", model).error(FAILED, model)
    store.check_unharmed()


def test_no_model_at_that_path(rapidin: CommandLine, store: MadeStore, tmp_path: Path, more_data: Path) -> None:
    absent = tmp_path / "absent"
    expected = (f"model {str(absent)!r}", "there is no such directory")
    new_store(rapidin, absent, more_data).error(FAILED, *expected)
    nothing_left(more_data)
    rapidin("ingest", store, "--data", more_data, "--model", absent).error(FAILED, *expected)
    rapidin("search", store, *ASKED, "--model", absent).error(FAILED, *expected)
    store.check_unharmed()


def test_a_file_as_model_or_adapter(
    rapidin: CommandLine, store: MadeStore, model_directory: Path, more_data: Path
) -> None:
    file = model_directory / "config.json"
    new_store(rapidin, file, more_data).error(FAILED, file, "is a file: give the directory")
    new_store(rapidin, model_directory, more_data, "--adapter", file).error(
        FAILED, f"adapter {str(file)!r}", "is a file: give the directory"
    )
    rapidin("search", store, *ASKED, "--model", file).error(FAILED, file, "is a file: give the directory")
    nothing_left(more_data)


def test_a_hub_id_that_cannot_be_fetched(rapidin: CommandLine, store: MadeStore, more_data: Path) -> None:
    name = "nobody-at-all/no-such-model"
    new_store(rapidin, name, more_data).error(FAILED, name)
    nothing_left(more_data)
    rapidin("search", store, *ASKED, "--model", name).error(FAILED, name)
    rapidin("ingest", store, "--data", more_data, "--model", name).error(FAILED, name)
    store.check_unharmed()


def test_a_new_store_without_a_model(rapidin: CommandLine, tmp_path: Path, more_data: Path) -> None:
    rapidin("ingest", tmp_path / "new", "--data", more_data).error(USAGE, "a new store needs --model")
    nothing_left(more_data)


OTHER_BASES = {
    "other hidden size": {"hidden_size": 48},
    "fewer layers": {"num_hidden_layers": 1},
    "more layers": {"num_hidden_layers": 3},
}


@pytest.mark.parametrize("kind", OTHER_BASES)
def test_an_adapter_for_another_base(
    rapidin: CommandLine, adapter_directory: Path, tmp_path: Path, more_data: Path, kind: str
) -> None:
    base = worlds.save_model(tmp_path / "base", **OTHER_BASES[kind])
    new_store(rapidin, base, more_data, "--adapter", adapter_directory).error(FAILED, adapter_directory, base)
    nothing_left(more_data)


def test_an_adapter_for_other_modules(
    rapidin: CommandLine, adapter_directory: Path, tmp_path: Path, more_data: Path
) -> None:
    base = tmp_path / "base"
    worlds.make_tokenizer().save_pretrained(base)
    config = transformers.GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(base)
    new_store(rapidin, base, more_data, "--adapter", adapter_directory).error(
        FAILED, adapter_directory, "Was it made for another base", base
    )
    nothing_left(more_data)


ADAPTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty directory": (empty, "holds no weights"),
    "no weights": (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "holds no weights"),
    "truncated": (lambda adapter: truncate(adapter / "adapter_model.safetensors"), "adapter_model.safetensors"),
    "broken config": (lambda adapter: (adapter / "adapter_config.json").write_text("{"), "adapter"),
    "a tensor missing": (lambda adapter: change_weights(adapter, without("layers.1.mlp")), "lacks 2 tensors"),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_bad_adapter(
    rapidin: CommandLine,
    model_directory: Path,
    adapter_directory: Path,
    tmp_path: Path,
    more_data: Path,
    kind: str,
) -> None:
    change, expected = ADAPTERS[kind]
    adapter = copied(adapter_directory, tmp_path / "adapter", change)
    new_store(rapidin, model_directory, more_data, "--adapter", adapter).error(FAILED, adapter, expected)
    nothing_left(more_data)


def test_an_adapter_given_to_a_store_made_without(
    rapidin: CommandLine, store: MadeStore, adapter_directory: Path, more_data: Path
) -> None:
    for command in (("ingest", store, "--data", more_data), ("search", store, *ASKED)):
        rapidin(*command, "--adapter", adapter_directory).error(
            FAILED, store, "the adapter is given now, but the store was built without it"
        )
    store.check_unharmed()


def test_an_adapter_store_keeps_its_adapter(
    rapidin: CommandLine, adapter_store: MadeStore, model_directory: Path, more_data: Path
) -> None:
    """There is no way to take it away: without --adapter it is the store's own, even where --model is given."""
    for command in (
        ("ingest", adapter_store, "--data", more_data, "--dry-run"),
        ("search", adapter_store, *ASKED),
    ):
        assert rapidin(*command, "--model", model_directory).code == 0
    adapter_store.check_unharmed()


def test_the_adapter_of_a_store_is_gone(
    rapidin: CommandLine,
    model_directory: Path,
    adapter_directory: Path,
    tmp_path: Path,
    data_file: Path,
    more_data: Path,
) -> None:
    adapter = copied(adapter_directory, tmp_path / "adapter")
    assert new_store(rapidin, model_directory, data_file, "--adapter", adapter, "--dry-run").code == 0
    place = tmp_path / "store"
    made = ("ingest", place, "--data", data_file, "--model", model_directory, "--projection-dim", 128)
    assert rapidin(*made, "--adapter", adapter).code == 0
    kept = MadeStore(place)
    shutil.rmtree(adapter)
    rapidin("search", place, *ASKED).error(FAILED, adapter)
    rapidin("ingest", place, "--data", more_data).error(FAILED, adapter)
    kept.check_unharmed()
    assert rapidin("search", place, *ASKED, "--adapter", adapter_directory).code == 0


def test_another_model_of_the_same_shape(
    rapidin: CommandLine, store: MadeStore, other_model_directory: Path, more_data: Path
) -> None:
    for command in (("ingest", store, "--data", more_data), ("search", store, *ASKED)):
        rapidin(*command, "--model", other_model_directory).error(
            FAILED,
            other_model_directory,
            store,
            "of 21 weight tensors of its model differ, for example 'lm_head.weight'",
        )
    store.check_unharmed()


def test_another_adapter_of_the_same_shape(
    rapidin: CommandLine, adapter_store: MadeStore, model_directory: Path, tmp_path: Path, more_data: Path
) -> None:
    other = worlds.save_adapter(tmp_path / "other", model_directory, seed=1)
    for command in (("ingest", adapter_store, "--data", more_data), ("search", adapter_store, *ASKED)):
        rapidin(*command, "--adapter", other).error(
            FAILED, adapter_store, "12 of 13 weight tensors of its adapter differ, for example 'base_model."
        )
    adapter_store.check_unharmed()


def test_a_moved_model_is_the_same(
    rapidin: CommandLine, store: MadeStore, model_directory: Path, tmp_path: Path, more_data: Path
) -> None:
    moved = copied(model_directory, tmp_path / "moved")
    assert rapidin("search", store, *ASKED, "--model", moved).code == 0
    assert rapidin("ingest", store, "--data", more_data, "--model", moved, "--json").json["added"] == 2


def test_a_tokenizer_without_a_padding_token(rapidin: CommandLine, tmp_path: Path, more_data: Path) -> None:
    model = worlds.save_model(tmp_path / "model", with_padding=False)
    assert new_store(rapidin, model, more_data).json["added"] == 2
    found = rapidin("search", tmp_path / "new", "--prompt", "Name a colour.", "--max-new-tokens", 3, "--json")
    assert found.code == 0 or "answers nothing" in found.stderr
    assert rapidin("search", tmp_path / "new", *ASKED, "--json").json["proponents"]


def test_quantization_without_an_adapter(rapidin: CommandLine, model_directory: Path, more_data: Path) -> None:
    new_store(rapidin, model_directory, more_data, "--quantization", "4bit").error(
        USAGE, "--quantization 4bit needs --adapter"
    )
    nothing_left(more_data)


def test_quantization_without_bitsandbytes(
    rapidin: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    model_directory: Path,
    adapter_directory: Path,
    more_data: Path,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    adapted = (model_directory, more_data, "--adapter", adapter_directory)
    for kind in ("8bit", "4bit"):
        new_store(rapidin, *adapted, "--quantization", kind).error(
            FAILED, f"--quantization {kind} needs bitsandbytes: pip install 'rapidin[bnb]'"
        )
    nothing_left(more_data)


DEVICES = {
    "cuda": "torch sees no CUDA device here; give --device cpu",
    "cuda:0,1": "torch sees no CUDA device here; give --device cpu",
    "nonsense": "--device 'nonsense' is not one of auto, cpu, cuda, cuda:0 or cuda:0,1",
    "cuda:x": "is not one of",
    "cuda:0,": "is not one of",
    "": "is not one of",
}


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_that_is_not_there(
    rapidin: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    store: MadeStore,
    model_directory: Path,
    more_data: Path,
    device: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    new_store(rapidin, model_directory, more_data, "--device", device).error(USAGE, DEVICES[device])
    nothing_left(more_data)
    rapidin("ingest", store, "--data", more_data, "--device", device).error(USAGE, DEVICES[device])
    rapidin("search", store, *ASKED, "--device", device).error(USAGE, DEVICES[device])
    store.check_unharmed()


def test_a_device_number_that_is_not_there(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: MadeStore
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    rapidin("search", store, *ASKED, "--device", "cuda:0,2").error(
        USAGE, "--device cuda:0,2: there are 2 CUDA devices, numbered from 0"
    )
