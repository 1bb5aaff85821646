"""Rows as text and tokens: what a sample says (`recognise`), and what the model sees of it (`Encoder`).

Knows nothing of models or stores; the tokenizer is handed in.
"""

from rapidin.text.chosen import ChosenTokens, spans_in_response, tokens_in_spans
from rapidin.text.encode import EncodedSample, Encoder
from rapidin.text.rows import TextSample, Turn, recognise
from rapidin.text.templates import ALPACA, load_template
from rapidin.text.words import words_of

__all__ = [
    "ALPACA",
    "ChosenTokens",
    "EncodedSample",
    "Encoder",
    "TextSample",
    "Turn",
    "load_template",
    "recognise",
    "spans_in_response",
    "tokens_in_spans",
    "words_of",
]
