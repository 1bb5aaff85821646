"""Loading of models, adapters and tokenizers, fingerprints, and the choice of traced parameters."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from rapidin.errors import FingerprintMismatchError, ModelError, SettingError
from rapidin.model import devices
from rapidin.model.generation import generate
from rapidin.model.identity import fingerprints as fingerprint
from rapidin.model.identity.fingerprints import describe_difference
from rapidin.model.loading import load_model, load_tokenizer
from rapidin.settings.store_settings import ModelSettings
from tests import worlds


def settings(model: Path, **more: object) -> ModelSettings:
    return ModelSettings(model=str(model), **more)  # type: ignore[arg-type]


def changed_copy(source: Path, target: Path, tensor: str, position: int) -> Path:
    """A copy of a model in which one number of one tensor is another."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights[tensor].view(-1)[position] += 1
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_the_fingerprint_finds_a_single_changed_number(model_directory: Path, tmp_path: Path) -> None:
    tensor = "model.layers.1.mlp.up_proj.weight"
    changed = changed_copy(model_directory, tmp_path / "changed", tensor, 1000)
    one, other = (fingerprint.fingerprint(settings(path)) for path in (model_directory, changed))
    assert one is not None
    assert other is not None
    assert one.model.keys() == other.model.keys()
    assert {name for name in one.model if one.model[name] != other.model[name]} == {tensor}
    assert describe_difference(one, other) == (
        f"1 of {len(one.model)} weight tensors of its model differ, for example '{tensor}'"
    )
    assert describe_difference(one, one) is None


def test_large_tensors_are_sampled_from_end_to_end(tmp_path: Path) -> None:
    weights = {"large": torch.zeros(3_000_000)}
    digests = []
    for position in (None, 0, 1_500_000, 2_999_999):
        directory = tmp_path / str(position)
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        if position is not None:
            weights["large"][:] = 0
            weights["large"][position] = 1
        save_file(weights, directory / "model.safetensors")
        found = fingerprint.fingerprint(settings(directory))
        assert found is not None
        digests.append(found.model["large"])
    # The first and the last number are always looked at; one in the middle need not be, a fine-tune changes all.
    assert digests[1] != digests[0] != digests[3]


def test_the_fingerprint_does_not_depend_on_sharding(model_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(model_directory, tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    weights = load_file(model_directory / "model.safetensors")
    names = sorted(weights)
    for number, part in enumerate((names[:5], names[5:])):
        save_file({name: weights[name] for name in part}, tmp_path / "sharded" / f"model-{number}.safetensors")
    assert fingerprint.fingerprint(settings(model_directory)) == fingerprint.fingerprint(
        settings(tmp_path / "sharded")
    )


def test_an_adapter_has_its_own_fingerprint(
    model_directory: Path, adapter_directory: Path, tmp_path: Path
) -> None:
    other = worlds.save_adapter(tmp_path / "other", model_directory, seed=5)
    one, two, none = (
        fingerprint.fingerprint(settings(model_directory, adapter=adapter and str(adapter)))
        for adapter in (adapter_directory, other, None)
    )
    assert one is not None
    assert two is not None
    assert none is not None
    assert one.model == two.model == none.model
    assert "weight tensors of its adapter differ" in str(describe_difference(one, two))
    louder = tmp_path / "louder"
    shutil.copytree(adapter_directory, louder)
    config = json.loads((louder / "adapter_config.json").read_text())
    (louder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 99, "inference_mode": False}))
    changed = fingerprint.fingerprint(settings(model_directory, adapter=str(louder)))
    assert changed is not None
    assert "adapter_config.json differs in how they act" in str(describe_difference(one, changed))
    assert "the adapter is missing now" in str(describe_difference(one, none))
    assert "the adapter is given now, but the store was built without it" in str(describe_difference(none, one))


