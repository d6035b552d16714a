"""Client CPU per million tokens, lag of receipt and achieved batch: ours beside three others.

``python -m tests.perf.load_generator [--vllm PYTHON] [--guidellm PYTHON] [--aiperf PYTHON]``
offers the same closed loop to one mock server (``load_server``, one token a step for every
request), one client after the other: 256 in flight at 20 ms a token, then 3,072 at 51.2 ms,
which are 60,000 tokens a second. The client and all its processes have core 1, the server and
this script core 0. Loops of the lowest priority (SCHED_IDLE) keep both cores awake, as other
work does on a busy machine: an idle virtual core takes up to three times as long for what wakes
it. PYTHON is that of an environment with the other client; without any, ours stands alone.
Nothing is asserted. Requests ask for 400 tokens each, on average.

CPU is that of the client's whole process tree (ours: generator, sampler of ``/metrics`` and
their parent) while every slot is busy: from one mean request after the first to the arrival of
the last. Lag is from the stamp that the server takes as it sends a chunk to the moment at which
the client says to have read it, where it says so (``load_rivals``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from tests.perf import load_rivals as rivals
from tests.perf.load_clients import Load

MEAN_TOKENS = 400
CASES = ((256, 20.0), (3072, 51.2))
PORT = 8097


def ours(load: Load, folder: Path) -> list[str]:
    asked = map(str, (load.port, load.batch, load.num_requests, load.mean_tokens))
    return [sys.executable, "-m", "tests.perf.load_clients", *asked, str(folder)]


def lags_of_ours(folder: Path, log: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield (sent, lag) of each token; a stream whose blocks hid a token is told."""
    told = json.loads((folder / "told.json").read_text())
    for stream in log["streams"]:
        got = told["streams"].get(stream["key"], [])
        if len(got) != len(stream["sent_s"]):
            print(
                f"  left out: a stream of {len(stream['sent_s'])} tokens with {len(got)} times"
            )
            continue
        yield from (
            (sent, came - sent) for sent, came in zip(stream["sent_s"], got, strict=True)
        )


RIVALS = {"vllm": rivals.vllm, "guidellm": rivals.guidellm, "aiperf": rivals.aiperf}
LAGS = {
    "ours": lags_of_ours,
    "vllm": rivals.lags_of_vllm,
    "guidellm": rivals.lags_of_guidellm,
    "aiperf": rivals.lags_of_aiperf,
}


def _percentiles(lags_ms: Sequence[float]) -> str:
    if not lags_ms:
        return "not told"
    return f"p50 {np.median(lags_ms):6.2f} p99 {np.percentile(lags_ms, 99):7.2f} ms"


class Cpu:
    """On-CPU seconds of a process and all below it, as the kernel's scheduler counts them."""

    def __init__(self, pid: int) -> None:
        self._pid, self._seen = pid, {}
        self.rows: list[tuple[float, float]] = []

    def look(self) -> None:
        waiting = [self._pid]
        while waiting:
            pid = waiting.pop()
            with suppress(OSError):  # it may end while it is looked at
                for task in Path(f"/proc/{pid}/task").iterdir():
                    self._seen[task] = int((task / "schedstat").read_text().split()[0]) / 1e9
                    waiting += map(int, (task / "children").read_text().split())
        self.rows.append((time.monotonic(), sum(self._seen.values())))


@contextmanager
def serving(step_ms: float) -> Iterator[None]:
    script = Path(__file__).with_name("load_server.py")
    command = ["taskset", "-c", "0", sys.executable, str(script), str(PORT), str(step_ms)]
    server = subprocess.Popen(command)
    time.sleep(1)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


@contextmanager
def awake() -> Iterator[None]:
    """Keep both cores from halting, at the cost of what else would be idle."""
    command = ["chrt", "-i", "0", sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(["taskset", "-c", core, *command]) for core in ("0", "1")]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def ask(path: str) -> Any:
    with urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=60) as answer:
        return json.load(answer)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One client's turn."""

    name: str
    command: Sequence[str]
    folder: Path
    load: Load
    step_s: float

    def run(self) -> None:
        ask("/reset")
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_TARGET_DEVICE": "cpu"}
        log_path = self.folder / "log"
        with log_path.open("w") as log_file:
            client = subprocess.Popen(
                ["taskset", "-c", "1", *self.command], env=env, stdout=log_file, stderr=log_file
            )
            cpu = Cpu(client.pid)
            while client.poll() is None:
                cpu.look()
                time.sleep(0.25)
        if client.returncode:
            said = log_path.read_text()[-400:]
            print(f"{self.name}: ended with {client.returncode}: {said}")
            return
        self.report(cpu, ask("/log"))

    def report(self, cpu: Cpu, log: dict[str, Any]) -> None:
        batch = self.load.batch
        times, active, tokens, received = np.array(log["steps"]).T
        opens = times[active >= 0.9 * batch][0] + self.load.mean_tokens * self.step_s
        closes = times[received >= received.max()][0]
        looked, used = np.array(cpu.rows).T
        made = np.diff(np.interp([opens, closes], times, tokens))[0]
        busy_s = np.diff(np.interp([opens, closes], looked, used))[0]
        inside = (times >= opens) & (times < closes)
        stamped = LAGS[self.name](self.folder, log)
        lags_ms = [1000 * lag for sent, lag in stamped if opens <= sent < closes]
        print(
            f"{self.name:8} {batch:5} in flight  {made / (closes - opens):7.0f} tokens/s  "
            f"{1e6 * busy_s / made:6.2f} CPU s per million  "
            f"lag {_percentiles(lags_ms)}  "
            f"batch {100 * active[inside].mean() / batch:6.2f} %  "
            f"window {closes - opens:.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in RIVALS:
        parser.add_argument(f"--{name}", default="", help="interpreter of its environment")
    pythons = {name: python for name, python in vars(parser.parse_args()).items() if python}
    for batch, step_ms in CASES:
        load = Load(port=PORT, batch=batch, num_requests=3 * batch, mean_tokens=MEAN_TOKENS)
        # One core is not enough for the others at 3,072.
        others = pythons if batch == CASES[0][0] else {}
        with awake(), serving(step_ms), tempfile.TemporaryDirectory() as folder:
            for name in ("ours", *others):
                place = Path(folder) / name
                place.mkdir()
                command = (
                    ours(load, place)
                    if name == "ours"
                    else RIVALS[name](load, place, others[name])
                )
                Trial(
                    name=name, command=command, folder=place, load=load, step_s=step_ms / 1000
                ).run()


if __name__ == "__main__":
    main()
