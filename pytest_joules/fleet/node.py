"""The process on a node: measures what it is told, as pytest would on that machine.

``python -m pytest_joules.fleet.node`` reads one JSON message a line and answers in kind:

``setup``     the options, where the source comes from, the session; answers ``ready``
``identify``  a launch; answers ``identity``, the hardware that it would run on
``survey``    a launch; answers ``surveyed``, hardware and software that it would run on
``launch``    a launch and its frozen work; answers ``waits`` while others lease the GPUs (empty
              once they do not), ``load`` and ``energy_j`` while it runs, ``outcome`` for each
              point, and ``ended``. One that ``asks`` stops after each point
``go_on``     whether a launch that stopped there measures its next point, or ends

Its first line is ``hello``: what it is, before anything is asked of it. An ``error`` answers
what cannot be done. ``lost`` says that this node cannot go on, such as
with a full disk, and is the last line. The end of the input, however it comes about, ends the
launch and every process of it.
"""

import errno
import importlib
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from pytest_joules.errors import ConfigurationError, FormatError, JoulesError
from pytest_joules.fleet import lines, wire
from pytest_joules.measure import Failure, FrozenWork
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.progress import Event, LeaseEnds, LeaseWaits, LoadBegins
from pytest_joules.sources import Source
from pytest_joules.sources.choice import chosen_source
from pytest_joules.sources.live import LiveSource
from pytest_joules.sources.simulated import SimulatedSource
from pytest_joules.version import __version__

