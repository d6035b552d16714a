"""The sampling error of latencies, as a result keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float | None]
"""Low and high; ``None`` where the sample is too small to bound it from above."""


@dataclass(frozen=True, kw_only=True)
class LatencyIntervals:
    """The sampling error of a ``Latency``: where the same percentile of all requests lies.

    Only a sample of the requests streams. Each interval holds the percentile of all requests
    of this launch, in seconds, with 95 % confidence (``docs/method.md``).
    """

    num_itl_requests: int
    """Streamed requests with at least one gap between tokens in the window."""

    num_ttft_requests: int
    """Requests with a known first token in the window."""

    median_itl_s: Interval | None = None
    p90_itl_s: Interval | None = None
    p95_itl_s: Interval | None = None
    p99_itl_s: Interval | None = None
    median_ttft_s: Interval | None = None
    p99_ttft_s: Interval | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LatencyIntervals":
        """Rebuild it.

        Raises:
            TypeError: A key is unknown or missing.
            ValueError: An interval is none.
        """
        made = dict(values)
        for name, found in values.items():
            if isinstance(found, list):
                if not _is_interval(found):
                    raise ValueError(f"{name} is {found}; it is a low and a high or null")
                made[name] = tuple(found)
        return cls(**made)


def _is_interval(values: list[float | None]) -> bool:
    if len(values) != 2 or values[0] is None:  # noqa: PLR2004  two ends
        return False
    return values[1] is None or values[0] <= values[1]