def test_the_tokenizer_beside_an_adapter_is_taken(
    model_directory: Path, adapter_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    adapter = tmp_path / "adapter"
    shutil.copytree(adapter_directory, adapter)
    plain, _ = load_tokenizer(settings(model_directory, adapter=str(adapter)))
    assert plain.chat_template is None
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    templated, _ = load_tokenizer(settings(model_directory, adapter=str(adapter)))
    assert templated.chat_template == "{{ messages }}" and len(templated) == len(plain)
    own = worlds.make_tokenizer()
    own.add_tokens(["<tool>"], special_tokens=True)
    own.save_pretrained(adapter)
    taken, _ = load_tokenizer(settings(model_directory, adapter=str(adapter)))
    assert taken.convert_tokens_to_ids("<tool>") == len(plain)
    assert "the tokenizer and chat template of the adapter" in caplog.text


@pytest.mark.parametrize("kind", ["PromptTuning", "PrefixTuning", "PromptEncoder"])
def test_an_adapter_of_virtual_tokens_is_named_as_such(model_directory: Path, tmp_path: Path, kind: str) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    config = getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", num_virtual_tokens=4)
    base = AutoModelForCausalLM.from_pretrained(model_directory)
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is a prompt-learning one .*: give a LoRA"):
        load_model(settings(model_directory, adapter=str(tmp_path)), "cpu")


def test_a_full_model_traces_its_matrices_once(model_directory: Path) -> None:
    loaded = load_model(settings(model_directory), "cpu")
    assert [parameter.name for parameter in loaded.parameters] == [
        name for name, parameter in loaded.model.named_parameters() if parameter.dim() > 1
    ]
    assert not any("norm" in parameter.name for parameter in loaded.parameters)
    assert loaded.context_length == 256
    assert not loaded.model.training


def test_vectors_are_traced_where_they_are_asked_for(model_directory: Path) -> None:
    everything = load_model(settings(model_directory, parameters="."), "cpu")
    assert [parameter.name for parameter in everything.parameters] == [
        name for name, _ in everything.model.named_parameters()
    ]
    norms = load_model(settings(model_directory, parameters="norm"), "cpu")
    assert len(norms.parameters) == 2 * 2 + 1
    assert all(len(parameter.shape) == 1 for parameter in norms.parameters)


def test_an_adapter_of_vectors_alone_traces_them(model_directory: Path, tmp_path: Path) -> None:
    base = load_model(settings(model_directory), "cpu").model
    wanted = peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    peft.get_peft_model(base, wanted).save_pretrained(tmp_path)
    scales = load_model(settings(model_directory, adapter=str(tmp_path)), "cpu").parameters
    assert len(scales) == 2
    assert all("ia3" in parameter.name for parameter in scales)


def test_an_adapter_traces_its_matrices(model_directory: Path, adapter_directory: Path) -> None:
    loaded = load_model(settings(model_directory, adapter=str(adapter_directory)), "cpu")
    assert len(loaded.parameters) == 2 * 2 * 3  # A and B, two layers, three modules
    assert all("lora_" in parameter.name for parameter in loaded.parameters)
    assert not loaded.model.training


def test_modules_narrow_the_choice(model_directory: Path) -> None:
    loaded = load_model(settings(model_directory, parameters=r"mlp|lm_head"), "cpu")
    assert len(loaded.parameters) == 2 * 3 + 1
    with pytest.raises(SettingError, match=r"matches none of the 21 trainable parameters; they are named like"):
        load_model(settings(model_directory, parameters="experts"), "cpu")
    with pytest.raises(SettingError, match="is not a regular expression"):
        settings(model_directory, parameters="(")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("auto", torch.float32),
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_dtype(model_directory: Path, dtype: str, expected: torch.dtype) -> None:
    loaded = load_model(settings(model_directory, dtype=dtype), "cpu")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}


