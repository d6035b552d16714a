"""Lets a mock GPU draw power for the work that a real vLLM does."""

import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Self

from tests.fakes.mock_nvml import MockNvml

IDLE_W = 16.0
PERIOD_S = 0.05
SPENT_IN_S = 0.2
"""Over which time tokens are paid for: a server tells of them in bursts where it is busy."""

MOST_W = 600.0
"""No burst exceeds it: no GPU draws more than its power limit of 700 W."""

STEADY = {"idle_w": 0.75, "joules_per_token": 1.5}
"""Idle power of 1 % at 60 tokens/s: a machine that slows down by a third changes 0.4 %."""


class Follower:
    """Draws ``idle_w`` and ``joules_per_token`` for each token generated meanwhile.

    The running batch over the step time is the token rate, so power follows the batch that
    really runs. Energy per token depends on how busy this machine is by the idle share only:
    ``IDLE_W`` beside 50 W of work shows a starved GPU, ``STEADY`` judges other changes.
    """

    def __init__(
        self,
        mock: MockNvml,
        model: Path,
        *,
        idle_w: float = IDLE_W,
        joules_per_token: float = 0.8,
    ) -> None:
        self._idle_w, self.joules_per_token = idle_w, joules_per_token
        self.running = 0.0
        self._mock, self._model = mock, str(model)
        self._port: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        """Spend what the tokens cost, however late the server tells of them."""
        seen: float | None = None
        owed_j = power_w = 0.0
        since_s = time.monotonic()
        while not self._stop.wait(PERIOD_S):
            tokens, now_s = self._tokens(), time.monotonic()
            owed_j -= power_w * (now_s - since_s)
            if tokens is not None and seen is not None and tokens >= seen:
                owed_j += self.joules_per_token * (tokens - seen)
            seen, since_s = tokens, now_s
            power_w = min(MOST_W, max(0.0, owed_j) / SPENT_IN_S)
            self._mock.set_power(0, self._idle_w + power_w)

    def _tokens(self) -> float | None:
        port = self._port = self._port or self.port()
        if port is None:
            return None
        try:
            url = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(url, timeout=1) as answer:
                text = answer.read().decode()
        except OSError:
            self._port = None
            return None
        self.running = _value(text, "vllm:num_requests_running")
        return _value(text, "vllm:generation_tokens_total")

    def port(self) -> str | None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if self._model in words and "vllm.entrypoints.openai.api_server" in words:
                return words[words.index("--port") + 1]
        return None


def _value(text: str, name: str) -> float:
    found = re.search(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0
