"""Computes the verdicts of a stored session again, from the results that they rest on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_joules import record
from pytest_joules.errors import is_expected
from pytest_joules.gate.ruling import rule
from pytest_joules.ledger import Judgement
from pytest_joules.point import Point
from pytest_joules.record.verdicts import told
from pytest_joules.result import Result
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A verdict computed again from what was stored."""

    comparison: Comparison
    stored: Mapping[str, Any]
    """The comparison of the run."""

    @property
    def is_same(self) -> bool:
        """Whether verdict and every number of the run came out again, bit for bit.

        The sentence about them is left out: a later version may word it otherwise.
        """
        return _text(self.comparison.as_json()) == _text(self.stored)


def _text(values: Mapping[str, Any]) -> str:
    compared = {name: value for name, value in values.items() if name != "explanation"}
    return json.dumps(compared, sort_keys=True)  # NaN equals NaN, and -0.0 is not 0.0


def replay(folder: Path) -> list[Replayed]:
    """Compute every verdict of a stored session again.

    Raises:
        FormatError: The session is not there, broken, or of another format.
    """
    record.settings_of(folder)
    record.results_of(folder)
    return [
        replayed(judgement, results)
        for results, _, judgements in told(folder)
        for judgement in judgements
    ]


def replayed(judgement: Judgement, results: Sequence[Result]) -> Replayed:
    """Compute a verdict again from its part's results."""
    comparison, case = judgement.comparison, judgement.case
    launched: dict[tuple[Point, str], list[Result]] = {}
    for position, result in enumerate(results[: judgement.num_results]):
        if result.is_valid and position not in judgement.set_aside:
            key = (result.point, result.provenance.context.stack)
            launched.setdefault(key, []).append(result)
    point = comparison.point
    return Replayed(
        comparison=case.compared(point, rule(point, launched, case)),
        stored=comparison.as_json(),
    )