def test_missing_weights_are_an_error_and_not_random(model_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(model_directory, tmp_path / "lacking")
    weights = load_file(model_directory / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "lacking" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 1 weight tensors, for example 'model.layers.1.mlp.up_proj.weight'"
    ):
        load_model(settings(tmp_path / "lacking"), "cpu")


def test_an_adapter_for_another_base_is_an_error(
    model_directory: Path, adapter_directory: Path, tmp_path: Path
) -> None:
    wider = worlds.save_model(tmp_path / "wider", hidden_size=48, intermediate_size=80)
    with pytest.raises(ModelError, match="made for another base"):
        load_model(settings(wider, adapter=str(adapter_directory)), "cpu")
    shallower = worlds.save_model(tmp_path / "shallower", num_hidden_layers=1)
    with pytest.raises(ModelError, match="has no place for 6 of the adapter's tensors"):
        load_model(settings(shallower, adapter=str(adapter_directory)), "cpu")


def test_an_adapter_given_as_the_model_is_told(adapter_directory: Path) -> None:
    from rapidin.model.identity.locating import absolute_place

    with pytest.raises(ModelError, match="is an adapter: give it with --adapter"):
        absolute_place(str(adapter_directory))


def test_remote_code_is_not_run_unless_asked(model_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(model_directory, tmp_path / "remote")
    config = json.loads((tmp_path / "remote" / "config.json").read_text())
    config["model_type"] = "of-its-own"
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "remote" / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "was-run"
    (tmp_path / "remote" / "code.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(settings(tmp_path / "remote"), "cpu")
    assert not marker.exists()


def test_generation_is_greedy_and_ends(model_directory: Path) -> None:
    loaded = load_model(settings(model_directory), "cpu")
    tokenizer, _ = load_tokenizer(settings(model_directory))
    ids = [0, *tokenizer("The sky is", add_special_tokens=False)["input_ids"]]
    # A checkpoint's own generation settings must not change what it answers.
    loaded.model.generation_config.repetition_penalty = 5.0
    loaded.model.generation_config.min_length = 1000
    answer = generate(loaded.model, tokenizer, ids, 5)
    assert loaded.model.generation_config.repetition_penalty == 5.0
    expected = list(ids)
    for _ in range(5):
        expected.append(int(loaded.model(input_ids=torch.tensor([expected])).logits[0, -1].argmax()))
        if expected[-1] == tokenizer.eos_token_id:
            break
    assert list(answer.ids) == expected[len(ids) :]
    assert answer.text == tokenizer.decode(answer.ids, skip_special_tokens=True)
    # Chat models have ends of their own besides the tokenizer's.
    loaded.model.generation_config.eos_token_id = [1, answer.ids[1]]
    assert generate(loaded.model, tokenizer, ids, 5).ids == answer.ids[: answer.ids.index(answer.ids[1]) + 1]


def test_devices() -> None:
    assert devices.placement("cpu", None) == {"device_map": "cpu"}
    for wrong in ("gpu", "cuda:", "cuda:a", "cuda:0,", "cuda:0;1", ""):
        with pytest.raises(SettingError, match="is not one of"):
            devices.placement(wrong, None)


def test_device_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.placement("auto", None) == {"device_map": "cpu"}
    with pytest.raises(SettingError, match="no CUDA device here; give --device cpu"):
        devices.placement("cuda", None)


def test_devices_with_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything but the device itself: which arguments transformers would be given."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number=0: (1000, 2000))
    assert devices.placement("cuda", None) == {"device_map": "cuda:0"}
    assert devices.placement("cuda:1", None) == {"device_map": "cuda:1"}
    assert devices.placement("cuda:0,1", None) == {"device_map": "auto", "max_memory": {0: 600, 1: 600}}
    with pytest.raises(SettingError, match="there are 2 CUDA devices"):
        devices.placement("cuda:0,2", None)
    (tmp_path / "model.safetensors").write_bytes(bytes(500))
    assert devices.placement("auto", tmp_path) == {"device_map": "cuda:0"}
    (tmp_path / "model.safetensors").write_bytes(bytes(700))
    assert devices.placement("auto", tmp_path) == {"device_map": "auto"}


@pytest.mark.gpu
def test_the_same_gradients_on_a_gpu(model_directory: Path) -> None:
    import numpy as np

    from rapidin.attribution.rapidgrads import RapidGradEngine
    from rapidin.settings.store_settings import ProjectionSettings
    from tests.attribution.gradients.test_against_autograd import random_samples

    vectors = []
    for device in ("cpu", "cuda"):
        loaded = load_model(settings(model_directory), device)
        with RapidGradEngine(loaded.model, loaded.parameters, ProjectionSettings(dimension=1024)) as engine:
            vectors.append(engine.compute(random_samples(8)).vectors)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-4)


def test_a_store_refuses_another_adapter(tmp_path: Path, model_directory: Path, adapter_directory: Path) -> None:
    import rapidin

    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(4))
    rapidin.ingest_files(
        tmp_path / "store",
        [data],
        model=str(model_directory),
        adapter=str(adapter_directory),
        projection_dim=1024,
        curvature=False,
    )
    other = worlds.save_adapter(tmp_path / "other", model_directory, seed=5)
    more = worlds.write_rows(tmp_path / "more.jsonl", worlds.rows(2, first=4))
    with pytest.raises(FingerprintMismatchError, match="12 of 13 weight tensors of its adapter differ"):
        rapidin.ingest_files(tmp_path / "store", [more], adapter=str(other), curvature=False)
    with pytest.raises(FingerprintMismatchError, match="12 of 13 weight tensors of its adapter differ"):
        rapidin.Searcher(tmp_path / "store", adapter=str(other))


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_a_quantized_base_under_an_adapter(tmp_path: Path, quantization: str) -> None:
    """The real bitsandbytes on the CPU: scores close to those of the same model unquantised."""
    import numpy as np

    import rapidin

    # 4-bit weights come in blocks of 64.
    model = worlds.save_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    adapter = worlds.save_adapter(tmp_path / "adapter", model)
    data = worlds.write_rows(tmp_path / "data.jsonl", worlds.rows(20))
    scores = {}
    for kind in ("none", quantization):
        rapidin.ingest_files(
            tmp_path / kind,
            [data],
            model=str(model),
            adapter=str(adapter),
            projection_dim=1024,
            quantization=kind,
            dtype="float32",
            curvature=False,
        )
        with rapidin.Searcher(tmp_path / kind) as searcher:
            hits = searcher.search("Name a colour.", "It is red", k=20).proponents
        scores[kind] = [hit.score for hit in sorted(hits, key=lambda hit: hit.id)]
    assert scores["none"] != scores[quantization]
    assert np.corrcoef(scores["none"], scores[quantization])[0, 1] > 0.9
