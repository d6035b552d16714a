"""The exact identity, and what is left of its parts while causes take theirs.

``ln(J/unit) = ln P + ln(step time) - ln(batch)`` holds for any two results: work per second is
the batch over the time in which every request of it gets one unit. Each of the three parts
of a change is a pool; a cause takes from the pools what it can account for, and what nobody
takes is unknown. So contributions always add up.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from pytest_joules.diagnose.cause import Sign
from pytest_joules.diagnose.facts import Facts
from pytest_joules.errors import ConfigurationError, is_expected

__tracebackhide__ = is_expected

Pool = Literal["power", "step", "batch"]
BATCH = "batch"
"""How the identity names the one quantity that divides."""

_UNTOLD = 1e-12


def logarithmic_mean(one: float, other: float) -> float:
    """Return ``(a - b) / ln(a / b)``, which turns differences into shares of a log change.

    >>> logarithmic_mean(2.0, 2.0)
    2.0

    Source:
        B. W. Ang, "The LMDI approach to decomposition analysis", Energy Policy 33(7), 2005.
    """
    low, high = sorted((one, other))
    if high - low <= _UNTOLD * abs(high):
        return low
    # Of nearly equal values the logarithm of a quotient would keep few digits.
    return (high - low) / math.log1p((high - low) / low)


@dataclass(kw_only=True)
class Change:
    """Two sides and the pools; every rule is odd: swapping the sides flips each sign."""

    then: Facts
    now: Facts
    pools: dict[Pool, float] = field(init=False)

    def __post_init__(self) -> None:
        if not self.has("batch"):
            # Without the batch, only work per second can be told from power.
            self.then, self.now = replace(self.then, batch=None), replace(self.now, batch=None)
        if not self.has("prompt_tokens"):
            self.then, self.now = (
                replace(side, prompt_tokens=None) for side in (self.then, self.now)
            )
        self.pools = {"power": self.ln("power_w") or 0.0, "step": self.ln("step_s") or 0.0}
        if self.has("batch"):
            self.pools["batch"] = -(self.ln("batch") or 0.0)

    def require_same_unit(self) -> None:
        """Refuse to explain images by tokens.

        Raises:
            ConfigurationError: The sides produce different work units.
        """
        if self.then.work_unit != self.now.work_unit:
            raise ConfigurationError(
                f"one side produces {self.then.work_unit}s, the other {self.now.work_unit}s: "
                "their energies are not comparable."
            )

    def identity(self) -> tuple[Sign, ...]:
        """Return the quantities whose changes add up exactly; the batch where it is known."""
        return (
            *self.sign("power", "power_w", "W"),
            *self.sign("step time", "step_s", "s"),
            *self.sign(BATCH, "batch"),
        )

    def has(self, *names: str) -> bool:
        """Tell whether both sides measured all of these."""
        sides = (self.then, self.now)
        return all(getattr(side, name) is not None for side in sides for name in names)

    def ln(self, name: str) -> float | None:
        """Return the log change; ``None`` where a side lacks it or holds nothing positive."""
        then, now = getattr(self.then, name), getattr(self.now, name)
        if then is None or now is None or then <= 0 or now <= 0:
            return None
        return math.log(now / then)

    def sign(self, quantity: str, name: str, unit: str = "") -> tuple[Sign, ...]:
        """Return the evidence of one quantity; nothing where a side lacks it."""
        if not self.has(name):
            return ()
        then, now = getattr(self.then, name), getattr(self.now, name)
        return (Sign(quantity=quantity, then=then, now=now, unit=unit),)

    def take(self, pool: Pool, amount: float) -> float:
        """Move an amount that was measured out of a pool; what is over stays behind."""
        self.pools[pool] -= amount
        return amount

    def claim(self, pool: Pool, one: float, other: float) -> float:
        """Move out of a pool as much as lies within the bounds that physics sets."""
        low, high = min(one, other), max(one, other)
        return self.take(pool, min(max(self.pools[pool], low), high))
