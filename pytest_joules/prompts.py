"""Pinned prompts as token ids or words; standard library only, so that workers can use it."""

from functools import cache
from random import Random
from typing import Final

FIRST_ID: Final = 1_000
"""Lower ids are control tokens in some vocabularies."""

END_ID: Final = 30_000
"""Within every vocabulary of a language model that is in use (32,000 and more)."""

_WORDS: Final = (
    "the of and to in is that it was for on are with as at be this have from or one had by "
    "not but what all were when we there can an your which their said if do will each about "
    "how up out them then she many some so these would other into has more her two like him "
    "see time could no make than first been its who now people my made over did down only way "
    "find use may water long little very after words called just where most know get through "
    "back much go good new write our me man too any day same right look think also around"
)
"""So common that each of them is one token in most vocabularies."""


@cache
def _ids() -> tuple[int, ...]:
    # Twice as fast as a range to choose from, whose numbers are made when they are chosen.
    return tuple(range(FIRST_ID, END_ID))


def prompt_ids(seed: int, index: int, length: int) -> list[int]:
    """Return the pinned token ids of a prompt; a longer one begins with the shorter."""
    return Random(f"prompt:{seed}:{index}").choices(_ids(), k=length)


def prompt_text(seed: int, index: int, length: int) -> str:
    """Return a pinned prompt of so many words; a longer one begins with the shorter."""
    return " ".join(Random(f"prompt:{seed}:{index}").choices(_WORDS.split(), k=length))
