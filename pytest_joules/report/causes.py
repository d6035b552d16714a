"""The ranked causes of a change, in plain text and as JSON."""

import math
from dataclasses import asdict
from typing import Any

from pytest_joules.diagnose import BATCH, Cause, Diagnosis, Sign
from pytest_joules.units import percent, si

_LEAST_SHARE = 0.05
"""Causes of less are added up: a reader looks for what matters."""

_LEAST_WORTH_A_LINE = 0.005
"""Share of what is added up that would be written as 0 %."""

_LEAST_CHANGE = 0.002
"""Relative change below which there is nothing to explain, and shares mean nothing."""


def causes(diagnosis: Diagnosis) -> list[str]:
    """Return the lines under a verdict: the exact parts, then each cause with its share.

    Shares are of the change's logarithm, so they add up; one of more than 100 % is partly
    undone by another below zero.
    """
    if abs(diagnosis.ln_change) < _LEAST_CHANGE:
        return ["why: there is no change to explain"]
    shown, small = _sorted_out(diagnosis)
    lines = [f"why {percent(math.expm1(diagnosis.ln_change))}: {_identity(diagnosis)}"]
    for cause in shown:
        lines += _lines(diagnosis, cause)
    rest = sum(cause.contribution for cause in small) / diagnosis.ln_change
    if abs(rest) >= _LEAST_WORTH_A_LINE:
        lines.append(f"  {_share(rest)}  smaller ones together")
    return lines


def _sorted_out(diagnosis: Diagnosis) -> tuple[list[Cause], list[Cause]]:
    shown = [
        c for c in diagnosis.causes if abs(diagnosis.share(c)) >= _LEAST_SHARE or c.is_of_gpus
    ]
    return shown, [c for c in diagnosis.causes if c not in shown]


def _identity(diagnosis: Diagnosis) -> str:
    parts = zip(diagnosis.identity, diagnosis.ln_parts, strict=True)
    # The batch stands below the line: its part is the negative of its own change.
    return ", ".join(
        f"{sign.quantity} {percent(math.expm1(-part if sign.quantity == BATCH else part))}"
        for sign, part in parts
    )


def _lines(diagnosis: Diagnosis, cause: Cause) -> list[str]:
    share, seen = _share(diagnosis.share(cause)), evidence(cause)
    pad = " " * 10
    lines = [f"  {share}  {cause.title} ({cause.code})"]
    if seen:
        lines.append(f"{pad}{seen}")
    return [*lines, f"{pad}{cause.next_step}"]


def evidence(cause: Cause) -> str:
    """Return what a cause rests on, each quantity then and now."""
    return "; ".join(_sign(sign) for sign in cause.signs)


def _share(share: float) -> str:
    return f"{100 * share:+4.0f} %"


def _sign(sign: Sign) -> str:
    return f"{sign.quantity} {_value(sign.then, sign.unit)} -> {_value(sign.now, sign.unit)}"


def _value(value: float | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    if unit == "%":
        return f"{100 * value:.1f} %"
    return si(value, unit) if unit else f"{value:.4g}"


def causes_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis for machines; contributions are natural logs and add up."""
    return {
        "point": diagnosis.point.id,
        "then": diagnosis.then.id,
        "work_unit": diagnosis.point.work_unit,
        "then_energy_per_work_unit_j": diagnosis.then_energy_j,
        "energy_per_work_unit_j": diagnosis.energy_j,
        "ln_change": diagnosis.ln_change,
        "identity": [
            {**asdict(sign), "ln_part": part}
            for sign, part in zip(diagnosis.identity, diagnosis.ln_parts, strict=True)
        ],
        "causes": [
            {
                "code": cause.code,
                "title": cause.title,
                "contribution": cause.contribution,
                "share": diagnosis.share(cause) if diagnosis.ln_change else None,
                "signs": [asdict(sign) for sign in cause.signs],
                "next_step": cause.next_step,
            }
            for cause in diagnosis.causes
        ],
    }
