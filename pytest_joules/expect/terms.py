"""The terms that every expectation takes, in one place."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypedDict

from pytest_joules.errors import Incomparable, is_expected
from pytest_joules.expect.pairing import Names, Pair
from pytest_joules.expect.quantity import ENERGY

__tracebackhide__ = is_expected


class Given(TypedDict, total=False):
    """Keywords of every expectation; ``Terms`` has their meaning and defaults."""

    quantity: str
    by: Names
    margin: float
    at_least: int | float | None
    of: int | None
    except_for: Collection[Any]
    across: Names
    noise: float | None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is compared, how results are paired, and how much must hold."""

    quantity: str = ENERGY
    """What is compared."""

    by: Names = "batch_size"
    """Results with equal values of these are compared with each other."""

    margin: float = 0.0
    """Relative difference that is asked beyond the mere order."""

    at_least: int | float | None = None
    """How many must hold: a number, a share such as 0.88, or all."""

    of: int | None = None
    """How many there must be to compare, so that none goes missing unnoticed."""

    except_for: Collection[Any] = ()
    """Known exceptions: keys (64), members ('Qwen 3 32B'), or both (('Qwen 3 32B', 64))."""

    across: Names = ()
    """What the sides may differ in: 'gpu', 'task' or 'source'."""

    noise: float | None = None
    """Relative standard deviation of one launch, where it is known; else from evidence."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise Incomparable(f"margin={self.margin!r}: give a share of at least 0, below 1.")
        if self.noise is not None and not 0 <= self.noise < 1:
            raise Incomparable(f"noise={self.noise!r}: give a share of at least 0, below 1.")
        if isinstance(self.except_for, str):
            raise Incomparable(f"except_for={self.except_for!r}: give a list of exceptions.")

    def excepts(self, pair: Pair) -> bool:
        """Tell whether a pair was named as an exception."""
        return any(name in self.except_for for name in names_of(pair.member, pair.key))

    def required(self, num: int) -> int:
        """Return how many of ``num`` must hold.

        Raises:
            Incomparable: There are not ``of`` to compare, or fewer than must hold.
        """
        if self.of is not None and num != self.of:
            raise Incomparable(
                f"{num} were compared, expected were of={self.of}: some were not measured, or "
                "the expectation is about another set."
            )
        least = num if self.at_least is None else self._count(num, self.at_least)
        if not 1 <= least <= num:
            raise Incomparable(
                f"at_least={self.at_least!r} of {num} to compare: at least 1 and at most all "
                "can be asked for."
            )
        return least

    @staticmethod
    def _count(num: int, at_least: float) -> int:
        if isinstance(at_least, bool):
            raise Incomparable(f"at_least={at_least!r}: give a number or a share.")
        return at_least if isinstance(at_least, int) else math.ceil(at_least * num - 1e-9)


def names_of(member: str, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return all the ways in which an exception can name a pair."""
    bare: Any = key[0] if len(key) == 1 else key
    of_member = (member, (member, bare), (member, *key)) if member else ()
    return (*of_member, bare) if key else of_member
