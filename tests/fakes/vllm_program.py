"""What vLLM's server looks like from outside, with faults by name.

Run by the interpreter that ``make_stack`` writes; the fault stands in ``FAKE_VLLM``.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pytest_joules.plan import Stack


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


def answer(path: str, body: dict[str, Any], fault: str) -> tuple[int, dict[str, Any]]:
    model = sys.argv[sys.argv.index("--served-model-name") + 1]
    if path == "/health":
        return (503 if fault == "never-healthy" else 200), {}
    if path == "/v1/models":
        name = "another/model" if fault == "other-model" else model
        return 200, {"data": [{"id": name, "max_model_len": 4096}]}
    if fault == "tells-when-asked":
        return 400, {"error": dict(os.environ)}
    if fault == "bad-request":
        return 400, {"error": {"message": "Token id 29999 is out of vocabulary"}}
    tokens = body["max_tokens"] - (fault == "bad-usage")
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": tokens}
    return 200, {"usage": usage}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._respond({})

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self._respond(json.loads(self.rfile.read(size)))

    def _respond(self, body: dict[str, Any]) -> None:
        fault = os.environ["FAKE_VLLM"]
        key = f"Bearer {os.environ['VLLM_API_KEY']}"
        status, values = answer(self.path, body, fault)
        if (
            fault != "open"
            and self.path.startswith("/v1")
            and self.headers["Authorization"] != key
        ):
            status, values = 401, {}
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if fault == "dies-when-ready" and self.path == "/v1/completions":
            threading.Timer(0.05, os._exit, [7]).start()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    fault, memory = os.environ["FAKE_VLLM"], Path(os.environ["FAKE_VLLM_MEMORY"])
    starts = memory.read_text().count("\n") + 1 if memory.exists() else 1
    memory.write_text("start\n" * starts)
    if fault == "tells-and-dies":
        print(dict(os.environ), file=sys.stderr)  # noqa: T201 its log
        sys.exit(f"ValueError: {json.dumps(dict(os.environ))}")
    if fault in {"dies", "port-taken"} or (fault == "port-taken-once" and starts == 1):
        what = "boom" if fault == "dies" else "[Errno 98] Address already in use"
        sys.exit(f"first words\nOSError: {what}")
    print("devices", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)  # noqa: T201 its log
    port = int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
