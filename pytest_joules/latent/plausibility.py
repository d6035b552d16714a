"""A measured result beside the model: measured over predicted, and what that suggests.

It never decides anything: the model is wrong by tens of percent on what it has not seen.
"""

from pytest_joules.errors import InvalidPoint
from pytest_joules.latent.fitted import known_error
from pytest_joules.latent.prediction import Prediction, predict
from pytest_joules.result import Result

IMPLAUSIBLE = "implausible"
_STARVED = 0.9
_NEAR = 0.15


def beside_model(result: Result) -> str:
    """Say how a result compares with the model; empty where nothing can be predicted."""
    expected = _expected(result)
    return _text(result, expected) if expected else ""


def far_from_model(result: Result) -> str:
    """Say it of a result outside the model's 90 % band; empty inside, or without one."""
    expected = _expected(result)
    error = known_error(result.gpu, result.point.task)
    if expected is None or error is None:
        return ""
    ratio = result.energy_per_work_unit_j / expected.energy_per_work_unit_j
    if error.low <= ratio <= error.high:
        return ""
    band = f"90 of 100 such results lie between {error.low:.2f}x and {error.high:.2f}x"
    return f"{_text(result, expected)}; {band}."


def _expected(result: Result) -> Prediction | None:
    try:
        return predict(result.point, result.gpu)
    except InvalidPoint:
        # Nothing to compare with: a model or GPU that the catalog does not describe.
        return None


def _text(result: Result, expected: Prediction) -> str:
    ratio = result.energy_per_work_unit_j / expected.energy_per_work_unit_j
    unit = result.point.work_unit
    told = f"energy per {unit} is {ratio:.2f}x the latent model's"
    hint = suggestion(result, expected)
    return f"{told}: {hint}" if hint else told


def suggestion(result: Result, expected: Prediction) -> str:
    """Say what a distance from the model suggests; empty where it is near."""
    ratio = result.energy_per_work_unit_j / expected.energy_per_work_unit_j
    if abs(ratio - 1) < _NEAR:
        return ""
    batch = result.mean_batch_size
    if batch is not None and batch < _STARVED * expected.mean_batch_size:
        return f"{batch:.0f} requests were in flight where {expected.mean_batch_size:.0f} fit"
    power = result.power_w / expected.power_w
    pace = result.throughput_work_units_per_s / expected.throughput_work_units_per_s
    if ratio > 1 and power < 1 and pace < 1:
        return f"the GPU waited: {pace:.2f}x the pace at {power:.2f}x the power"
    if ratio > 1 and power >= 1 and pace > 1 - _NEAR:
        return f"more power for the same pace ({power:.2f}x): other kernels, clocks or GPUs"
    if ratio > 1:
        return f"more work for each {result.point.work_unit}: {pace:.2f}x the pace"
    return f"{pace:.2f}x the pace at {power:.2f}x the power: better kernels, or less work"