ROOM_BYTES = 32 << 20
"""Free space without which no launch is begun: logs and readings must be written."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_HEARTBEAT_S = 2.0

Tell = Callable[..., None]


class Node:
    """Answers messages, one after the other."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._source: Source | None = None
        self._energy_j: Callable[[], float | None] = lambda: None
        self._running: Generator[None, None, None] | None = None
        """A launch that waits to hear whether it may go on."""

    def answer(self, message: Mapping[str, Any]) -> None:
        """Do what a message asks.

        Raises:
            OSError: The disk is full, or the like.
        """
        try:
            match message:
                case {"setup": told}:
                    self._set_up(told)
                case {"identify": told}:
                    launch = wire.launch_from(told)
                    self._tell(identity=asdict(self._required().identity(launch)))
                case {"survey": told}:
                    self._survey(wire.launch_from(told))
                case {"launch": told, "frozen": frozen, "asks": asks}:
                    launch, work = wire.launch_from(told), wire.frozen_from(frozen)
                    self._running = self._launched(launch, work)
                    self._go_on(to_the_end=not asks)
                case {"go_on": True}:
                    self._go_on()
                case {"go_on": False}:
                    self.close()
                case _:
                    raise FormatError(f"the session said {message!r}, which is no order.")
        except JoulesError as error:
            require_room(Path.cwd())
            self._tell(error=lines.error_json(error))

    def _set_up(self, told: Mapping[str, Any]) -> None:
        require_room(Path.cwd())
        options = wire.options_from(told["options"])
        made = _source_of(told["maker"], options) if told["maker"] else chosen_source(options)
        self._source = _of_session(made, told["session"], self._hear)
        self._source.require_gpu(options.gpu)
        self._tell(ready={})

    def _survey(self, launch: Launch) -> None:
        identity = self._required().identity(launch)  # first: it costs nothing to lack a board
        context = self._required().context(launch)
        self._tell(surveyed=wire.surveyed_json(identity, context))

    def close(self) -> None:
        """End a launch that waits, and every process of it."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def _go_on(self, *, to_the_end: bool = False) -> None:
        """Measure one point of the launch, or all that are left."""
        if self._running is None:
            raise FormatError("the session let a launch go on, but none waits.")
        for _ in self._running:
            if not to_the_end:
                return
        self._running = None

    def _launched(
        self, launch: Launch, frozen: Mapping[Point, FrozenWork]
    ) -> Generator[None, None, None]:
        """Measure a launch; stop after each point but the last, and end where it is closed."""
        source = self._required()
        require_room(Path.cwd())
        started_s: float | None = None
        error: dict[str, str] | None = None
        try:
            with self._beating(), source.leased(launch) as placed:
                started_s = source.clock()  # waiting for others costs no GPU minutes
                yield from self._measured(placed, frozen, started_s)
        except GeneratorExit:
            pass  # what is not measured yet shall not be
        except JoulesError as caught:
            require_room(Path.cwd())
            error = lines.error_json(caught)
        elapsed_s = 0.0 if started_s is None else source.clock() - started_s
        self._tell(ended={"elapsed_s": elapsed_s, "error": error})

    def _measured(
        self, launch: Launch, frozen: Mapping[Point, FrozenWork], started_s: float
    ) -> Generator[None, None, None]:
        source, num_left = self._required(), len(launch.points)
        with closing(source.outcomes(launch, frozen)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Failure):
                    require_room(Path.cwd())  # it may have failed for nothing else
                elapsed_s, num_left = source.clock() - started_s, num_left - 1
                self._tell(outcome=wire.outcome_json(outcome), elapsed_s=elapsed_s)
                if num_left:
                    yield

    def _required(self) -> Source:
        if self._source is None:
            raise FormatError("the session gave an order before it said who it is.")
        return self._source

    def _hear(self, event: Event) -> None:
        if isinstance(event, LeaseWaits):
            self._tell(waits=event.text)
        if isinstance(event, LeaseEnds):
            self._tell(waits="")
        if isinstance(event, LoadBegins):
            self._energy_j = event.energy_j
            point = event.point.as_json()
            self._tell(load={"point": point, "min_window_s": event.min_window_s})

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Tell every few seconds what the GPUs have drawn."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_HEARTBEAT_S):
                self._tell(energy_j=self._energy_j())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._energy_j = lambda: None


def _source_of(maker: str, options: Any) -> Source:
    """Let an installed pytest plugin make the source.

    Raises:
        ConfigurationError: It is not installed here, or makes none.
    """
    try:
        made: Source | None = importlib.import_module(maker).pytest_joules_source(options)
    except ImportError as error:
        raise ConfigurationError(
            f"the source comes from the plugin {maker!r}, which cannot be imported here "
            f"({error}); install it on every node."
        ) from None
    if made is None:
        raise ConfigurationError(f"the plugin {maker!r} makes no source for these options.")
    return made


def _of_session(source: Source, session: str, say: Callable[[Event], None]) -> Source:
    """Let results name the session that asked, and loads be heard of."""
    if isinstance(source, SimulatedSource):
        clean, changed = (_named(each, session) for each in (source.clean, source.changed))
        return replace(source, clean=clean, changed=changed)
    return _named(source, session).saying(say) if isinstance(source, LiveSource) else source


def _named(source: LiveSource, session: str) -> LiveSource:
    rigs = {engine: replace(rig, session=session) for engine, rig in source.rigs.items()}
    return replace(source, rigs=rigs)


def require_room(folder: Path, num_bytes: int = ROOM_BYTES) -> None:
    """Make sure that the disk has room, by taking it and giving it back.

    Raises:
        OSError: It has not.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)


def main() -> int:
    """Answer until the input ends; return the exit status."""
    answers = lines.own_stdout()
    lock = threading.Lock()

    def tell(**message: Any) -> None:
        with lock:
            answers.write(lines.line(message))
            answers.flush()

    orders = _orders()
    try:
        tell(hello={"version": __version__, "pid": os.getpid()})
        with closing(Node(tell)) as node:
            while (text := orders.get()) is not None:
                node.answer(lines.message(text))
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        tell(lost=f"the disk that holds {Path.cwd()} is full ({error.strerror})")
        return 1
    return 0


def _orders() -> "queue.SimpleQueue[str | None]":
    """Read orders beside the work; their end interrupts it."""
    orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, _interrupt)
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def read() -> None:
        for text in sys.stdin:
            orders.put(text)
        orders.put(None)
        signal.pthread_kill(main_thread, signal.SIGTERM)

    threading.Thread(target=read, daemon=True).start()
    return orders


def _interrupt(*_: object) -> NoReturn:
    # Once: what ends the engine must not be interrupted in turn.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
