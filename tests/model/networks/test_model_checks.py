"""Checkpoints that transformers reads as something that they are not are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from rapidin.errors import ModelError
from rapidin.model import load_model
from rapidin.settings import ModelSettings
from tests import tiny, worlds

BERT = {
    **{"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 2},
}


def refused(directory: Path, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(ModelSettings(model=str(directory)), "cpu")


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_an_encoder_decoder_is_not_read_as_its_decoder(tmp_path: Path, form: str) -> None:
    config = transformers.BartConfig(
        vocab_size=300, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.BartForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    if form == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    refused(tmp_path, r"has an encoder and a decoder \(BartForConditionalGeneration\)")


def test_weights_without_a_place_are_refused(tmp_path: Path) -> None:
    """A head of another kind on a model whose own head is tied, so that nothing is missing."""
    model = tiny.llama(tie_word_embeddings=True)
    classifier = transformers.LlamaForSequenceClassification(model.config)
    classifier.save_pretrained(tmp_path)
    refused(tmp_path, r"1 weight tensors that .* no place for, for example 'score.weight' \(LlamaForSequenceCla")


def test_weights_for_images_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.llama()
    tensors = {**model.state_dict(), "vision_tower.patch.weight": torch.zeros(2, 2)}
    model.save_pretrained(tmp_path, state_dict=tensors)
    load_model(ModelSettings(model=str(tmp_path)), "cpu")
    assert "1 weight tensors are not loaded, because texts do not need them" in caplog.text


@pytest.mark.parametrize("kind", ["Roberta", "Bert"])
def test_a_masked_language_model_is_not_causal(tmp_path: Path, kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(**BERT)
    getattr(transformers, f"{kind}ForMaskedLM")(config).save_pretrained(tmp_path)
    refused(tmp_path, "is no causal language model: its predictions depend on later tokens")
    decoder = getattr(transformers, f"{kind}Config")(**BERT, is_decoder=True)
    causal = transformers.AutoModelForCausalLM.from_config(decoder)
    causal.save_pretrained(tmp_path / "causal")
    load_model(ModelSettings(model=str(tmp_path / "causal")), "cpu")


def test_a_quantised_checkpoint_needs_an_adapter(tmp_path: Path) -> None:
    source = worlds.save_model(tmp_path / "source", hidden_size=64, intermediate_size=128)
    for bits in (4, 8):
        quantised = transformers.AutoModelForCausalLM.from_pretrained(
            source, quantization_config=transformers.BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
        )
        quantised.save_pretrained(tmp_path / str(bits))
        refused(tmp_path / str(bits), "is quantised, and quantised weights have no gradient")
        chosen = ModelSettings(model=str(tmp_path / str(bits)), parameters="lm_head")
        assert [one.name for one in load_model(chosen, "cpu").parameters] == ["lm_head.weight"]


def test_a_kernel_that_is_not_there_is_replaced(model_directory: Path, tmp_path: Path) -> None:
    """All implementations of attention compute the same, and some have no backward step on a CPU."""
    for kernel in ("flex_attention", "flash_attention_2"):
        directory = tmp_path / kernel
        shutil.copytree(model_directory, directory)
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | {"attn_implementation": kernel}))
        loaded = load_model(ModelSettings(model=str(directory)), "cpu")
        assert loaded.model.config._attn_implementation == "sdpa"
