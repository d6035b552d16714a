"""``joules calibrate``: pytest does it; afterwards its findings can be told to machines."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_joules import baseline, record
from pytest_joules.commands.answer import Answer
from pytest_joules.errors import ConfigurationError, is_expected

__tracebackhide__ = is_expected


def calibrated(arguments: Sequence[str]) -> Answer:
    """Calibrate every checked point; pytest's own output goes to standard error.

    The values are the calibrations of the session's points; none where pytest failed
    before it measured.
    """
    before = _latest()
    code = calibrate(arguments, stdout=sys.stderr.fileno())
    folder = _latest()
    values = _calibrations(folder) if folder and folder != before else []
    return Answer(lines=(), values=values, exit_code=code)


def calibrate(arguments: Sequence[str], *, stdout: int | None = None) -> int:
    """Run pytest; return its exit code."""
    command = [sys.executable, "-m", "pytest", "--joules-calibrate", *arguments]
    return subprocess.run(command, stdout=stdout, check=False).returncode  # noqa: S603  no shell


def _latest() -> Path | None:
    try:
        return record.find("latest", Path())
    except ConfigurationError:
        return None


def _calibrations(folder: Path) -> list[dict[str, Any]]:
    root = Path(record.settings_of(folder)["baselines"])
    found = []
    for result in {each.point: each for each in record.results_of(folder)}.values():
        path = baseline.path_for(root, result.point, result.gpu, source=result.source)
        entry = baseline.entries(path).get(result.point)
        if entry and entry.calibration:
            found.append({"point": result.point.id, **entry.calibration})
    return found
