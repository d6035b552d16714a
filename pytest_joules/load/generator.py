"""Keep exactly B requests in flight; a process of its own.

``python -m pytest_joules.load.generator JOB EVENTS`` reads a ``load.Job`` and writes one JSON
line an event, twice a second. SIGTERM closes all sockets and ends it.
"""

import asyncio
import gc
import json
import os
import resource
import signal
import sys
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Final, TextIO

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.load import KEY_VARIABLE, Job
from pytest_joules.load.asks import asks
from pytest_joules.load.completions import Ask, Client
from pytest_joules.load.connection import Address
from pytest_joules.load.words import in_words
from pytest_joules.steady_state import LoadSoFar
from pytest_joules.trace import RequestTrace

__tracebackhide__ = is_expected

_BURST: Final = 32
_BEAT_S: Final = 0.1
"""A loop that stands still is seen to within this; each beat wakes an idle processor."""

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


class _Heart:
    """Measures how late the event loop is, from the first answer on.

    The burst of first requests belongs to the ramp-up, which no window holds.
    """

    def __init__(self, loop: ClosedLoop) -> None:
        self._loop = loop
        self.lag_s = 0.0
        self._beat()

    def _beat(self) -> None:
        now_s = monotonic()
        self._loop.flush(now_s)
        self._due_s, self._counts = now_s + _BEAT_S, self._loop.has_answers
        self._timer = asyncio.get_running_loop().call_later(_BEAT_S, self._late)

    def _late(self) -> None:
        if self._counts:
            self.lag_s = max(self.lag_s, monotonic() - self._due_s)
        self._beat()

    def stop(self) -> None:
        self._timer.cancel()


async def _slot(loop: ClosedLoop, address: Address) -> None:
    client = Client(address)
    try:
        while (following := loop.next()) is not None:
            loop.take(await client.send(following))
    finally:
        client.close()


async def _offer(job: Job, loop: ClosedLoop, address: Address) -> None:
    try:
        async with asyncio.timeout(job.deadline_s), asyncio.TaskGroup() as slots:
            for number in range(1, job.point.batch_size + 1):
                slots.create_task(_slot(loop, address))
                if number % _BURST == 0:
                    await asyncio.sleep(0)  # thousands at once would stop the loop's clock
    except TimeoutError:
        loop.given_up = f"it was not finished after its deadline of {job.deadline_s:g} s."


async def run(job: Job, api_key: str, out: TextIO) -> ClosedLoop:
    """Offer the whole load; all sockets are closed when this returns."""
    address = Address.of(job.url, api_key)
    loop = ClosedLoop(job, out)
    heart = _Heart(loop)
    cpu_s = process_time()
    loop.record("start", time_s=monotonic())
    try:
        await _offer(job, loop, address)
    finally:
        heart.stop()
        loop.write()
        await asyncio.sleep(0)  # lets the loop close the sockets that were aborted
    ended_s = monotonic()
    cpu_s = process_time() - cpu_s
    loop.record("end", time_s=ended_s, cpu_s=cpu_s, lag_s=heart.lag_s, given_up=loop.given_up)
    loop.write()
    return loop


async def _run_until_told(job: Job, api_key: str, out: TextIO) -> None:
    work = asyncio.current_task()
    assert work
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    await run(job, api_key, out)


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
    with Path(events_path).open("w", encoding="utf-8") as out:
        try:
            asyncio.run(_run_until_told(job, key, out))
        except asyncio.CancelledError:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(in_words(lambda: main(*sys.argv[1:])))
