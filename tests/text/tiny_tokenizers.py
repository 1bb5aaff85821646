"""Tokenizers small enough to know every id by heart: byte b is token 3 + b."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
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


def trimming(add_prefix_space: bool, trim_offsets: bool):
    """Byte-level BPE as of GPT-2 and RoBERTa, whose offsets may leave out the blank before a word."""
    backend = _byte_level([("a", "b"), ("Ġ", "ab"), ("Ġ", "Ġ")])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def _sentence_piece_vocabulary() -> dict[str, int]:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for character in "▁abcdeé.,":
        vocabulary[character] = len(vocabulary)
    return vocabulary


def _sentence_piece_decoder():
    return decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


def sentence_piece(prepend_scheme: str | None = None):
    """BPE with bytes for unknown characters and blanks written as ▁, as of Llama 2.

    Blanks are written by the normaliser, or with a scheme by Metaspace.
    """
    vocabulary = _sentence_piece_vocabulary()
    merges = [("▁", "a"), ("a", "b"), ("▁", "▁"), ("▁a", "b")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    if prepend_scheme is None:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    backend.decoder = _sentence_piece_decoder()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram(byte_fallback: bool = True, normalizer: str = "NFKC"):
    """As of T5 and XLM-R: characters are normalised, unknown ones are bytes or <unk>."""
    pieces = [(piece, -3.0) for piece in [*_sentence_piece_vocabulary(), "▁ab", "ab", "1", "⁄", "2", "f", "i"]]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback))
    backend.normalizer = getattr(normalizers, normalizer)()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = _sentence_piece_decoder()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_piece():
    """As of BERT: drops blanks, accents and control characters, and lower-cases."""
    words = ["[UNK]", "[CLS]", "[SEP]", "ab", "##c", "##b", "a", "b", "c", "e", ".", ",", "<", ">", "/", "s", "'"]
    backend = Tokenizer(models.WordPiece({word: id for id, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="[CLS]", eos_token="[SEP]", unk_token="[UNK]"
    )


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


class SlowBytes(PreTrainedTokenizer):
    """Bytes as tokens, in Python: byte b is token 3 + b, as in the byte-level ones without merges."""

    def __init__(self, **options):
        super().__init__(bos_token="<s>", eos_token="</s>", **options)

    @property
    def vocab_size(self):
        return 259

    def get_vocab(self):
        return {self._convert_id_to_token(index): index for index in range(259)}

    def _tokenize(self, text, **options):
        return [f"<{byte:02x}>" for byte in text.encode()]

    def _convert_token_to_id(self, token):
        special = {"<s>": BOS, "</s>": EOS, "<pad>": PAD}
        return special[token] if token in special else FIRST_BYTE + int(token[1:3], 16)

    def _convert_id_to_token(self, index):
        return ["<s>", "</s>", "<pad>"][index] if index < FIRST_BYTE else f"<{index - FIRST_BYTE:02x}>"

    def convert_tokens_to_string(self, tokens):
        joined = b"".join(
            bytes([int(token[1:3], 16)]) if len(token) == 4 and token != "</s>" else token.encode()
            for token in tokens
        )
        return joined.decode(errors="replace")
