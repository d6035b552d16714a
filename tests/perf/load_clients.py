"""The load generators that are compared: how each is started, and when it says to have read.

``python -m tests.perf.load_clients PORT BATCH NUM MEAN FOLDER`` offers our own load.
"""

import json
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pytest_joules.load import Limits, Target, offer
from pytest_joules.point import Point
from pytest_joules.prompts import prompt_ids
from pytest_joules.tasks import Lengths
from pytest_joules.trace import RequestTrace

PROMPT = 200
SPREAD = 0.3
"""Output lengths' standard deviation over their mean, where a client lets us choose it."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every client is asked to offer."""

    port: int
    batch: int
    num_requests: int
    mean_tokens: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def point(self) -> Point:
        return Point(
            model="served",
            batch_size=self.batch,
            num_requests=self.num_requests,
            input_tokens=Lengths(mean=PROMPT, cv=0.3, longest=4 * PROMPT),
            output_tokens=Lengths(
                mean=self.mean_tokens, cv=SPREAD, shortest=2, longest=3 * self.mean_tokens
            ),
        )


class NoSideBySide:
    """Our engine's place in ``offer``: nothing to watch, the script does."""

    def require_running(self) -> None: ...

    def require_healthy(self) -> None: ...


def offer_ours(load: Load, folder: Path) -> None:
    """Offer a load exactly as a measurement does, and keep its trace."""
    target = Target(host="127.0.0.1", port=load.port, model="served", api_key="secret")
    limits = Limits(min_window_s=1.0, deadline_s=200.0)
    trace = offer(target, load.point, limits, folder=folder, server=NoSideBySide())
    told = {
        "errors": sum(1 for r in trace.requests if r.error),
        "output_tokens": sum(r.output_tokens for r in trace.requests),
        "cpu_s": trace.client_cpu_s,
        "lag_s": trace.client_lag_s,
        "streams": {_key(load.point, r): _times(r) for r in trace.requests if r.itl_s},
    }
    (folder / "told.json").write_text(json.dumps(told))


def _key(point: Point, request: RequestTrace) -> str:
    return ",".join(map(str, prompt_ids(point.seed, request.index, request.prompt_tokens)))


def _times(request: RequestTrace) -> list[float]:
    return list(accumulate(request.itl_s, initial=request.first_token_s or 0.0))


if __name__ == "__main__":
    port, batch, number, mean = map(int, sys.argv[1:5])
    asked = Load(port=port, batch=batch, num_requests=number, mean_tokens=mean)
    offer_ours(asked, Path(sys.argv[5]))
