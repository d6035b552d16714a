"""Puts together what all workers of a run have found out."""

from dataclasses import replace
from pathlib import Path

from pytest_joules import record
from pytest_joules.digest import Digest
from pytest_joules.gate.calibration import Calibration
from pytest_joules.ledger import Ledger, Taken
from pytest_joules.point import Point
from pytest_joules.record.costs import costs_of
from pytest_joules.record.verdicts import told


def gathered(folder: Path, taken: Taken | None = None) -> tuple[Digest, Ledger]:
    """Put together what all workers of a run have found out, the lost ones included.

    Args:
        folder: Where they wrote it down.
        taken: What they had taken over before, which stands there as well.

    Raises:
        FormatError: What they wrote cannot be read.
    """
    ledger = Ledger(taken=taken)
    if not record.is_session(folder):
        return Digest(), ledger
    ledger.results = record.results_of(folder)
    for *_, judgements in told(folder):
        for each in judgements:
            point = each.comparison.point
            ledger.comparisons[point] = each.comparison
            ledger.alphas[point] = each.case.design(point).alpha
    for cost in costs_of(folder):
        ledger.num_launches += cost["num_launches"]
        ledger.spent_gpu_s += cost["spent_gpu_s"] or 0.0
        for point, values in cost.get("calibrations", ()):
            ledger.calibrations[Point.from_json(point)] = Calibration.from_json(values)
    digest = replace(
        record.digest_of(folder),
        num_launches=ledger.num_launches,
        spent_gpu_s=ledger.spent_gpu_s,
    )
    return digest, ledger
