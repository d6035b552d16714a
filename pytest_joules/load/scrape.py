"""Sample a server's own counters until told to end; a process of its own.

``python -m pytest_joules.load.scrape HOST PORT FILE COUNTERS`` writes one JSON line a sample.
SIGTERM means: sample until no request is left, then end.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, TextIO

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.load import KEY_VARIABLE
from pytest_joules.load.page import Page
from pytest_joules.load.words import in_words
from pytest_joules.trace import ServerSample

__tracebackhide__ = is_expected

PERIOD_S: Final = 0.1
_TOGETHER: Final = 5
"""Looks that are read together, which costs less: after a rest, all caches are cold."""

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
_GAUGES: Final = {
    "running": "sglang:num_running_reqs",
    "waiting": "sglang:num_queue_reqs",
    "kv_cache_usage": "sglang:token_usage",
}
_MEANS: Final = frozenset({"kv_cache_usage"})
_NUMBER: Final = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII)


def server_sample(text: str, *, time_s: float, took_s: float) -> ServerSample:
    """Read one answer of vLLM's ``/metrics``.

    Engines of one server (data parallelism) are added up; shares are averaged.

    Raises:
        LoadError: A needed counter is missing; names it.
    """
    found = _fields(text, {**_REQUIRED, **_OPTIONAL})
    missing = [name for field, name in _REQUIRED.items() if field not in found]
    if missing:
        raise LoadError(
            f"the server's /metrics has no {', '.join(missing)}: it is no vLLM of a version "
            "that this package knows, or its statistics are off (--disable-log-stats)."
        )
    return ServerSample(time_s=time_s, took_s=took_s, **found)


def gauges(text: str, *, time_s: float, took_s: float) -> dict[str, float]:
    """Read one answer of SGLang's ``/metrics``: requests in flight and the KV cache.

    Its token counters are left alone: they rise when a request ends, not as it goes.

    Raises:
        LoadError: A gauge is missing; names it.
    """
    found = _fields(text, _GAUGES)
    missing = [name for field, name in _GAUGES.items() if field not in found]
    if missing:
        raise LoadError(f"the server's /metrics has no {', '.join(missing)} any more.")
    return {"time_s": time_s, "took_s": took_s, **found}


def _fields(text: str, names: Mapping[str, str]) -> dict[str, float]:
    found = _values(text, _lines_of(tuple(names.values())))
    return {
        field: sum(found[name]) / (len(found[name]) if field in _MEANS else 1)
        for field, name in names.items()
        if name in found
    }


@cache
def _lines_of(names: tuple[str, ...]) -> re.Pattern[str]:
    """Find the lines of some metrics, each after a line break."""
    return re.compile(rf"\n((?:{'|'.join(map(re.escape, names))})(?![^{{ \n])[^\n]*)")


def _values(text: str, pattern: re.Pattern[str]) -> Mapping[str, list[float]]:
    # The parser is slow and an answer has 600 lines, of which about ten are needed.
    found: dict[str, list[float]] = {}
    for line in pattern.findall("\n" + text):
        head, _, value = line.rpartition(" ")
        name = _NAMES.get(head)
        number = _plain(value) if name else None
        for known, read in [(name, number)] if name and number is not None else _parsed(line):
            found.setdefault(known, []).append(read)
    return found


_NAMES: Final[dict[str, str]] = {}
"""Which sample a line of the last answers was, by all that stands before its value."""


def _parsed(line: str) -> list[tuple[str, float]]:
    # Lazily: ``load`` reads samples in pytest's process and needs no parser.
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    try:
        families = list(text_string_to_metric_families(line + "\n"))
    except (ValueError, IndexError, KeyError) as error:  # what the parser lets through
        raise LoadError(
            f"/metrics cannot be read ({error!r}), such as {line[:100]!r}. See "
            "whether a proxy stands before it."
        ) from None
    samples = [sample for family in families for sample in family.samples]
    head, _, value = line.rpartition(" ")
    if [(each.value, each.timestamp) for each in samples] == [(_plain(value), None)]:
        _NAMES[head] = samples[0].name
    return [(sample.name, sample.value) for sample in samples]


def _plain(value: str) -> float | None:
    """Read a number without its odd spellings, which are left to the parser."""
    return float(value) if _NUMBER.fullmatch(value) else None


@dataclass(frozen=True, kw_only=True)
class Look:
    """What ``/metrics`` said once, not yet read."""

    text: str
    time_s: float
    took_s: float


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Reads one server's counters, again and again."""

    page: Page
    counters: str

    @classmethod
    def of(cls, host: str, port: int, *, api_key: str, counters: str) -> "Sampler":
        """Sample a server's ``/metrics``."""
        page = Page(host, port, "/metrics", api_key=api_key, timeout_s=_TIMEOUT_S)
        return cls(page=page, counters=counters)

    def look(self) -> Look:
        """Ask the server; raises as ``Page.get``."""
        asked_s = monotonic()
        text = self.page.get()
        time_s = monotonic()
        return Look(text=text, time_s=time_s, took_s=time_s - asked_s)

    def read(self, look: Look) -> dict[str, Any]:
        """Return a sample, JSON-ready; raises as ``server_sample``."""
        if self.counters == "sglang":
            return gauges(**vars(look))
        return vars(server_sample(**vars(look)))

    def sample(self) -> dict[str, Any]:
        """Look and read; raises as both."""
        return self.read(self.look())


