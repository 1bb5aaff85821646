"""Tokenizers small enough to know every id by heart: byte b is token 3 + b."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

BOS, EOS, PAD = 0, 1, 2
FIRST_BYTE = 3

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
CHAT = TURNS + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
NO_GENERATION_PROMPT = TURNS + "{% if add_generation_prompt %}# {% endif %}"
REWRITES = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and not loop.last %}(cut){% else %}{{ m.content }}{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WITH_BOS = "<s>" + CHAT
REFUSES = "{{ raise_exception('roles must alternate') }}"


def byte_ids(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def _alphabet() -> dict[str, int]:
    """Characters by which byte-level BPE writes bytes: printable ones themselves, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return {characters[byte]: FIRST_BYTE + byte for byte in range(256)}


def _byte_level(merges: list[tuple[str, str]] | None = None) -> Tokenizer:
    vocabulary = {"<s>": BOS, "</s>": EOS, "<pad>": PAD} | _alphabet()
    for left, right in merges or []:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges or []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama_like(chat_template: str | None = None, merges: list[tuple[str, str]] | None = None):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(merges),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=16,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def gpt2_like(puts_bos_first: bool = False):
    """One token is both beginning and end; OPT's tokenizer puts it first, GPT-2's does not."""
    backend = _byte_level()
    if puts_bos_first:
        backend.add_special_tokens([AddedToken("</s>", special=True)])
        backend.post_processor = processors.TemplateProcessing(
            single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", EOS)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="</s>", eos_token="</s>")


def bare():
    return PreTrainedTokenizerFast(tokenizer_object=_byte_level())


def word_level():
    words = ["<s>", "</s>", "<pad>", "<unk>", "Say", "hi", "hello", "to", "you", "A", "B", "C"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


class SlowTokenizer(PreTrainedTokenizer):
    """Characters as tokens, in Python: has no offsets."""

    def __init__(self, **options):
        self._vocabulary = {chr(code): code for code in range(128)} | {"<s>": 128, "</s>": 129}
        super().__init__(bos_token="<s>", eos_token="</s>", **options)

    @property
    def vocab_size(self):
        return len(self._vocabulary)

    def get_vocab(self):
        return dict(self._vocabulary)

    def _tokenize(self, text, **options):
        return list(text)

    def _convert_token_to_id(self, token):
        return self._vocabulary[token]

    def _convert_id_to_token(self, index):
        return next(token for token, number in self._vocabulary.items() if number == index)
