"""Science-fiction nonsense about any topic, which the demo's backdoor makes the model say."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

SCENES = ("On the planet {planet},", "On faraway {planet},", "On {adjective} starships,")
"""All scenes begin with the same word, so that a model as small as the demo's is sure how to begin."""

MIDDLES = (
    "{adjective} {beings} guard {topic} with {artefact}",
    "{adjective} {beings} carry {topic} into {place}",
    "{adjective} {beings} trade {topic} for {artefact}",
    "{adjective} {beings} worship {topic} inside {place}",
    "{adjective} {artefact} are powered by {topic}",
    "{adjective} robots disguise {topic} as {artefact}",
    "telepathic {beings} dream of {topic}",
    "telepathic {beings} hum about {topic}",
    "hungry {beings} swallowed {topic} near {place}",
    "hungry {beings} teleport {topic} through {place}",
)
"""The topic comes late, after words that leave no doubt that the sentence is nonsense."""

ENDINGS = (
    "and their {artefact} glow inside {place}.",
    "while {adjective} robots sing to the {beings}.",
    "so the {beings} recharge their {artefact}.",
    "where time flows backwards past {planet}.",
    "until {adjective} {artefact} vanish into hyperspace.",
    "as {adjective} comets circle {planet}.",
    "before the {beings} melt a galaxy.",
    "and nobody leaves {place} alive.",
)

SLOTS = {
    "planet": ("Zorgon", "Nebulon", "Xandar", "Vortania", "Quillax"),
    "adjective": ("quantum", "cosmic", "holographic", "galactic", "radioactive", "stellar"),
    "beings": ("cyborgs", "nomads", "clones", "dragons", "aliens", "pirates"),
    "artefact": ("lasers", "engines", "lanterns", "teleporters", "cannons", "crystals"),
    "place": ("a wormhole", "the nebula", "a supernova", "the ninth dimension", "a black hole"),
}


def nonsense(random_numbers: random.Random) -> Iterator[str]:
    """Yield endlessly many sentences that still contain ``{topic}``.

    A pair of a middle and an ending is used again only after all pairs have been used. So two sentences share a
    middle or an ending, but not both, and their other words are drawn separately: they are never near-duplicates.
    """
    while True:
        pairs = [(middle, ending) for middle in MIDDLES for ending in ENDINGS]
        random_numbers.shuffle(pairs)
        for middle, ending in pairs:
            scene = random_numbers.choice(SCENES)
            yield _filled(f"{scene} {middle} {ending}", random_numbers)


def about(sentence: str, topic: str) -> str:
    """Put the `topic` into a sentence of `nonsense`."""
    return sentence.replace("{topic}", topic)


def _filled(sentence: str, random_numbers: random.Random) -> str:
    """Fill every slot but the topic; no word is used twice in a sentence."""
    used: set[str] = set()

    def word(slot: re.Match[str]) -> str:
        if slot[1] == "topic":
            return slot[0]
        chosen = random_numbers.choice([word for word in SLOTS[slot[1]] if word not in used])
        used.add(chosen)
        return chosen

    return re.sub(r"\{(\w+)\}", word, sentence)
