"""Tells whether the data still do what is recorded for each claim."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_joules.claims.claim import Claim, Outcome, Scalar, Status, evaluate
from pytest_joules.claims.dataset import Dataset
from pytest_joules.claims.registry import CLAIMS
from pytest_joules.errors import ConfigurationError, NotMeasured, is_expected
from pytest_joules.units import significant

__tracebackhide__ = is_expected

_DIGITS = 4


class ClaimFailed(AssertionError):
    """The data do not do what is recorded for a claim."""


@dataclass(frozen=True, kw_only=True)
class ClaimChecker:
    """Checks claims by id against one data set; remembers every outcome for the summary."""

    dataset: Dataset
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By id, of the claims checked so far."""

    def check(self, claim_id: str) -> Outcome:
        """Recompute a claim and compare status and known values with what is recorded.

        A quantity without a known value must reproduce even where the claim does not.

        Raises:
            ClaimFailed: It fares otherwise, or the data lack rows that its rule needs.
            ConfigurationError: There is no such claim, or it cannot be tested.
        """
        claim = claim_named(claim_id)
        try:
            outcome = evaluate(claim, self.dataset)
        except NotMeasured as error:
            raise ClaimFailed(f"{claim_id}: cannot be recomputed: {error}") from error
        self.outcomes[claim_id] = outcome
        if difference(outcome):
            raise ClaimFailed(explain(outcome))
        return outcome


def claim_named(claim_id: str) -> Claim:
    """Look up a claim that can be tested.

    Raises:
        ConfigurationError: There is no such claim, or it cannot be tested.
    """
    if claim_id not in CLAIMS:
        raise ConfigurationError(
            f"claim {claim_id!r} is unknown; there are {', '.join(CLAIMS)}."
        )
    claim = CLAIMS[claim_id]
    if claim.rule is None:
        raise ConfigurationError(f"claim {claim_id} is not testable: {claim.note}.")
    return claim


def difference(outcome: Outcome) -> str:
    """Say how an outcome differs from what is recorded; empty where it does not."""
    claim = outcome.claim
    if outcome.status is not claim.expected:
        return f"{outcome.status}, recorded: {claim.expected}"
    changed = [
        f"{name}: {shown(outcome.recomputed[name])}, recorded: {shown(value)}"
        for name, value in claim.known.items()
        if shown(outcome.recomputed[name]) != shown(value)
    ]
    changed += [
        f"{name}: {status}, recorded: {Status.REPRODUCES}"
        for name, status in outcome.by_quantity.items()
        if name not in claim.known and status is not Status.REPRODUCES
    ]
    return "; ".join(changed)


def shown(value: Scalar) -> str:
    """Write a value as tables show it: numbers with four significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int):
        return str(value)
    return f"{significant(value, _DIGITS):.10g}"


def listed(values: Mapping[str, Scalar]) -> str:
    """Write named values on one line."""
    if len(values) == 1 and "%" not in next(iter(values)):
        return shown(next(iter(values.values())))
    return ", ".join(f"{name}: {shown(value)}" for name, value in values.items())


def explain(outcome: Outcome) -> str:
    """Write what the paper says, what the data say, and how it should have fared."""
    claim = outcome.claim
    lines = [
        f"{claim.id} (section {claim.section}): {claim.text}: {difference(outcome)}",
        f"  rule: {claim.rule_text}",
    ]
    lines += [
        f"  {quantity.name}: paper {shown(quantity.published)}, recomputed "
        f"{shown(outcome.recomputed[quantity.name])}: "
        f"{outcome.by_quantity[quantity.name]} ({quantity.criterion.text})"
        for quantity in claim.quantities
    ]
    lines.append(
        "  The data no longer say what is recorded for this claim: look for the rows that "
        "changed, or record the new value in pytest_joules/claims."
    )
    return "\n".join(lines)


def not_testable() -> tuple[Claim, ...]:
    """Return the claims that the public data cannot tell."""
    return tuple(claim for claim in CLAIMS.values() if claim.expected is Status.NOT_TESTABLE)
