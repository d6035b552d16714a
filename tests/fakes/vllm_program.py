"""What vLLM's server looks like from outside, with faults by name.

Run by the interpreter that ``make_stack`` writes. The fault stands in ``FAKE_VLLM``, or in
the file ``fault`` of the stack's folder, which is read again at each request: one server then
shows one fault after the other. Tokens come one a ``TOKEN_S`` and request, and the counters
are functions of time, as those of a server that decodes.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pytest_joules.plan import Stack

TOKEN_S = 0.005
MALFORMED_MODELS: dict[str, dict[str, Any]] = {
    "no-models": {},
    "null-models": {"data": None},
    "models-of-lists": {"data": [["id", "org/model"]]},
    "endless-context": {"data": [{"id": "org/model", "max_model_len": "endless"}]},
}
STARTUP = ("dies", "port-taken", "oom-while-loading", "killed-while-loading")
OUT_OF_MEMORY = (
    "ERROR 11-27 12:00:00 [core.py:900] torch.OutOfMemoryError: CUDA out of memory. Tried to "
    "allocate 20.00 GiB. GPU 0 has a total capacity of 139.72 GiB of which 1.20 GiB is free."
)


def make_stack(
    folder: Path, fault: str = "", *, deadline_s: float = 60.0, installed: bool = True
) -> Stack:
    """Write an interpreter whose vLLM is this file; its metadata says version 9.9."""
    folder.mkdir(exist_ok=True)
    if installed:
        metadata = folder / "vllm-9.9.dist-info"
        metadata.mkdir()
        text = "Metadata-Version: 2.1\nName: vllm\nVersion: 9.9\n"
        (metadata / "METADATA").write_text(text)
    python = folder / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n'
        f'exec {sys.executable} {__file__} "$@"\n'
    )
    python.chmod(0o755)
    root = Path(__file__).parents[2]
    env = {
        "PYTHONPATH": f"{folder}:{root}",
        "FAKE_VLLM": fault,
        "FAKE_VLLM_MEMORY": str(folder / "was-here"),
    }
    return Stack(name="fake", python=str(python), env=env, deadline_s=deadline_s)


def show(folder: Path, fault: str) -> None:
    """Let a running server of this folder show another fault from now on."""
    (folder / "fault.new").write_text(fault)
    (folder / "fault.new").rename(folder / "fault")


def current() -> str:
    """Return the fault to show now."""
    try:
        return Path(os.environ["FAKE_VLLM_MEMORY"]).with_name("fault").read_text()
    except FileNotFoundError:
        return os.environ["FAKE_VLLM"]


@dataclass
class Engine:
    """Everything that was asked; what it has generated is a matter of time alone."""

    running: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Of each request in flight when it began and how many tokens it wants."""

    begun: int = 0
    finished: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, prompt: int, output: int) -> int:
        with self.lock:
            self.begun += 1
            self.prompt_tokens += prompt
            self.running[self.begun] = (time.monotonic(), output)
            return self.begun

    def end(self, number: int) -> None:
        with self.lock:
            self.output_tokens += self.running.pop(number)[1]
            self.finished += 1

    def counters(self, fault: str) -> dict[str, float]:
        with self.lock:
            now_s = time.monotonic()
            so_far = [min(n, int((now_s - t) / TOKEN_S)) for t, n in self.running.values()]
            out = len(so_far) // 2 if fault == "preemption-storm" else 0
            preempted = 40 * now_s if "preemption" in fault else 0
            return {
                "num_requests_running": len(so_far) - out,
                "num_requests_waiting": out,
                "generation_tokens_total": self.output_tokens + sum(so_far),
                "prompt_tokens_total": self.prompt_tokens,
                "time_to_first_token_seconds_count": self.finished + sum(map(bool, so_far)),
                "request_success_total": self.finished,
                "num_preemptions_total": int(preempted),
            }


ENGINE = Engine()


def metrics(fault: str) -> bytes:
    if fault == "malformed-metrics":
        return b'vllm:num_requests_running{engine="0} 1.0.0 \xff\n' * 6
    if fault == "no-metrics":
        return b"<html>not found</html>"
    lines = [f'vllm:{k}{{engine="0"}} {float(v)}' for k, v in ENGINE.counters(fault).items()]
    return ("\n".join(lines) + "\n").encode()


