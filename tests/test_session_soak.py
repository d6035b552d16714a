"""Sessions in a row leave nothing behind; ``tests/perf/session_soak.py`` runs a thousand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.takes_long

SCRIPT = Path(__file__).parent / "perf" / "session_soak.py"
SESSIONS = os.environ.get("JOULES_SOAK_SESSIONS", "12")


def test_sessions_in_a_row_hold_no_more_files_threads_or_children() -> None:
    """In a process of its own: what this one holds would hide a leak."""
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--sessions", SESSIONS],
        capture_output=True,
        text=True,
        check=True,
    )

    head, *lines = [line.split() for line in run.stdout.splitlines()]
    rows = {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in lines}
    last = rows[SESSIONS]
    for name in ("fds", "threads", "children"):
        assert last[name] == rows["first"][name], run.stdout
    assert last["stored"] == "3", run.stdout
