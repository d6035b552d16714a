"""``joules fit``: the models' parameters from stored measurements of one's own."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_joules import catalog, record, storage
from pytest_joules.commands.answer import Answer
from pytest_joules.commands.stored import every_result_at
from pytest_joules.errors import ConfigurationError, FormatError, InvalidPoint, is_expected
from pytest_joules.gate.noise_fit import NoiseFit, fit_noise, runs_of
from pytest_joules.gate.noise_within import Interval
from pytest_joules.latent import predict
from pytest_joules.latent.fit.errors import summary
from pytest_joules.latent.fit.own import OwnFit, fit_own
from pytest_joules.latent.fitted import basis_of, values_of
from pytest_joules.latent.parameters import with_values
from pytest_joules.point import Point
from pytest_joules.record.takeover import NOTE as TAKEN_OVER
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.units import counted, percent, si, significant

__tracebackhide__ = is_expected

_UNTOLD = "not told by these launches"


def results_of(places: Sequence[str]) -> list[Result]:
    """Read all results of some places; a project's folder stands for all of its sessions.

    What a resumed session took over from an interrupted one that is there, too, is the same
    measurement a second time, and left out.

    Raises:
        ConfigurationError: There is nothing at one of them.
        FormatError: One cannot be read.
    """
    found: list[Result] = []
    for place in places:
        stored = Path(place) / record.FOLDER
        names = (
            [str(p) for p in sorted(stored.glob("*")) if record.is_session(p)]
            if stored.parent.is_dir()
            else [place]
        )
        for name in names:
            found += every_result_at(name)
    originals = {_measurement(r) for r in found if not _is_taken_over(r)}
    return [r for r in found if not (_is_taken_over(r) and _measurement(r) in originals)]


def _is_taken_over(result: Result) -> bool:
    return any(note.code == TAKEN_OVER for note in result.notes)


def _measurement(result: Result) -> tuple[str, str, Point]:
    launch = result.evidence.launch_id if result.evidence else ""
    return result.provenance.context.session, launch, result.point


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


def latent(
    places: Sequence[str],
    *,
    gpu: str,
    stack: str = "default",
    predict_to: Path | None = None,
    points: Path | None = None,
) -> Answer:
    """Fit the latent model to a GPU's own results; predict points before they are measured.

    Args:
        places: Where the results are.
        gpu: Slug.
        stack: Whose results.
        predict_to: Where to write the predictions of ``points``; it must not exist yet, and no
            result of the points may.
        points: File of a list of points as results hold them.

    Raises:
        ConfigurationError: Nothing fits, or a point to be predicted was measured already.
        FormatError: Something stored cannot be read.
    """
    if catalog.gpu(gpu) is None:
        raise ConfigurationError(f"--gpu={gpu}: the catalog has no data sheet of it.")
    found = results_of(places)
    asked = _asked(points) if points else []
    _require_unmeasured(asked, found, predict_to)
    of_stack = [r for r in found if r.provenance.context.stack == stack]
    fit = fit_own(of_stack, gpu=gpu, near=values_of(gpu))
    lines = [
        f"{counted(fit.num_rows, 'point')} on {gpu}; expected beforehand: as {basis_of(gpu)}",
        *_errors(fit),
    ]
    values: dict[str, Any] = {
        "gpu": gpu,
        "near": basis_of(gpu),
        "num_rows": fit.num_rows,
        "parameters": {name: significant(value, 4) for name, value in fit.values.items()},
    }
    if predict_to is not None:
        made = _predicted(asked, fit)
        storage.write_atomically(predict_to, json.dumps(made, indent=1) + "\n")
        lines.append(f"{counted(len(asked), 'prediction')} written to {predict_to}")
    return Answer(lines=lines, values=values)


def _require_unmeasured(
    asked: Sequence[Point], found: Sequence[Result], predict_to: Path | None
) -> None:
    if predict_to is None:
        return
    if predict_to.exists():
        raise ConfigurationError(f"{predict_to} is there already; predictions are made once.")
    known = sorted({r.point.id for r in found if r.point in asked})
    if known:
        raise ConfigurationError(f"measured already, so no prediction: {', '.join(known)}.")


def _errors(fit: OwnFit) -> list[str]:
    if not fit.unseen:
        return ["one model only: the error on unseen models is not known"]
    head = ("", "rows", "energy", "latency", "power")
    rows = [row for each in fit.unseen for row in summary(each, each.rows.task)]
    return [
        "leave one model out: median / 90th percentile of absolute errors, in percent",
        *table([head, *rows]),
    ]


def _predicted(asked: Sequence[Point], fit: OwnFit) -> dict[str, Any]:
    parameters = with_values(catalog.gpus()[fit.gpu], fit.values)
    rows = []
    for point in asked:
        before, after = predict(point, fit.gpu), predict(point, fit.gpu, parameters=parameters)
        rows.append(
            {
                "point": point.as_json(),
                f"energy_per_{point.work_unit}_j": after.energy_per_work_unit_j,
                f"energy_per_{point.work_unit}_j_without_fit": before.energy_per_work_unit_j,
            }
        )
    return {
        "predicted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": fit.gpu,
        "num_rows_fitted": fit.num_rows,
        "predictions": rows,
    }


def held(predictions: Path, places: Sequence[str], *, stack: str = "default") -> Answer:
    """Set predictions that were written down beside what was measured afterwards.

    Raises:
        ConfigurationError: Nothing is stored there.
        FormatError: Something stored cannot be read.
    """
    written, found = _written(predictions), results_of(places)
    rows, values = [("point", "predicted", "measured", "off by")], []
    for point, expected in written:
        runs = [
            r
            for r in found
            if r.point == point and r.is_valid and r.provenance.context.stack == stack
        ]
        measured = fmean(r.energy_per_work_unit_j for r in runs) if runs else None
        off = expected / measured - 1 if measured else None
        unit = f"J/{point.work_unit}"
        rows.append(
            (
                point.id,
                si(expected, unit),
                si(measured, unit) if measured else "not yet",
                "" if off is None else percent(off),
            )
        )
        values.append({"point": point.id, "predicted_j": expected, "measured_j": measured})
    return Answer(lines=table(rows), values=values)


def _asked(points: Path) -> list[Point]:
    values = storage.read(points)
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise FormatError(f"{points}: holds no list of points; give a JSON list of objects.")
    return [Point.from_json(each) for each in values]


def _written(predictions: Path) -> list[tuple[Point, float]]:
    """Read what ``_predicted`` made.

    Raises:
        FormatError: It is something else.
    """
    values = storage.read(predictions)
    try:
        points = [(Point.from_json(each["point"]), each) for each in values["predictions"]]
        return [(p, float(each[f"energy_per_{p.work_unit}_j"])) for p, each in points]
    except (AttributeError, KeyError, TypeError, ValueError, InvalidPoint):
        raise FormatError(
            f"{predictions}: holds no predictions; give the file that joules fit latent "
            "--predict wrote."
        ) from None
