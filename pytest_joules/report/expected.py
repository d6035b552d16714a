"""What a person reads about a prediction of the latent model; lines and bars, no decisions."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pytest_joules.latent import Prediction, fitted_gpus
from pytest_joules.latent.plausibility import IMPLAUSIBLE, beside_model
from pytest_joules.latent.prediction import MEASURED_GPU_COUNTS
from pytest_joules.report.text import rate, table
from pytest_joules.result import Result
from pytest_joules.units import si

_SMALLEST_SHARE = 0.005
_BAR_WIDTH = 40


def lines(expected: Prediction) -> list[str]:
    """Return the lines of ``joules predict``."""
    unit = expected.point.work_unit
    of_all = f" of {expected.point.num_gpus} GPUs" if expected.point.num_gpus > 1 else ""
    batch = f"{expected.mean_batch_size:.0f} of {expected.point.batch_size} asked"
    told = [
        f"{expected.point.id} on {expected.gpu}: PREDICTED by the latent model, not measured",
        f"  energy       {si(expected.energy_per_work_unit_j, f'J/{unit}')}",
        f"  power        {si(expected.power_w, 'W')}{of_all}",
        f"  throughput   {rate(expected.throughput_work_units_per_s, unit)}",
        f"  {_latency(expected)}",
        f"  batch        {batch}; at most {expected.max_batch_size} fit in memory",
        f"  binds        {expected.binds}",
        f"  time goes to {_shares(expected.terms_s)}",
        f"  energy to    {_shares(expected.terms_j)}",
    ]
    return [*told, f"  known error  {_error(expected)}"]


def _latency(expected: Prediction) -> str:
    name = "batch takes" if expected.median_itl_s is None else "median ITL"
    return f"{name:12} {_time(expected)}"


def _time(expected: Prediction) -> str:
    found = expected.batch_latency_s if expected.median_itl_s is None else expected.median_itl_s
    return "not predicted" if found is None else si(found, "s")


def _shares(terms: Any) -> str:
    total = sum(terms.values())
    ranked = sorted(terms.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{cause} {100 * value / total:.0f} %"
        for cause, value in ranked
        if value > _SMALLEST_SHARE * total
    )


def _error(expected: Prediction) -> str:
    error = expected.known_error
    if expected.point.num_gpus not in MEASURED_GPU_COUNTS:
        measured = ", ".join(map(str, MEASURED_GPU_COUNTS))
        return f"unknown: {expected.point.num_gpus} GPUs were not measured ({measured} were)"
    if error is None:
        return (
            f"unknown: {expected.gpu} was not measured, parameters are those of "
            f"{expected.basis} scaled by data sheets (measured: {', '.join(fitted_gpus())})"
        )
    return (
        f"energy of unseen models on {expected.gpu}, {expected.point.task}: median "
        f"{100 * error.median:.0f} %, 90 of 100 within {100 * error.p90:.0f} %"
    )


def sweep(predictions: Sequence[Prediction], axis: str) -> list[str]:
    """Return a table with a bar of the energy for each value of the axis."""
    most = max(each.energy_per_work_unit_j for each in predictions)
    rows = [(axis.replace("_", " "), "energy", "power", "latency", "binds", "")]
    for each in predictions:
        share = each.energy_per_work_unit_j / most
        rows.append(
            (
                str(getattr(each.point, axis)),
                si(each.energy_per_work_unit_j, f"J/{each.point.work_unit}"),
                si(each.power_w, "W"),
                _time(each),
                each.binds,
                ("█" * max(1, round(_BAR_WIDTH * share))).ljust(_BAR_WIDTH),
            )
        )
    return [*table(rows), f"known error: {_error(predictions[0])}"]


def as_json(expected: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON-ready values."""
    values = {
        name: getattr(expected, name)
        for name in Prediction.__dataclass_fields__
        if name not in ("point", "terms_s", "terms_j")
    }
    error = expected.known_error
    return {
        "source": "predicted",
        "point": expected.point.as_json(),
        **values,
        "terms_s": dict(expected.terms_s),
        "terms_j": dict(expected.terms_j),
        "known_energy_error": asdict(error) if error else None,
    }


def beside(results: Sequence[Result]) -> list[str]:
    """Say of each point measured here how it compares with the latent model."""
    last = {each.point: each for each in results if each.source == "live" and each.is_valid}
    told = []
    for point, result in last.items():
        is_noted = any(note.code == IMPLAUSIBLE for note in result.notes)
        text = "" if is_noted else beside_model(result)
        told += [f"model: {point.id}: {text}"] if text else []
    return told
