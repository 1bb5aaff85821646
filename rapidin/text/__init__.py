"""Rows as text and tokens: what a sample says (`recognise`), and what the model sees of it (`Encoder`).

Knows nothing of models or stores; the tokenizer is handed in.
"""

from rapidin.text.encode import EncodedSample, Encoder
from rapidin.text.rows import TextSample, Turn, recognise
from rapidin.text.templates import ALPACA, load_template

__all__ = [
    "ALPACA",
    "EncodedSample",
    "Encoder",
    "TextSample",
    "Turn",
    "load_template",
    "recognise",
]
