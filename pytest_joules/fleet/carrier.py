"""The Ray actor that reserves GPUs on a node and runs ``fleet.node`` beside itself.

Ray ships this file's text to the nodes, so it must do with the standard library: a node
without pytest-joules then says so, instead of failing to load the actor. The measuring runs
in a process of its own: it shares nothing with Ray, and what ends the actor, be it Ray or a
dying node, closes its input, at which it ends every process of its engine.
"""

import getpass
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

_TAIL_BYTES = 4000


class Carrier:
    """Starts the process, passes lines on."""

    def __init__(self, session: str, *, sees_all: bool) -> None:
        """Start it; ``sees_all`` leaves the choice of GPUs to it, for looking only."""
        root = Path(tempfile.gettempdir()) / f"pytest-joules-{getpass.getuser()}"
        self._folder = root / session
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = self._folder / f"node-{os.getpid()}.log"
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        environment = dict(os.environ)
        if sees_all:
            environment.pop("CUDA_VISIBLE_DEVICES", None)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest_joules.fleet.node"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env=environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._process.stdout.close()
        told = {"status": self._process.wait(), "said": self._tail()}
        self._lines.put(json.dumps({"died": told}) + "\n")

    def _tail(self) -> str:
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace").strip()

    def say(self, line: str) -> None:
        """Pass a line to the process."""
        assert self._process.stdin
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it ended, and ``hear`` tells how

    def hear(self, timeout_s: float) -> list[str]:
        """Return what it said since; wait for something, but not for ever."""
        lines = []
        try:
            lines.append(self._lines.get(timeout=timeout_s))
            while True:
                lines.append(self._lines.get_nowait())
        except queue.Empty:
            return lines

    def end(self, timeout_s: float) -> bool:
        """Let it end its engine; tell whether it is gone, of which then nothing is left."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._reader.join(timeout_s)  # it ends with the process
        if self._reader.is_alive():
            return False
        self._log.unlink(missing_ok=True)
        with suppress(OSError):  # others' logs, or what it was asked to keep
            self._folder.rmdir()
        return True