class _Stop:
    """Whether SIGTERM came.

    No event of ``threading``: the handler runs in the very thread that waits for it, and where
    that holds the event's lock just then, both wait for ever.
    """

    is_asked = False

    def ask(self, *_: object) -> None:
        self.is_asked = True


def _ticks(stop: _Stop) -> Iterator[None]:
    due_s = monotonic()
    while not stop.is_asked:
        yield
        due_s = max(due_s + PERIOD_S, monotonic())
        sleep(max(0.0, due_s - monotonic()))


def _record_until(stop: _Stop, sampler: Sampler, out: TextIO) -> None:
    held: list[Look | OSError] = []
    room = 1  # the load begins once there is a sample
    try:
        for _ in _ticks(stop):
            held.append(_looked(sampler))
            if len(held) >= room:
                _record(held, sampler, out)
                room = _TOGETHER
    finally:
        _record(held, sampler, out)


def _looked(sampler: Sampler) -> Look | OSError:
    try:
        return sampler.look()
    except OSError as error:
        return error


def _record(held: list[Look | OSError], sampler: Sampler, out: TextIO) -> None:
    while held:
        look = held.pop(0)
        if isinstance(look, Look):
            row = sampler.read(look)
        else:  # a gap in the samples; the readers of the trace judge it
            row = {"error": f"{type(look).__name__}: {look}"}
        out.write(json.dumps(row) + "\n")
    out.flush()


def _record_the_rest(sampler: Sampler, out: TextIO) -> None:
    deadline = monotonic() + DRAIN_S
    for _ in _ticks(_Stop()):
        sample = sampler.sample()
        out.write(json.dumps(sample) + "\n")
        if sample["running"] + sample["waiting"] == 0 or monotonic() > deadline:
            return


def main(arguments: Sequence[str]) -> int:
    """Sample until SIGTERM."""
    host, port, path, counters = arguments
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    key = os.environ.get(KEY_VARIABLE, "")
    sampler = Sampler.of(host, int(port), api_key=key, counters=counters)
    with Path(path).open("w", encoding="utf-8") as out:
        try:
            _record_until(stop, sampler, out)
            _record_the_rest(sampler, out)
        except LoadError as error:
            out.write(json.dumps({"fatal": str(error)}) + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(in_words(lambda: main(sys.argv[1:])))
