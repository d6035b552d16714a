"""Lets a mock GPU draw power for the work that a real vLLM does."""

import threading
import time
import urllib.request
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.mock_nvml import MockNvml

IDLE_W = 20.0
PERIOD_S = 0.1
SMOOTHED = 6
"""Polls over which the token rate is taken: tokens come in bursts on a busy CPU."""


class Follower:
    """Draws ``IDLE_W`` and ``joules_per_token`` for each token generated meanwhile.

    The running batch over the step time is the token rate, so power follows the batch that
    really runs, and energy per token does not depend on how busy this machine is.
    """

    def __init__(self, mock: MockNvml, model: Path) -> None:
        self.joules_per_token = 0.5
        self.running = 0.0
        self._mock, self._model = mock, str(model)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        recent: deque[tuple[float, float]] = deque(maxlen=SMOOTHED)
        while not self._stop.wait(PERIOD_S):
            now = self._tokens()
            if now is None or (recent and now[1] < recent[-1][1]):
                recent.clear()
            if now is not None:
                recent.append(now)
            self._mock.set_power(0, IDLE_W + self.joules_per_token * _rate(recent))

    def _tokens(self) -> tuple[float, float] | None:
        port = self.port()
        if port is None:
            return None
        try:
            url = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(url, timeout=1) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in ("vllm:generation_tokens_total", "vllm:num_requests_running")
        }
        self.running = values.get("vllm:num_requests_running", 0.0)
        return time.monotonic(), values.get("vllm:generation_tokens_total", 0.0)

    def port(self) -> str | None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if self._model in words and "vllm.entrypoints.openai.api_server" in words:
                return words[words.index("--port") + 1]
        return None


def _rate(seen: Sequence[tuple[float, float]]) -> float:
    if len(seen) < 2:
        return 0.0
    return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])
