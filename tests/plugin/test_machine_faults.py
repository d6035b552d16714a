"""Disks, folders and other sessions that get in the way of a run; ``docs/faults.md``."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_joules import baseline
from pytest_joules.engines.vllm import VllmEngine
from pytest_joules.errors import LaunchError, LoadError
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.storage import locked
from pytest_joules.tasks import Lengths
from tests.fakes.vllm_program import make_stack
from tests.fakes.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--gpu=h200"]
ENV = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    # Other plugins cost more than the run.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_PLUGINS": "pytest_joules.plugin,pytest_joules.testing",
}


def files(joules):
    """Return every file of the baselines, hidden ones too, but for locks."""
    folder = joules.path / "baselines"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if _counts(p))


def _counts(path):
    return path.is_file() and path.suffix != ".lock"


@pytest.fixture
def recorded(joules):
    """A project with a baseline, and the bytes of its only file."""
    joules.run("--joules-record", "--joules-launches=1").assert_outcomes(passed=2)
    (name,) = joules.baseline_files()
    return joules, joules.path / "baselines" / name


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EXDEV, errno.EIO, errno.EROFS])
def test_a_rename_that_fails_as_on_nfs_leaves_the_old_file(number, recorded, monkeypatch):
    joules, path = recorded
    before, replace = path.read_bytes(), os.replace

    def failing(source, target):
        if Path(target).suffix == ".json" and "baselines" in str(target):
            raise OSError(number, os.strerror(number), str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    run = joules.run("--joules-record", "--joules-launches=1")

    run.assert_outcomes(failed=2)
    said = f"*BaselineError: *{path.name}: cannot be written: *{os.strerror(number)}*as before*"
    run.stdout.fnmatch_lines([said])
    assert path.read_bytes() == before
    assert files(joules) == [str(path.relative_to(joules.path / "baselines"))]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EDQUOT])
def test_data_that_does_not_reach_the_disk_leaves_the_old_file(number, recorded, monkeypatch):
    joules, path = recorded
    before = path.read_bytes()

    def failing(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    run = joules.run("--joules-record", "--joules-launches=1")

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines([f"*BaselineError: *cannot be written: *{os.strerror(number)}*"])
    # Where sessions cannot be stored either, what was measured is judged all the same.
    run.stdout.fnmatch_lines(["*this session is not stored any further*"])
    assert path.read_bytes() == before
    assert len(files(joules)) == 1


SCRIPT = """
    set -eu
    mkdir disk && mount -t tmpfs -o size={size} none disk
    cp conftest.py test_energy.py disk && touch disk/pytest.ini && cd disk
    code() {{ set +e; "$@" >"$log" 2>&1; echo $? >"$log.code"; set -e; }}
    log=../first.log; code {pytest}
    cp -r baselines ../before
    dd if=/dev/zero of=fill bs=4096 2>/dev/null || true
    log=../full.log; code {pytest}
    cp -r baselines ../after-full
    rm fill && mount -t tmpfs none .joules && mount -o remount,ro none .
    log=../read-only.log; code {pytest}
    cp -r baselines ../after-read-only
"""


def in_own_mounts(script, folder):
    """Run a script that may mount, in a namespace of its own; nothing outside sees it."""
    command = ["unshare", "-Umr", "sh", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=ENV, capture_output=True, text=True, check=False
    )


def test_a_full_and_then_a_read_only_disk(joules):
    """A real one: 256 KiB in memory."""
    pytest_command = " ".join([*COMMAND, "--joules-record", "--joules-launches=1"])
    ended = in_own_mounts(SCRIPT.format(size="256k", pytest=pytest_command), joules.path)
    assert ended.returncode == 0, ended.stderr

    def told(name):
        log = joules.path / f"{name}.log"
        return int(log.with_name(f"{name}.log.code").read_text()), log.read_text()

    assert told("first")[0] == 0, told("first")[1]
    code, text = told("full")
    assert code == 1
    assert "BaselineError" in text
    assert "No space left on device; it is as before" in text
    assert "this session is not stored any further" in text
    code, text = told("read-only")
    assert code == 1
    assert "BaselineError" in text
    assert "Read-only file system" in text
    tree = [
        {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if _counts(p)}
        for top in (joules.path / n for n in ("before", "after-full", "after-read-only"))
    ]
    assert tree[0] == tree[1] == tree[2]
    assert len(tree[0]) == 1


def test_two_sessions_at_once_lose_nothing_of_each_other(joules):
    """Both have measured before either may write."""
    (joules.path / "conftest.py").unlink()
    path = joules.path / "baselines/fake/h200/vllm/text-conversation/qwen-qwen3-8b.json"
    args = [*COMMAND, "--joules-record", "--joules-launches=2"]
    with locked(path):
        runs = [
            subprocess.Popen(args, cwd=joules.path, env=ENV, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        wait_until(lambda: _num_results(joules) == [4, 4], seconds=300.0)
    told = [run.communicate()[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], told
    stored = baseline.load(path)
    assert [len(each) for each in stored.values()] == [4, 4]
    for each in stored.values():
        assert len({run.evidence.launch_id for run in each}) == 4
    sessions = list((joules.path / ".joules/sessions").iterdir())
    assert [(s / "end.json").exists() for s in sessions] == [True, True]


def _num_results(joules):
    stored = (joules.path / ".joules/sessions").glob("*/results.jsonl")
    return [path.read_bytes().count(b"\n") for path in stored]


def test_a_launch_that_cannot_write_its_folder_says_so(joules, tmp_path):
    """Through the real engine: the fake machine writes no logs."""
    (joules.path / "taken").write_text("a file where the folder should be")
    launch = Launch(
        points=(Point(model="org/model"),), stack=make_stack(tmp_path / "env"), gpu="h200"
    )
    engine = VllmEngine(folder=joules.path / "taken" / "launches")

    with pytest.raises(LaunchError, match=r"launches: cannot be written: .*Not a directory"):
        engine.started(launch).__enter__()


def test_a_disk_that_fills_up_under_load_ends_it_with_the_reason(tmp_path):
    """The load generator's own process writes to a device that is always full."""
    lengths = Lengths(mean=9)
    point = Point(model="org/model", batch_size=2, num_requests=6, output_tokens=lengths)
    launch = Launch(points=(point,), stack=make_stack(tmp_path / "env"), gpu="h200")
    said = r"generator ended with code 1:\nit cannot go on: .*No space left on device$"

    with VllmEngine(folder=tmp_path / "launches").started(launch) as server:
        (launched,) = (tmp_path / "launches").iterdir()
        (launched / "load-1").mkdir()
        (launched / "load-1" / "events.jsonl").symlink_to("/dev/full")
        with pytest.raises(LoadError, match=said):
            server.drive(point, min_window_s=0.0, deadline_s=60.0)
