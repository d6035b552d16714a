"""Energy regression tests for generative-AI inference: joules per token, image and video.

The names below, ``errors`` and ``testing`` are the public API; everything else may move. They
load on first use: a repository that merely has the plugin installed imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_joules.version import __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time ``__getattr__`` answers
    from pytest_joules import expect, strategies
    from pytest_joules.expect import best
    from pytest_joules.point import Point
    from pytest_joules.result import Result
    from pytest_joules.run.bench import EnergyBench
    from pytest_joules.tasks import Lengths
    from pytest_joules.verdict import Verdict

__all__ = [
    "EnergyBench",
    "Lengths",
    "Point",
    "Result",
    "Verdict",
    "__version__",
    "best",
    "expect",
    "strategies",
]

_HOMES = {
    "EnergyBench": "run.bench",
    "Lengths": "tasks",
    "Point": "point",
    "Result": "result",
    "Verdict": "verdict",
    "best": "expect",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"pytest_joules.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"pytest_joules.{name}")
    raise AttributeError(f"module 'pytest_joules' has no attribute {name!r}")
