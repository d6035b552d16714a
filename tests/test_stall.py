"""A server that answers everything but the requests."""

import json
from pathlib import Path

import pytest

from pytest_joules.errors import LoadError
from pytest_joules.load import stall
from pytest_joules.load.stall import STALL_S, Progress

# (seconds, tokens, running, waiting); None is a sample that failed.
MAKES_SOME = [(0, 10, 4, 0), (STALL_S, 11, 4, 0), (2 * STALL_S, 12, 4, 0)]
IDLE = [(0, 10, 0, 0), (10 * STALL_S, 10, 0, 0)]
JUST_IN_TIME = [(0, 10, 4, 0), (STALL_S, 10, 4, 0)]
HANGS = [(0, 10, 3, 1), (STALL_S + 1, 10, 3, 1)]
HANGS_AND_IS_NOT_SEEN = [(0, 10, 4, 0), (2 * STALL_S, None, 0, 0)]
IDLE_THEN_SLOW = [(0, 10, 0, 0), (STALL_S, 10, 0, 0), (STALL_S + 1, 10, 4, 0)]


@pytest.mark.parametrize(
    ("seen", "is_told"),
    [
        pytest.param(MAKES_SOME, False, id="makes-some"),
        pytest.param(IDLE, False, id="idle"),
        pytest.param(JUST_IN_TIME, False, id="just-in-time"),
        pytest.param(HANGS, True, id="hangs"),
        pytest.param(HANGS_AND_IS_NOT_SEEN, False, id="not-seen"),
        pytest.param(IDLE_THEN_SLOW, False, id="idle-then-slow"),
    ],
)
def test_only_time_with_requests_and_without_tokens_counts(
    *, seen: list, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tmp_path / "samples.jsonl"
    now_s = 0.0
    monkeypatch.setattr(stall, "monotonic", lambda: now_s)
    progress, lines, told = Progress(samples), [], []
    for now_s, tokens, running, waiting in seen:  # noqa: B007  the clock reads it
        row = {"output_tokens": tokens, "prompt_tokens": 5}
        sample = {**row, "running": running, "waiting": waiting}
        lines.append(json.dumps({"error": "x"} if tokens is None else sample))
        samples.write_text("\n".join([*lines, '{"cut']))
        try:
            progress.require()
        except LoadError as error:
            told.append(str(error))

    assert bool(told) == is_told
    assert all("no token for 300 s with 4 requests in flight" in each for each in told)
