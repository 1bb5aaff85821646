"""Which part of a prompt is its own: what a template puts around it repeats itself from card to card.

No template is known here. Lines with which another prompt begins, or ends, too are not a prompt's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, takewhile

# Nobody reads further to see whether two prompts are the same; it bounds the work on huge ones.
_COMPARED = 4_000


def own_parts(prompts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """For each prompt where its own part begins and ends, white space around it left out."""
    distinct = sorted(set(prompts))
    beginnings = _shared(distinct)
    reversed_ends = _shared(sorted(prompt[-_COMPARED:][::-1] for prompt in distinct))
    return {
        prompt: _own_part(prompt, beginnings[prompt], reversed_ends[prompt[-_COMPARED:][::-1]])
        for prompt in distinct
    }


def _shared(texts: list[str]) -> dict[str, int]:
    """For each of sorted texts how many whole lines it has in common with a neighbour, in characters."""
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
