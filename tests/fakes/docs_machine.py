"""The machine that the documentation's commands run on: a pytest plugin (``-p``).

The stack ``vllm-033`` draws 6 % more than every other, FP8 a fifth less, and launches vary a
little, so that the pages can show regressions and orderings.
"""

from pytest_joules.options.frozen import Options
from pytest_joules.plan import Stack
from pytest_joules.point import Point
from pytest_joules.sources.live import LiveSource
from pytest_joules.testing import FakeMachine, saturating_power, source_of

RISE, FP8 = 1.06, 0.8


def _power_w(stack: Stack, point: Point) -> float:
    risen = RISE if stack.name == "vllm-033" else 1.0
    return saturating_power(stack, point) * risen * (FP8 if point.precision == "fp8" else 1.0)


def pytest_joules_source(options: Options) -> LiveSource:
    machine = FakeMachine(gpu=options.gpu or "h200", launch_noise=0.002, power_w=_power_w)
    return source_of(machine, window_s=options.window)
