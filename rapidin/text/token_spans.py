"""The characters of the text that each token stands for.

The spans of a text's tokens tile it: they are in order, do not overlap, and every character that the tokens stand
for is in exactly one of them.

* A character that several tokens share (the bytes of one emoji, or the parts that a normaliser makes of "½")
  belongs to the last of these tokens, which completes it. The other tokens have an empty span in front of the
  character. A blank that a tokenizer puts before a word, but that the text does not have, also gets an empty span.
  If tokens were cut off within a character, the character belongs to the last remaining token.
* Characters that no token stands for (blanks that a tokenizer drops) belong to the token behind them, or to the
  last token of their piece. A piece without any token, such as a prompt of blanks, is in no span.
* Tokens that stand for no character have an empty span: the beginning of a sequence at 0, the end of a sequence
  behind the last character.

A fast tokenizer gives the characters of its own tokens. A slow one does not, and a model may write other tokens
than the tokenizer would make of the same text. In these two cases tokens are decoded and compared with the text,
see `rapidin.text.decoded_spans`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from rapidin.text.chat import Span, pieces
from rapidin.text.decoded_spans import align
from rapidin.text.tokenizers import Tokenizer, tokenize


class PlacesOfTokens:
    """Finds the characters of tokens.

    Args:
        tokenizer: tokenizer that made the tokens.
        max_length: maximum number of tokens, to which samples were cut.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length

    def of(self, ids: Sequence[int], prompt: str, response: str, target_spans: Sequence[Span]) -> list[Span]:
        """Find the span of each token in prompt and response together.

        Args:
            ids: token ids of a sample, perhaps cut off, or of a prompt and what a model wrote after it.
            prompt, response: text of the sample, as in `EncodedSample`.
            target_spans: target spans of a rendered chat; empty if prompt and response were tokenised separately,
                or if a model wrote one of them.
        """
        text, border = prompt + response, len(prompt)
        if target_spans:
            whole = [(0, len(text))]
            cuts = whole if self._tokenizer.is_fast else [span for span, _ in pieces(text, target_spans)]
            found = self._of_pieces(ids, text, cuts)
            if len(found) == len(cuts) and self._ends(ids, found):
                return self._joined(found, ids, len(text))
        cuts = [(0, border), (border, len(text))] if border else [(0, len(text))]
        found = self._of_pieces(ids, text, cuts)
        if len(found) == len(cuts) and self._ends(ids, found):
            return self._joined(found, ids, len(text))
        if found and border:  # the tokens of the prompt are the tokenizer's, so a model wrote the rest
            rest = self._decoded(ids[len(found[0]) :], response)
            return found[0] + [(border + start, border + end) for start, end in rest]
        return self._decoded(ids, text)

    def _of_pieces(self, ids: Sequence[int], text: str, cuts: Sequence[Span]) -> list[list[Span]]:
        """Find the spans of the tokens of each piece, up to the first piece that gives other tokens than `ids`.

        Args:
            ids: all token ids, perhaps with the beginning of a sequence.
            text: the whole text.
            cuts: spans of the pieces of the text.
        """
        options = {"split_special_tokens": False}
        gathered: list[list[Span]] = []
        position = 0
        for start, end in cuts:
            piece = text[start:end]
            encoding = tokenize(self._tokenizer, piece, self._max_length, **options, **self._wanting_offsets())
            own = list(encoding["input_ids"])
            # A text may itself begin with the token that begins a sequence; then `ids` has this token twice.
            bos = [self._tokenizer.bos_token_id]
            begun = not gathered and list(ids[:1]) == bos and (own[:1] != bos or list(ids[:2]) == bos + own[:1])
            position += begun
            count = min(len(own), len(ids) - position)
            if list(ids[position : position + count]) != own[:count]:
                return gathered
            complete = count == len(own)
            if self._tokenizer.is_fast:
                spans = tile(encoding["offset_mapping"][:count], len(piece), complete)
            else:
                spans = self._decoded(own[:count], piece, special=True)
            gathered.append([(0, 0)] * begun + [(start + first, start + last) for first, last in spans])
            position += count
        return gathered

    def _wanting_offsets(self) -> dict[str, bool]:
        """Return the options that make a fast tokenizer give the characters of its tokens."""
        return {"return_offsets_mapping": True} if self._tokenizer.is_fast else {}

    def _ends(self, ids: Sequence[int], found: list[list[Span]]) -> bool:
        """Tell whether nothing follows the tokens that were found, except perhaps the end of the sequence."""
        rest = list(ids[sum(map(len, found)) :])
        return rest in ([], [self._tokenizer.eos_token_id])

    def _joined(self, found: list[list[Span]], ids: Sequence[int], length: int) -> list[Span]:
        """Join the spans of the pieces, and give the end of the sequence an empty span behind the text."""
        spans = [span for piece in found for span in piece]
        return spans + [(length, length)] * (len(ids) - len(spans))

    def _decoded(self, ids: Sequence[int], text: str, special: bool = False) -> list[Span]:
        """Find spans by decoding; special tokens count as text only if `special` is set."""

        def decode(some: Sequence[int]) -> str:
            return str(self._tokenizer.decode(list(some), skip_special_tokens=not special)) if some else ""

        return align(decode, ids, text)


def tile(offsets: Sequence[Span], length: int, complete: bool) -> list[Span]:
    """Turn the spans that a tokenizer gives into spans that tile the text.

    Args:
        offsets: characters that each token has a part of, as a fast tokenizer gives them; they may overlap and
            leave gaps.
        length: length of the text in characters.
        complete: whether these are all tokens of the text; if not, the characters behind the last token are in no
            span.
    """
    if not offsets:
        return []
    begins = [begin if begin < end else length for begin, end in offsets]
    behind = list(accumulate((end if begin < end else 0 for begin, end in offsets), max))
    later = list(accumulate(reversed(begins), min))[::-1]
    # A token begins where the tokens before it end, or earlier if this token or a later one has part of a
    # character there.
    borders = [0, *map(min, behind, later[1:]), length if complete else behind[-1]]
    return list(pairwise(borders))
