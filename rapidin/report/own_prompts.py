"""The own part of each prompt, without the text that a template puts around every prompt.

This module knows no templates. It takes away the lines with which another prompt also begins or ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, takewhile

# Number of characters that are compared at each end, which limits the work on huge prompts.
_COMPARED = 4_000


def own_parts(prompts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Find begin and end of each prompt's own part, without the white space around it."""
    distinct = sorted(set(prompts))
    beginnings = _shared(distinct)
    reversed_ends = _shared(sorted(prompt[-_COMPARED:][::-1] for prompt in distinct))
    return {
        prompt: _own_part(prompt, beginnings[prompt], reversed_ends[prompt[-_COMPARED:][::-1]])
        for prompt in distinct
    }


def _shared(texts: list[str]) -> dict[str, int]:
    """Count the characters of the whole lines that each of the sorted texts shares with a neighbour."""
    shared = dict.fromkeys(texts, 0)
    for one, other in pairwise(texts):
        pairs = zip(one[:_COMPARED], other, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        lines = one.rfind("\n", 0, common) + 1
        for text in (one, other):
            shared[text] = max(shared[text], lines)
    return shared


def _own_part(prompt: str, beginning: int, ending: int) -> tuple[int, int]:
    end = len(prompt) - ending
    own = prompt[beginning:end]
    if not own.strip():
        return 0, len(prompt)
    return beginning + len(own) - len(own.lstrip()), beginning + len(own.rstrip())
