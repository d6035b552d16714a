"""Client CPU per million tokens, lag of receipt and achieved batch: ours beside vLLM's bench.

``python -m tests.perf.load_generator [--vllm PYTHON]`` offers the same closed loop to one mock
server (``load_server``, one token a step for every request), one client after the other: 256 in
flight at 20 ms a token, then 3,072 at 51.2 ms, which are 60,000 tokens a second. The client and
all its processes have core 1, the server and this script core 0. PYTHON is that of an
environment with vLLM; without it ours stands alone. Nothing is asserted. Requests ask for 400
tokens each, on average.

CPU is that of the client's whole process tree (ours: generator, sampler of ``/metrics`` and
their parent) while every slot is busy: from one mean request after the first to the arrival of
the last. Lag is from the stamp that the server takes as it sends a chunk to the moment at which
the client says to have read it.
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

from tests.perf.load_clients import PROMPT, SPREAD, Load
from tests.perf.load_tokenizer import write_tokenizer

MEAN_TOKENS = 400
CASES = ((256, 20.0), (3072, 51.2))
PORT = 8097
VLLM = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "p = argparse.ArgumentParser(); add_cli_args(p); main(p.parse_args())"
)


def ours(load: Load, folder: Path) -> list[str]:
    asked = map(str, (load.port, load.batch, load.num_requests, load.mean_tokens))
    return [sys.executable, "-m", "tests.perf.load_clients", *asked, str(folder)]


def vllm(load: Load, folder: Path, python: str) -> list[str]:
    write_tokenizer(folder / "tokenizer")
    asked = {
        "backend": "openai",
        "base-url": f"http://127.0.0.1:{load.port}",
        "endpoint": "/v1/completions",
        "model": "served",
        "tokenizer": folder / "tokenizer",
        "dataset-name": "random",
        "random-input-len": PROMPT,
        "random-output-len": load.mean_tokens,
        "random-range-ratio": SPREAD,
        "num-prompts": load.num_requests,
        "max-concurrency": load.batch,
        "result-dir": folder,
        "result-filename": "result.json",
    }
    options = [str(part) for name, value in asked.items() for part in (f"--{name}", value)]
    switches = ["--ignore-eos", "--save-result", "--save-detailed", "--disable-tqdm"]
    return [python, "-c", VLLM, *options, *switches]


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


def lags_of_vllm(folder: Path, log: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield (sent, lag) of each token: its text is the server's stamp."""
    del log
    told = json.loads((folder / "result.json").read_text())
    names = ("start_times", "ttfts", "itls", "generated_texts")
    for began_s, ttft_s, itls, text in zip(*(told[name] for name in names), strict=True):
        stamps = [float(word) for word in text.split()]
        came = np.cumsum([began_s + ttft_s, *itls])
        if len(stamps) == len(came):
            yield from ((sent, at - sent) for sent, at in zip(stamps, came, strict=True))


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
        found = lags_of_ours if self.name == "ours" else lags_of_vllm
        stamped = found(self.folder, log)
        lags_ms = [1000 * lag for sent, lag in stamped if opens <= sent < closes]
        print(
            f"{self.name:6} {batch:5} in flight  {made / (closes - opens):7.0f} tokens/s  "
            f"{1e6 * busy_s / made:6.2f} CPU s per million  "
            f"lag p50 {np.median(lags_ms):6.2f} p99 {np.percentile(lags_ms, 99):7.2f} ms  "
            f"batch {100 * active[inside].mean() / batch:6.2f} %  "
            f"window {closes - opens:.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm", default="", help="interpreter of an environment with vLLM")
    python = parser.parse_args().vllm
    for batch, step_ms in CASES:
        load = Load(port=PORT, batch=batch, num_requests=3 * batch, mean_tokens=MEAN_TOKENS)
        with serving(step_ms), tempfile.TemporaryDirectory() as folder:
            places = [Path(folder) / name for name in ("ours", "vllm")]
            for place in places:
                place.mkdir()
            trials = {"ours": ours(load, places[0])}
            if python and batch == CASES[0][0]:  # one core is not enough for it at 3,072
                trials["vllm"] = vllm(load, places[1], python)
            for (name, command), place in zip(trials.items(), places, strict=False):
                Trial(
                    name=name, command=command, folder=place, load=load, step_s=step_ms / 1000
                ).run()


if __name__ == "__main__":
    main()
