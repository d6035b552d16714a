import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_joules.pruning import FAILED, FAILED_LONGER, prune
from tests.fakes.private import hide

HOLDING, ENDING, LOCKS = "log", "end", "run*.lock"
DAY_S = 24 * 3600.0


def made(root: Path, number: int, *, failed: bool = False, holding: str = HOLDING) -> Path:
    """Make a sub-folder; a higher number is newer."""
    folder = root / f"{'failed' if failed else 'good'}-{number:02}"
    folder.mkdir()
    (folder / holding).write_text("")
    if failed:
        (folder / FAILED).touch()
    os.utime(folder, (1000 + number, 1000 + number))
    return folder


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_newest_stay_and_failures_longer(tmp_path: Path) -> None:
    for number in range(1, 13):
        made(tmp_path, number)
        made(tmp_path, number, failed=True)

    prune(tmp_path, newest=2, holding=HOLDING, locks=LOCKS)

    kept = range(13 - 2 * FAILED_LONGER, 13)
    assert names(tmp_path) == [*(f"failed-{n:02}" for n in kept), "good-11", "good-12"]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_few_stay_all(number: int, tmp_path: Path) -> None:
    for each in range(number):
        made(tmp_path, each)

    prune(tmp_path, newest=3, holding=HOLDING, locks=LOCKS)

    assert len(names(tmp_path)) == number


def test_what_another_user_keeps_private_stays_and_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after one run with sudo: its folders cannot even be looked into."""
    private, _, new = (made(tmp_path, number) for number in (1, 2, 3))
    hide(private, monkeypatch)

    prune(tmp_path, newest=1, holding=HOLDING, locks=LOCKS)

    assert names(tmp_path) == [private.name, new.name]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made(tmp_path, 0, holding="thesis.tex")
    elsewhere = tmp_path.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / HOLDING).write_text("")
    (tmp_path / "link").symlink_to(elsewhere)
    os.utime(elsewhere, (1, 1))
    made(tmp_path, 1)

    prune(tmp_path, newest=1, holding=HOLDING, locks=LOCKS)

    assert names(tmp_path) == ["file", "good-00", "good-01", "link"]
    assert (elsewhere / HOLDING).exists()


@pytest.mark.parametrize(
    ("age_s", "ended", "stays"),
    [(0.0, False, True), (0.0, True, False), (1.1 * DAY_S, False, False)],
)
def test_what_may_still_be_written_to_stays(
    tmp_path: Path, *, age_s: float, ended: bool, stays: bool
) -> None:
    old = made(tmp_path, 0)
    if ended:
        (old / ENDING).touch()
    os.utime(old / HOLDING, (datetime.now(UTC).timestamp() - age_s,) * 2)
    os.utime(old, (1000, 1000))
    made(tmp_path, 1)

    prune(tmp_path, newest=1, holding=HOLDING, locks=LOCKS, ending=ENDING)

    assert old.exists() is stays


def test_sessions_that_prune_the_same_folder_at_once_do_not_trip(tmp_path):
    for number in range(200):
        folder = tmp_path / f"launch-{number}"
        folder.mkdir()
        for name in ("launched", "events.jsonl", "vllm.log"):
            (folder / name).touch()
    barrier = threading.Barrier(8)

    def session(_):
        barrier.wait()
        prune(tmp_path, newest=3, holding="launched", locks="launched")

    with ThreadPoolExecutor(8) as sessions:
        list(sessions.map(session, range(8)))

    # A folder that another one deletes looks new for a moment: fewer may stay, never a rest.
    left = list(tmp_path.iterdir())
    assert len(left) <= 3
    assert all(len(list(folder.iterdir())) == 3 for folder in left)


WRITER = """
import sys
from filelock import FileLock

with FileLock(sys.argv[1]):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("ended", [False, True])
def test_what_a_living_process_writes_stays_however_old_and_not_for_ever(
    tmp_path: Path, *, ended: bool
) -> None:
    """One of two who write it is dead; the other is a real process that is killed."""
    old = made(tmp_path, 0)
    (old / "run-gw0.lock").touch()
    if ended:
        (old / ENDING).touch()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, old / "run-gw1.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"holds\n"
        for each in (*old.iterdir(), old):
            os.utime(each, (1000, 1000))
        made(tmp_path, 1)

        prune(tmp_path, newest=1, holding=HOLDING, locks=LOCKS, ending=ENDING)
        assert old.exists()
        writer.send_signal(signal.SIGKILL)

    prune(tmp_path, newest=1, holding=HOLDING, locks=LOCKS, ending=ENDING)
    assert names(tmp_path) == ["good-01"]
