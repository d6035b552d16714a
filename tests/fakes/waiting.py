"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return once the condition holds; fail when it does not come to hold at all."""
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come to hold"
        time.sleep(0.01)
