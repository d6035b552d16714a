"""What a claim is: the paper's value, the rule that recomputes it, how they compare."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol, TypeAlias

from pytest_joules.claims.dataset import Dataset

Scalar: TypeAlias = float | int | str | bool
Rule: TypeAlias = Callable[[Dataset], Mapping[str, Scalar]]
_NEAR = 0.10


class Status(StrEnum):
    """How a claim fares on the data, worst last."""

    REPRODUCES = "reproduces"
    APPROXIMATELY = "approximately"
    DOES_NOT_REPRODUCE = "does not reproduce"
    NOT_TESTABLE = "not testable"


class Criterion(Protocol):
    """Compares one recomputed value with the paper's."""

    @property
    def text(self) -> str:
        """When it reproduces, and when approximately."""
        ...

    def judge(self, published: Scalar, recomputed: Scalar) -> Status:
        """Return ``reproduces``, ``approximately`` or ``does not reproduce``."""
        ...


@dataclass(frozen=True)
class Printed:
    """The paper prints a rounded number."""

    decimals: int = 0
    """Digits after the point as printed; -1 is tens."""

    @property
    def text(self) -> str:
        unit = f"{10.0**-self.decimals:g}"
        return (
            f"reproduces: equal when rounded to {unit}; "
            f"approximately: within {_NEAR:.0%} or {unit}"
        )

    def judge(self, published: Scalar, recomputed: Scalar) -> Status:
        theirs, ours = float(published), float(recomputed)
        unit = 10.0**-self.decimals
        if math.isclose(rounded(ours, self.decimals), theirs, abs_tol=unit / 1000):
            return Status.REPRODUCES
        near = max(_NEAR * abs(theirs), unit)
        return _approximately(when=abs(ours - theirs) <= near)


@dataclass(frozen=True)
class Counted:
    """The paper counts."""

    @property
    def text(self) -> str:
        return "reproduces: equal; approximately: one more or less"

    def judge(self, published: Scalar, recomputed: Scalar) -> Status:
        if recomputed == published:
            return Status.REPRODUCES
        return _approximately(when=abs(float(recomputed) - float(published)) <= 1)


@dataclass(frozen=True)
class Equal:
    """The paper names something: a set, a configuration, a yes."""

    @property
    def text(self) -> str:
        return "reproduces: equal; never approximately"

    def judge(self, published: Scalar, recomputed: Scalar) -> Status:
        return (
            Status.REPRODUCES
            if recomputed == published and type(recomputed) is type(published)
            else Status.DOES_NOT_REPRODUCE
        )


@dataclass(frozen=True)
class AtLeast:
    """The paper says always, or mostly; the value is a percentage of cases."""

    percent: float = 100.0
    approximately: float = 90.0

    @property
    def text(self) -> str:
        return (
            f"reproduces: at least {self.percent:g} % of cases; "
            f"approximately: at least {self.approximately:g} %"
        )

    def judge(self, published: Scalar, recomputed: Scalar) -> Status:
        del published  # the words of the paper; the limit is the criterion's own
        if float(recomputed) >= self.percent:
            return Status.REPRODUCES
        return _approximately(when=float(recomputed) >= self.approximately)


@dataclass(frozen=True)
class Between:
    """The paper gives a range."""

    low: float
    high: float

    @property
    def text(self) -> str:
        return (
            f"reproduces: {self.low:g} to {self.high:g}; "
            f"approximately: within {_NEAR:.0%} of that range"
        )

    def judge(self, published: Scalar, recomputed: Scalar) -> Status:
        del published
        value = float(recomputed)
        if self.low <= value <= self.high:
            return Status.REPRODUCES
        return _approximately(when=self.low * (1 - _NEAR) <= value <= self.high * (1 + _NEAR))


@dataclass(frozen=True)
class MoreThan:
    """The paper says that something exceeds a bound."""

    bound: float

    @property
    def text(self) -> str:
        return f"reproduces: above {self.bound:g}; never approximately"

    def judge(self, published: Scalar, recomputed: Scalar) -> Status:
        del published
        return (
            Status.REPRODUCES if float(recomputed) > self.bound else Status.DOES_NOT_REPRODUCE
        )


def _approximately(*, when: bool) -> Status:
    return Status.APPROXIMATELY if when else Status.DOES_NOT_REPRODUCE


def rounded(value: float, decimals: int) -> float:
    """Round half away from zero, as people print; ``decimals`` may be negative.

    >>> rounded(87.5, 0), rounded(-12.5, 0), rounded(1164.0, -1)
    (88.0, -13.0, 1160.0)
    """
    scale = 10.0**decimals
    return math.copysign(math.floor(abs(value) * scale + 0.5) / scale, value)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One value of a claim."""

    name: str
    published: Scalar
    """The paper's value, in the unit of the name."""

    criterion: Criterion


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Another reading of a rule, shown beside the claim; it decides nothing."""

    name: str
    rule: Rule


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One quantitative statement of the paper."""

    id: str
    section: str
    text: str
    """The statement, in our words."""

    quantities: tuple[Quantity, ...]
    rule: Rule | None = None
    """Recomputes the quantities by name; its docstring is the rule in words.

    ``None``: the claim cannot be tested on the public data.
    """

    expected: Status = Status.REPRODUCES
    """What is recorded for it on the published data."""

    known: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    """Recorded values of the quantities that differ from the paper, to four digits."""

    note: str = ""
    """Why it differs or cannot be tested."""

    variants: tuple[Variant, ...] = ()

    @property
    def rule_text(self) -> str:
        """The rule in words, on one line."""
        return " ".join((self.rule.__doc__ or "").split()) if self.rule else ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A claim and what became of it on one data set."""

    claim: Claim
    recomputed: Mapping[str, Scalar]
    status: Status
    by_quantity: Mapping[str, Status]


def evaluate(claim: Claim, dataset: Dataset) -> Outcome:
    """Recompute a claim; its status is the worst of its quantities'.

    Raises:
        NotMeasured: The data lack rows that the rule needs.
    """
    if claim.rule is None:
        return Outcome(claim=claim, recomputed={}, status=Status.NOT_TESTABLE, by_quantity={})
    recomputed = claim.rule(dataset)
    by_quantity = {
        quantity.name: quantity.criterion.judge(quantity.published, recomputed[quantity.name])
        for quantity in claim.quantities
    }
    worst = max(by_quantity.values(), key=list(Status).index)
    return Outcome(claim=claim, recomputed=recomputed, status=worst, by_quantity=by_quantity)
