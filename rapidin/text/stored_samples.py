"""How the text of a stored sample is to be read: as a rendered chat, or as prompt and response.

A store remembers one shape of rows in its settings, not that of each row. `Sample.target_spans` tells: a chat
has them, other shapes have none. Chats stored before format 3 have none either; what the other shapes leave in a
sample is known well enough to tell them apart.
"""

from __future__ import annotations

from rapidin.records import Sample
from rapidin.settings import TextSettings
from rapidin.text.chat import Span
from rapidin.text.rows import hash_of
from rapidin.text.templates import ALPACA, split_format


def readings(sample: Sample, settings: TextSettings) -> tuple[tuple[Span, ...], ...]:
    """Target spans by which the sample's text may have been encoded, most likely first.

    Empty spans stand for prompt and response apart. There is more than one reading only for what may be a chat
    of an older store: then everything from the response on is a target, or it is none after all.
    """
    if sample.target_spans:
        return (sample.target_spans,)
    apart: tuple[Span, ...] = ()
    if settings.template is not None or _is_alpaca(sample) or _is_pair_or_text(sample):
        return (apart,)
    return ((len(sample.prompt), len(sample.text)),), apart


def _is_alpaca(sample: Sample) -> bool:
    prompts = [prompt for prompt in (ALPACA.prompt, ALPACA.prompt_with_input) if prompt is not None]
    return any(sample.prompt.startswith(split_format(prompt)[0][0]) for prompt in prompts)


def _is_pair_or_text(sample: Sample) -> bool:
    """Whether the content hash is that of a completion or a text: nothing else of a row goes into it."""
    pair = hash_of("completion", {"prompt": sample.prompt, "response": sample.response})
    return sample.content_hash in (pair, hash_of("text", {"text": sample.response}))
