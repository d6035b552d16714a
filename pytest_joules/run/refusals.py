"""What a run refuses before anything is collected: options that cannot give a measurement."""

import pytest

from pytest_joules.errors import JoulesError, is_expected
from pytest_joules.gate.calibration import FEWEST
from pytest_joules.options.frozen import Options
from pytest_joules.sources import Source

__tracebackhide__ = is_expected

NO_GPU = (
    "no GPU is named, so nothing can be measured or looked up. Say which one with --gpu=NAME "
    "(b200, h100, h200, ...), or set gpu in [tool.pytest-joules]."
)


def require_possible(chosen: Options, source: Source, *, is_asked: bool) -> None:
    """Refuse what cannot give a measurement.

    Args:
        chosen: All options.
        source: Where results come from.
        is_asked: Whether the command line says anything of energy tests.

    Raises:
        pytest.UsageError: No GPU is named, or options contradict each other.
    """
    if not chosen.gpu and is_asked:
        raise pytest.UsageError(f"pytest-joules: {NO_GPU}")
    if chosen.records and not source.launches:
        raise pytest.UsageError(
            f"pytest-joules: --joules-record measures a baseline, but the source is "
            f"{source.name}, which launches nothing. Leave one of them out."
        )
    _require_plantable(chosen)
    if chosen.calibrate and chosen.num_launches < FEWEST:
        raise pytest.UsageError(
            f"pytest-joules: {chosen.num_launches} launches are too few to calibrate with; use "
            f"at least --joules-launches={FEWEST}, better 8 and more."
        )


def _require_plantable(chosen: Options) -> None:
    if chosen.plant and chosen.source != "simulated":
        raise pytest.UsageError(
            f"pytest-joules: --joules-plant changes a simulated stack, but the source is "
            f"{chosen.source}. Add --joules-source=simulated."
        )
    if chosen.plant and chosen.records:
        raise pytest.UsageError(
            "pytest-joules: with --joules-plant nothing is recorded: a baseline of a stack "
            "with a planted cause would hide it. Leave one of them out."
        )


def require_gpu(chosen: Options, source: Source) -> None:
    """Tell once, not test by test, that the GPU which was asked for is not here.

    Where only a file names the GPU, as in a repository with other tests, those still run.

    Raises:
        pytest.UsageError: It is not, or cannot be read.
    """
    try:
        source.require_gpu(chosen.gpu)
    except JoulesError as error:
        remedy = "To go on without it, choose another source (--joules-source)."
        raise pytest.UsageError(f"pytest-joules: {error} {remedy}") from None
