"""Sample a server's own counters until told to end; a process of its own.

``python -m pytest_joules.load.scrape HOST PORT FILE`` writes one JSON line a sample. SIGTERM
means: sample until no request is left, then end.
"""

import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Final, TextIO

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.load import KEY_VARIABLE
from pytest_joules.trace import ServerSample

__tracebackhide__ = is_expected

PERIOD_S: Final = 0.1
DRAIN_S: Final = 5.0
"""Seconds that the counters have to settle after the last answer."""

_TIMEOUT_S: Final = 10.0
_REQUIRED: Final = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "output_tokens": "vllm:generation_tokens_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "first_tokens": "vllm:time_to_first_token_seconds_count",
    "finished": "vllm:request_success_total",
}
_OPTIONAL: Final = {
    "steps": "vllm:iteration_tokens_total_count",
    "kv_cache_usage": "vllm:kv_cache_usage_perc",
    "preemptions": "vllm:num_preemptions_total",
    "e2el_s": "vllm:e2e_request_latency_seconds_sum",
    "queue_s": "vllm:request_queue_time_seconds_sum",
    "inference_s": "vllm:request_inference_time_seconds_sum",
}
_MEANS: Final = frozenset({"kv_cache_usage"})


def server_sample(text: str, *, time_s: float, took_s: float) -> ServerSample:
    """Read one answer of vLLM's ``/metrics``.

    Engines of one server (data parallelism) are added up; shares are averaged.

    Raises:
        LoadError: A needed counter is missing; names it.
    """
    found = _values(text)
    missing = [name for name in _REQUIRED.values() if name not in found]
    if missing:
        raise LoadError(
            f"the server's /metrics has no {', '.join(missing)}: it is no vLLM of a version "
            "that this package knows, or its statistics are off (--disable-log-stats)."
        )
    fields = {
        field: sum(found[name]) / (len(found[name]) if field in _MEANS else 1)
        for field, name in {**_REQUIRED, **_OPTIONAL}.items()
        if name in found
    }
    return ServerSample(time_s=time_s, took_s=took_s, **fields)


def _values(text: str) -> Mapping[str, list[float]]:
    # Lazily: ``load`` reads samples in pytest's process and needs no parser.
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    needed = {*_REQUIRED.values(), *_OPTIONAL.values()}
    # The parser is slow and an answer has 600 lines, of which about ten are needed.
    lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] in needed]
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.value)
    return found


def fetch(host: str, port: int, api_key: str) -> ServerSample:
    """Ask the server once, on a connection of its own (a kept one is closed after 5 s).

    Raises:
        OSError: No connection, or no answer in time.
        LoadError: The answer is not what it should be.
    """
    asked_s = monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {api_key}"})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    time_s = monotonic()
    if answer.status != http.client.OK:
        raise LoadError(f"/metrics answered {answer.status}: {text[:300]}")
    return server_sample(text, time_s=time_s, took_s=time_s - asked_s)


def _ticks(stop: threading.Event) -> Iterator[None]:
    due_s = monotonic()
    while not stop.is_set():
        yield
        due_s = max(due_s + PERIOD_S, monotonic())
        stop.wait(due_s - monotonic())


def _record(sample: ServerSample, out: TextIO) -> None:
    out.write(json.dumps(asdict(sample)) + "\n")


def _record_until(stop: threading.Event, server: tuple[str, int, str], out: TextIO) -> None:
    for _ in _ticks(stop):
        try:
            _record(fetch(*server), out)
        except (OSError, http.client.HTTPException) as error:
            # A gap in the samples; the readers of the trace judge it.
            out.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")


def _record_the_rest(server: tuple[str, int, str], out: TextIO) -> None:
    deadline = monotonic() + DRAIN_S
    for _ in _ticks(threading.Event()):
        sample = fetch(*server)
        _record(sample, out)
        if sample.running + sample.waiting == 0 or monotonic() > deadline:
            return


def main(host: str, port: str, path: str) -> int:
    """Sample until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = (host, int(port), os.environ.get(KEY_VARIABLE, ""))
    with Path(path).open("w", buffering=1, encoding="utf-8") as out:
        try:
            _record_until(stop, server, out)
            _record_the_rest(server, out)
        except LoadError as error:
            out.write(json.dumps({"fatal": str(error)}) + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
