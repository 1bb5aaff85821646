"""The part of a prompt that is its own, without what a template puts around every prompt.

No template is known here: lines with which another prompt also begins or ends are not a prompt's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, takewhile

# Nobody reads further to see whether two prompts are the same; it bounds the work on huge ones.
_COMPARED = 4_000


def own_parts(prompts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Begin and end of each prompt's own part, without white space around it."""
    distinct = sorted(set(prompts))
    beginnings = _shared(distinct)
    reversed_ends = _shared(sorted(prompt[-_COMPARED:][::-1] for prompt in distinct))
    return {
        prompt: _own_part(prompt, beginnings[prompt], reversed_ends[prompt[-_COMPARED:][::-1]])
        for prompt in distinct
    }


def _shared(texts: list[str]) -> dict[str, int]:
    """Number of characters of the whole lines that each of the sorted texts shares with a neighbour."""
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
