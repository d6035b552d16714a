"""The parent of a worker: starts it, gives orders, hears events, never waits without end.

The protocol is described in ``engines.worker``. The worker's death, an exception of one of
its ranks, and silence are errors that hold the end of its log.
"""

import json
import os
import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

from pytest_joules.engines import logs
from pytest_joules.engines.worker.channel import EVENTS, ORDERS
from pytest_joules.errors import LaunchError, ServerDied, is_expected
from pytest_joules.process import Supervised, supervised

__tracebackhide__ = is_expected

SCRIPT: Final = str(Path(__file__).with_name("worker"))
"""What the stack's interpreter runs, with the launch's folder as its argument."""

_LOOK_S: Final = 0.25
_DYING_S: Final = 20.0
_CHUNK: Final = 1 << 16
_TAIL_LINES: Final = 30
_LOOKED_AT_LINES: Final = 10_000

Event = Mapping[str, Any]


class Worker:
    """One running worker of one or more ranks."""

    def __init__(self, child: Supervised, folder: Path, num_ranks: int) -> None:
        self._child, self._ranks = child, range(num_ranks)
        self._unread = dict.fromkeys(self._ranks, b"")
        self._is_silent = False
        self._pipes = ExitStack()
        self._events = {self._opened(folder, EVENTS, rank): rank for rank in self._ranks}
        self._orders = [self._opened(folder, ORDERS, rank) for rank in self._ranks]

    def _opened(self, folder: Path, name: str, rank: int) -> int:
        # Reading and writing: neither waits for the other side, nor ends before it comes.
        pipe = os.open(folder / name.format(rank=rank), os.O_RDWR | os.O_NONBLOCK)
        self._pipes.callback(os.close, pipe)
        return pipe

    @property
    def process_ids(self) -> frozenset[int]:
        """Every process of it, launcher and ranks alike."""
        return self._child.pids()

    def await_ready(self, deadline_s: float) -> dict[int, Event]:
        """Wait until every rank has built its engine; return what they said of it, by rank.

        Raises:
            LaunchError: It ended, a rank failed, or the deadline passed.
        """
        try:
            return {event["rank"]: event for event in self._heard("ready", deadline_s)}
        except ServerDied as error:
            raise LaunchError(str(error)) from None

    def ask(self, order: Mapping[str, Any], *, silence_s: float) -> Iterator[Event]:
        """Give every rank an order; yield events, each with its ``rank``, until all are done.

        Args:
            order: What to run.
            silence_s: Longest time without any event.

        Raises:
            ServerDied: It ended, a rank failed, or it was silent for too long, so that
                nothing can be asked of it any more; the message holds the end of its log.
        """
        line = json.dumps(order).encode() + b"\n"
        for pipe in self._orders:
            os.write(pipe, line)
        for event in self._heard("done", silence_s):
            if event["event"] != "done":
                yield event

    def end(self) -> None:
        """Let it tear down and end by itself, for a while; whoever started it ends the rest."""
        self._pipes.close()
        if not self._is_silent:  # a hanging rank would not end, however long one waits
            self._child.wait(_DYING_S)

    def _heard(self, last: str, silence_s: float) -> Iterator[Event]:
        """Yield events until each rank has said ``last``."""
        missing, heard_s = set(self._ranks), monotonic()
        while missing:
            events = list(self._read())
            if not events:
                self._require_alive()
                self._require_before(heard_s + silence_s, silence_s, missing)
                continue
            heard_s = monotonic()
            for event in events:
                if event["event"] == "error":
                    raise self._failed(event)
                if event["event"] == last:
                    missing.discard(event["rank"])
                yield event

    def _read(self) -> Iterator[Event]:
        for pipe in select.select(list(self._events), [], [], _LOOK_S)[0]:
            rank = self._events[pipe]
            data = os.read(pipe, _CHUNK)
            *lines, self._unread[rank] = (self._unread[rank] + data).split(b"\n")
            for line in lines:
                yield {**json.loads(line), "rank": rank}

    def _require_alive(self) -> None:
        code = self._child.returncode()
        if code is None:
            return
        for event in self._read():
            if event["event"] == "error":
                raise self._failed(event)
        raise ServerDied(self._story(f"the worker {logs.ended(code)}."))

    def _require_before(self, end_s: float, silence_s: float, missing: set[int]) -> None:
        if monotonic() > end_s:
            self._is_silent = True
            ranks = ", ".join(map(str, sorted(missing)))
            raise ServerDied(
                self._story(
                    f"rank {ranks} of the worker said nothing for {silence_s:.0f} s, so it is "
                    "taken to hang; it is ended."
                )
            )

    def _failed(self, event: Event) -> ServerDied:
        self._child.wait(_DYING_S)  # its log then holds the whole traceback
        return ServerDied(
            self._story(f"rank {event['rank']} of the worker failed: {event['text']}")
        )

    def _story(self, what: str) -> str:
        log = self._child.log_tail(_LOOKED_AT_LINES)
        own = logs.of_ranks(log).splitlines()[-_TAIL_LINES:]
        killed = [f"Cause: {each}." for each in logs.killed(log)]
        return "\n".join([what, *killed, f"The end of {self._child.log_path}:", *own])


@contextmanager
def started(
    argv: Sequence[str],
    job: Mapping[str, Any],
    *,
    env: Mapping[str, str],
    folder: Path,
    num_ranks: int = 1,
) -> Iterator[Worker]:
    """Start a worker; end all of it on leaving, after it had the chance to do so itself.

    Args:
        argv: The command up to the worker's script, such as the interpreter, or torchrun in
            the interpreter.
        job: What ``job.json`` gets.
        env: The whole environment.
        folder: The launch's own; gets job, pipes and ``worker.log``.
        num_ranks: Ranks that will come.

    Raises:
        LaunchError: The command cannot be run, the folder cannot hold pipes, or a process
            could not be ended.
    """
    _make_pipes(folder, num_ranks)
    (folder / "job.json").write_text(json.dumps(dict(job), indent=1), encoding="utf-8")
    command = [*argv, SCRIPT, str(folder.resolve())]
    with supervised(command, env=env, log_path=folder / "worker.log") as child:
        worker = Worker(child, folder, num_ranks)
        try:
            yield worker
        finally:
            worker.end()


def _make_pipes(folder: Path, num_ranks: int) -> None:
    try:
        for rank in range(num_ranks):
            for name in (EVENTS, ORDERS):
                os.mkfifo(folder / name.format(rank=rank), mode=0o600)
    except OSError as error:
        raise LaunchError(
            f"{folder} cannot hold named pipes ({error.strerror}), by which a worker is told "
            "what to run; run pytest on a local file system."
        ) from error