def answer(path: str, fault: str) -> tuple[int, dict[str, Any]]:
    model = sys.argv[sys.argv.index("--served-model-name") + 1]
    if path == "/health":
        return (503 if fault in {"never-healthy", "out-of-memory"} else 200), {}
    if fault in MALFORMED_MODELS:
        return 200, MALFORMED_MODELS[fault]
    name = "another/model" if fault == "other-model" else model
    return 200, {"data": [{"id": name, "max_model_len": 4096}]}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        fault = current()
        if self.path == "/metrics":
            self._send(200, metrics(fault))
        elif self._is_allowed():
            self._send_json(*answer(self.path, fault))

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        body, fault = json.loads(self.rfile.read(size)), current()
        # Two tokens are the question with which a start is checked.
        is_load = body["max_tokens"] > 2
        number = ENGINE.begin(len(body["prompt"]), body["max_tokens"])
        try:
            if self._is_allowed() and not (is_load and self._fails(number, fault)):
                self._complete(body, fault)
        finally:
            ENGINE.end(number)
        if fault == "dies-when-ready":
            threading.Timer(0.05, os._exit, [7]).start()

    def _fails(self, number: int, fault: str) -> bool:
        """Show a fault of a load instead of an answer, or beside it."""
        if fault in {"crash", "killed", "out-of-memory"} and number > 40:
            die(fault)
        is_hit = fault.startswith("every") or number % 10 == 0
        while fault == "hang" == current():
            time.sleep(0.02)
        if fault == "log-flood":
            print("a warning of this step " * 2000, flush=True)  # noqa: T201 its log
        if fault == "zombies":
            subprocess.Popen(["true"])  # nobody waits for it
        if is_hit and fault.endswith("dropped"):
            self.close_connection = True
            return True
        if (fault == "out-of-memory" and number > 40) or (is_hit and fault.endswith("500")):
            self._send_json(500, {"error": {"message": "EngineDeadError"}})
            return True
        return False

    def _complete(self, body: dict[str, Any], fault: str) -> None:
        if fault == "tells-when-asked":
            self._send_json(400, {"error": dict(os.environ)})
            return
        if fault == "bad-request":
            message = "Token id 29999 is out of vocabulary"
            self._send_json(400, {"error": {"message": message}})
            return
        tokens, prompt = body["max_tokens"], len(body["prompt"])
        if body.get("stream"):
            self._stream(prompt, tokens, fault)
            return
        time.sleep(tokens * TOKEN_S)
        told = tokens - (fault == "bad-usage")
        self._send_json(200, {"usage": [] if fault == "no-usage" else usage(prompt, told)})

    def _stream(self, prompt: int, tokens: int, fault: str) -> None:
        self.send_response(200)
        self.end_headers()
        began_s = time.monotonic()
        for done in [*range(1, tokens, 5), tokens]:
            time.sleep(max(0.0, began_s + done * TOKEN_S - time.monotonic()))
            text = json.dumps({"choices": [{"text": "a"}], "usage": usage(prompt, done)})
            cut = text[:9] if fault == "malformed-sse" else text
            self.wfile.write(f"data: {cut}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _is_allowed(self) -> bool:
        key = f"Bearer {os.environ['VLLM_API_KEY']}"
        is_ours = not self.path.startswith("/v1") or self.headers["Authorization"] == key
        if not is_ours and current() != "open":
            self._send_json(401, {})
            return False
        return True

    def _send_json(self, status: int, values: dict[str, Any]) -> None:
        self._send(status, json.dumps(values).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


def usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output}


def die(fault: str) -> None:
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "crash":
        print("ERROR: RuntimeError: the engine core broke", flush=True)  # noqa: T201 its log
        os._exit(7)
    # The API server outlives its engine, for a while.
    print(OUT_OF_MEMORY, flush=True)  # noqa: T201 its log


def fail_to_start(fault: str) -> None:
    if fault == "killed-while-loading":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "oom-while-loading":
        sys.exit(OUT_OF_MEMORY)
    what = "boom" if fault == "dies" else "[Errno 98] Address already in use"
    sys.exit(f"first words\nOSError: {what}")


def main() -> None:
    fault, memory = current(), Path(os.environ["FAKE_VLLM_MEMORY"])
    starts = memory.read_text().count("\n") + 1 if memory.exists() else 1
    memory.write_text("start\n" * starts)
    if fault == "tells-and-dies":
        print(dict(os.environ), file=sys.stderr)  # noqa: T201 its log
        sys.exit(f"ValueError: {json.dumps(dict(os.environ))}")
    if fault in STARTUP or (fault == "port-taken-once" and starts == 1):
        fail_to_start(fault)
    print("devices", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)  # noqa: T201 its log
    if fault == "slow-start":
        time.sleep(1.0)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
