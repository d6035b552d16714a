"""``joules fit``: the models' parameters from stored measurements of one's own."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_joules import record
from pytest_joules.commands.answer import Answer
from pytest_joules.commands.stored import every_result_at
from pytest_joules.errors import is_expected
from pytest_joules.gate.noise_fit import NoiseFit, fit_noise, runs_of
from pytest_joules.gate.noise_within import Interval
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.units import counted

__tracebackhide__ = is_expected

_UNTOLD = "not told by these launches"


def results_of(places: Sequence[str]) -> list[Result]:
    """Read all results of some places; a project's folder stands for all of its sessions.

    Raises:
        ConfigurationError: There is nothing at one of them.
        FormatError: One cannot be read.
    """
    found: list[Result] = []
    for place in places:
        sessions = [
            p for p in sorted((Path(place) / record.FOLDER).glob("*")) if record.is_session(p)
        ]
        for name in map(str, sessions) if sessions else [place]:
            found += every_result_at(name)
    return found


def noise(places: Sequence[str], *, stack: str = "default") -> Answer:
    """Fit the noise model to the launches of one stack, among which nothing changed.

    Raises:
        ConfigurationError: There are too few launches, or nothing is stored there.
        FormatError: Something stored cannot be read.
    """
    chosen = [r for r in results_of(places) if r.provenance.context.stack == stack]
    fit = fit_noise(runs_of(chosen))
    sources = sorted({r.source for r in chosen})
    rows = [("parameter", "value", "95 % interval"), *_rows(fit)]
    told = (
        f"{counted(fit.num_launches, 'launch')} of stack {stack}, "
        f"{counted(fit.num_sessions, 'session')}, source {', '.join(sources)}; points on one "
        f"board: {fit.num_groups}"
    )
    return Answer(lines=[told, *table(rows)], values={"sources": sources, **asdict_of(fit)})


def _rows(fit: NoiseFit) -> list[tuple[str, str, str]]:
    within = fit.within
    shares: list[tuple[str, Interval | None]] = [
        ("launch", fit.launch),
        ("session", fit.session),
        ("launch, as the gate sees it", fit.gate_launch),
        ("sub-window", within.sub_window),
        ("thermal amplitude", within.thermal),
        ("thermal amplitude, spread", within.thermal_spread),
        ("outliers", fit.outlier_share),
        ("disturbed launches", fit.incident_share),
    ]
    return [
        *(_row(name, each, scale=100, unit=" %") for name, each in shares),
        _row("autocorrelation", within.autocorrelation, scale=1, unit=""),
        _row("thermal time constant", within.thermal_s, scale=1, unit=" s"),
    ]


def _row(name: str, found: Interval | None, *, scale: float, unit: str) -> tuple[str, str, str]:
    if found is None:
        return (name, _UNTOLD, "")
    value, low, high = (f"{scale * x:.2f}" for x in (found.value, found.low, found.high))
    return (name, f"{value}{unit}", f"{low} to {high}{unit}")


def asdict_of(fit: NoiseFit) -> dict[str, Any]:
    """Return a fit as JSON-ready values; the single levels are left out."""
    values = asdict(fit)
    for name in ("levels", "level_variances"):
        del values["within"][name]
    return values
