"""Keep exactly B requests in flight; a process of its own.

``python -m pytest_joules.load.generator JOB EVENTS`` reads a ``load.Job`` and writes one JSON
line an event, twice a second. SIGTERM closes all sockets and ends it.
"""

import gc
import json
import os
import resource
import signal
import sys
from collections import deque
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Final, TextIO

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.load import KEY_VARIABLE, Job
from pytest_joules.load.asks import asks
from pytest_joules.load.completions import Ask, Client
from pytest_joules.load.connection import Address, Sockets
from pytest_joules.load.words import in_words
from pytest_joules.steady_state import LoadSoFar
from pytest_joules.trace import RequestTrace

__tracebackhide__ = is_expected

_BURST: Final = 32
_SLEEP_S: Final = 0.1
"""Longest sleep where nothing happens."""

_UNHEARD_S: Final = 0.0005
"""How long it works at most until it looks again at what has come: a look costs a few us."""

_EVENTS: Final = 16
_FLUSH_S: Final = 0.5
_SPARE_FILES: Final = 64


class ClosedLoop:
    """Decides which request comes next, and remembers what came of each."""

    def __init__(self, job: Job, out: TextIO) -> None:
        self._job, self._out = job, out
        self._asks = asks(job)
        self._unwritten: list[dict[str, Any]] = []
        self._flushed_s = 0.0
        self._issued = 0
        self._finished = 0
        self._failed_in_a_row = 0
        self._so_far = LoadSoFar(job.min_window_s)
        self.given_up = ""

    @property
    def has_answers(self) -> bool:
        """Whether any request has ended."""
        return self._finished > 0

    def record(self, event: str, **values: Any) -> None:
        """Note one event; some are written together, which costs less."""
        self._unwritten.append({"event": event, **values})
        if len(self._unwritten) >= _EVENTS:
            self.write()

    def write(self) -> None:
        """Write what is noted."""
        events, self._unwritten = self._unwritten, []
        self._out.write("".join(json.dumps(event) + "\n" for event in events))

    def flush(self, now_s: float) -> None:
        """Let the disk have what was recorded, twice a second: each write costs a moment."""
        if now_s >= self._flushed_s + _FLUSH_S:
            self.write()
            self._out.flush()
            self._flushed_s = now_s

    def next(self) -> Ask | None:
        """Return what to send now; ``None`` when the queue has run dry."""
        if self.given_up or self._is_enough():
            return None
        following = next(self._asks, None)
        if following is not None:
            self._issued += 1
        return following

    def _is_enough(self) -> bool:
        point = self._job.point
        return (
            point.num_requests is None
            and self._issued >= 3 * point.batch_size
            and self._so_far.is_long_enough
        )

    def take(self, answered: RequestTrace) -> None:
        """Remember how a request ended."""
        self.record("done", **vars(answered))
        self._finished += 1
        self._so_far.take(answered)
        self._failed_in_a_row = self._failed_in_a_row + 1 if answered.error else 0
        limit = max(8, self._job.point.batch_size)
        if self._failed_in_a_row >= limit and not self.given_up:
            self.given_up = (
                f"{self._failed_in_a_row} requests failed one after the other, the last with: "
                f"{answered.error}"
            )


class _Slots:
    """Keeps one request in flight in each of its slots, and measures how late it is.

    All that came is stamped before any of it is read, and what comes while answers are read and
    requests sent is stamped between two of them. It is late where it does not look for long, or
    oversleeps; but the burst of first requests, until the first answer, belongs to the ramp-up.
    """

    def __init__(self, loop: ClosedLoop, address: Address, number: int) -> None:
        self._loop = loop
        self._sockets: Sockets[Client] = Sockets()
        self._clients = [Client(address, self._sockets) for _ in range(number)]
        self._heard: deque[Client] = deque()
        self._looked_s = monotonic()
        self._had_answers = False
        self.lag_s = 0.0

    @property
    def are_busy(self) -> bool:
        """Whether any request is in flight, or was heard to end: it may have no socket then."""
        return len(self._sockets) > 0 or len(self._heard) > 0

    def fill(self) -> None:
        """Send the first requests, and react meanwhile: thousands at once take a while."""
        for number, client in enumerate(self._clients, 1):
            self._send(client)
            if number % _BURST == 0:
                self.turn(0.0)

    def turn(self, timeout_s: float = _SLEEP_S) -> float:
        """Wait for whatever happens next, and react to it; return the time of the last look."""
        self._look(0.0 if self._heard else timeout_s)
        for _ in range(len(self._heard)):
            client = self._heard.popleft()
            answered = client.read()
            if answered is not None:
                self._loop.take(answered)
                self._send(client)
            if monotonic() - self._looked_s > _UNHEARD_S:
                self._look(0.0)
        return self._looked_s

    def _look(self, timeout_s: float) -> None:
        began_s = monotonic()
        ready = self._sockets.ready(timeout_s)
        now_s = monotonic()
        self._heard += [client for client in ready if client.hear()]
        if self._had_answers:
            overslept_s = now_s - began_s - timeout_s
            self.lag_s = max(self.lag_s, began_s - self._looked_s, overslept_s)
        self._looked_s, self._had_answers = now_s, self._loop.has_answers

    def _send(self, client: Client) -> None:
        while (following := self._loop.next()) is not None:
            failed = client.send(following)
            if failed is None:
                return
            self._loop.take(failed)
        client.close()

    def close(self) -> None:
        """Close all sockets at once."""
        for client in self._clients:
            client.close()


def _offer(job: Job, loop: ClosedLoop, slots: _Slots) -> None:
    deadline_s = monotonic() + job.deadline_s
    slots.fill()
    while slots.are_busy:
        now_s = slots.turn()
        loop.flush(now_s)
        if now_s > deadline_s:
            loop.given_up = f"it was not finished after its deadline of {job.deadline_s:g} s."
            return


def run(job: Job, api_key: str, out: TextIO) -> ClosedLoop:
    """Offer the whole load; all sockets are closed when this returns."""
    loop = ClosedLoop(job, out)
    slots = _Slots(loop, Address.of(job.url, api_key), job.point.batch_size)
    cpu_s = process_time()
    loop.record("start", time_s=monotonic())
    try:
        _offer(job, loop, slots)
    finally:
        slots.close()
        loop.write()
    ended_s = monotonic()
    cpu_s = process_time() - cpu_s
    loop.record("end", time_s=ended_s, cpu_s=cpu_s, lag_s=slots.lag_s, given_up=loop.given_up)
    loop.write()
    return loop


def require_files(batch_size: int) -> None:
    """Allow one socket a request; the usual soft limit is 1,024.

    Raises:
        LoadError: The hard limit is too low.
    """
    needed = batch_size + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise LoadError(
            f"batch_size={batch_size} needs {needed} open files, but the limit is {hard}; "
            f"raise it with 'ulimit -Hn {needed}' or in /etc/security/limits.conf."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def main(job_path: str, events_path: str) -> int:
    """Offer the load of a job file."""
    job = Job.from_json(Path(job_path).read_text(encoding="utf-8"))
    require_files(job.point.batch_size)
    key = os.environ.get(KEY_VARIABLE, "")
    # A collection would stop the loop's clock, and finds nothing: answers hold no cycles.
    gc.disable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with Path(events_path).open("w", encoding="utf-8") as out:
        run(job, key, out)
    return 0


if __name__ == "__main__":
    sys.exit(in_words(lambda: main(*sys.argv[1:])))
