"""A cluster that another process drives: what happens to Ray happens there.

Ray's calls may wait for minutes where no signal is heeded, and its core ends the process whose
cluster is gone. So ``driver`` makes them, and this side waits for its answers, watches the
cluster's head meanwhile, and ends that process where the head is lost or Ray hangs.
"""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from pytest_joules.errors import FleetError, JoulesError, is_expected
from pytest_joules.fleet import knock, lines
from pytest_joules.fleet.cluster import END_S, Heard, Held, NodeInfo

__tracebackhide__ = is_expected

_JOIN_S = 300.0
_ANSWER_S = 60.0
"""Seconds beyond its own time that any call of Ray may take."""

_LOOK_S = 1.0
_EXIT_S = 10.0
_TAIL_BYTES = 4000
_REMEDY = "Go on with --joules-resume."


@dataclass(kw_only=True, eq=False)
class DrivenCluster:
    """A Ray cluster, through a process of its own."""

    process: "subprocess.Popen[str]"
    log: IO[bytes]
    """What that process and Ray in it complain of."""

    answer_s: float = _ANSWER_S
    clock: Callable[[], float] = time.monotonic
    watch: knock.Watch | None = None
    """Of the head, once the cluster is joined."""

    _answers: "queue.SimpleQueue[str | None]" = field(default_factory=queue.SimpleQueue)
    _reader: threading.Thread = field(init=False)
    _asked: int = 0
    _held: int = 0
    _cells: dict[int, Held] = field(default_factory=dict)
    _lost: JoulesError | None = None
    """Why nothing can be asked any more."""

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)

    @classmethod
    def connect(cls, address: str, *, is_virtual: bool) -> "DrivenCluster":
        """Let a process join a cluster, or start one; raises as ``RayCluster.connect``."""
        log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the cluster
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest_joules.fleet.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for pytest, which then says what to do
        )
        made = cls(process=process, log=log)
        made._reader.start()
        try:
            asked = {"address": address, "is_virtual": is_virtual}
            head = made._ask(_JOIN_S, join=asked)
        except BaseException:
            made.close()
            raise
        made.watch = knock.Watch(target=head)
        return made

    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(NodeInfo(**node) for node in self._ask(nodes={}))

    def hold(self, node: NodeInfo, num_gpus: int) -> Held:
        self._held += 1
        held = Held(node=node, num_gpus=num_gpus, actor=self._held)
        self._cells[self._held] = held
        asked = {"cell": self._held, "node": asdict(node), "num_gpus": num_gpus}
        self._ask(hold=asked)
        return held

    def say(self, held: Held, line: str) -> None:
        self._ask(say={"cell": held.actor, "line": line})

    def hear(self, timeout_s: float) -> Mapping[Held, Heard]:
        heard = self._ask(timeout_s, hear=timeout_s)
        return {
            self._cells[number]: Heard(lines=tuple(what["lines"]), lost=what["lost"])
            for number, what in heard
        }

    def free(self, cells: Iterable[Held]) -> None:
        numbers = [held.actor for held in cells]
        for number in numbers:
            del self._cells[number]
        self._ask(END_S, free=numbers)

    def close(self) -> None:
        try:
            # Without the head every farewell waits; nodes miss it, too, and end their cells.
            if self._lost is None and self.watch is not None:
                with suppress(JoulesError):  # all that was to be measured has been
                    self._ask(END_S, close={})
            self._hang_up()
            self._reader.join(_EXIT_S)
        finally:
            self._lost = FleetError("this session has left its fleet.")
            self._kill()
            self.log.close()

    def _ask(self, own_s: float = 0.0, **order: Any) -> Any:
        """Give an order and wait for what comes of it.

        Args:
            own_s: What it may take by itself.
            order: The order.

        Raises:
            JoulesError: What the order came to.
            FleetError: The head was lost, or the process, or Ray in it does not answer.
        """
        if self._lost is not None:
            raise self._lost.with_traceback(None)
        try:
            return self._answer(self._give(order), self.clock() + own_s + self.answer_s)
        except _Gone as gone:
            self._kill()
            self._lost = gone.why
        raise self._lost

    def _give(self, order: Mapping[str, Any]) -> int:
        self._asked += 1
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it ended, and its answers tell how
            self.process.stdin.write(lines.line({"id": self._asked, **order}))
            self.process.stdin.flush()
        return self._asked

    def _answer(self, number: int, until_s: float) -> Any:
        while True:
            self._require_head()
            try:
                text = self._answers.get(timeout=_LOOK_S)
            except queue.Empty:
                if self.clock() < until_s:
                    continue
                raise _Gone(
                    FleetError(f"Ray has not answered for too long. {_REMEDY}")
                ) from None
            if text is None:
                raise self._ended()
            told = lines.message(text)
            if told["id"] == number:  # else Ctrl-C came while somebody waited for it
                break
        if "error" in told:
            raise lines.error_from(told["error"])
        return told["value"]

    def _require_head(self) -> None:
        try:
            if self.watch is not None:
                self.watch.require_head()
        except FleetError as error:
            raise _Gone(error) from None

    def _ended(self) -> "_Gone":
        self._kill()
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - _TAIL_BYTES))
        said = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return _Gone(
            FleetError(
                f"the process that drives Ray ended with status {self.process.returncode} "
                f"({said[-1] if said else 'it said nothing'}). {_REMEDY}"
            )
        )

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as answers:
            for text in answers:
                self._answers.put(text)
        self._answers.put(None)

    def _hang_up(self) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def _kill(self) -> None:
        """End it and what it left, such as a cluster that it had started here."""
        if self.process.returncode is None:  # then its number is nobody else's yet
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._hang_up()


class _Gone(Exception):
    """Nothing can be asked any more."""

    def __init__(self, why: JoulesError) -> None:
        super().__init__(why)
        self.why = why
