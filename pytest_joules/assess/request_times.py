"""Where requests spent their time in the server: preparing, waiting or running.

The three are means of the same requests, those that finished between the first and the last
sample in a window, and add up to the whole::

    whole          from the API server's taking the request to its last token
    queue          from the engine core's taking it to its first scheduling
    inference      from its first scheduling to its last token
    preprocessing  the rest: whole - queue - inference

vLLM starts the clock of the first before it fetches, decodes and resizes images, applies the
model's processor, and tokenizes; the engine core's clock starts after that. So the rest is
what the CPU does for a request, and its waiting for a free core or thread, plus the hand-over
to the engine core and back. It is wall time, not CPU time. Receiving and parsing the HTTP
request comes before the clock and is not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_joules.steady_state import Window
from pytest_joules.trace import ServerSample


@dataclass(frozen=True, kw_only=True)
class RequestTimes:
    """Mean times of finished requests, in seconds."""

    whole_s: float
    queue_s: float
    inference_s: float

    @property
    def preprocessing_s(self) -> float:
        """Return what is neither waiting nor running; clocks differ, so never below zero."""
        return max(0.0, self.whole_s - self.queue_s - self.inference_s)


def request_times(samples: Sequence[ServerSample], window: Window) -> RequestTimes | None:
    """Return the mean times of requests that finished in a window.

    ``None`` where none did, or where the server does not tell them.
    """
    inside = [sample for sample in samples if window.holds(sample.time_s)]
    if not inside:
        return None
    number = inside[-1].finished - inside[0].finished
    sums = [_rise(inside, name) for name in ("e2el_s", "queue_s", "inference_s")]
    if number <= 0 or None in sums:
        return None
    whole, queue, inference = (each / number for each in sums if each is not None)
    return RequestTimes(whole_s=whole, queue_s=queue, inference_s=inference)


def _rise(samples: Sequence[ServerSample], name: str) -> float | None:
    first, last = getattr(samples[0], name), getattr(samples[-1], name)
    return None if first is None or last is None else float(last - first)
