"""Leases among real processes: exclusion, takeover, turns, deadlines, and a safe folder."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_joules.errors import LeaseError
from pytest_joules.leases import Leases
from pytest_joules.leases.allocation import Request
from pytest_joules.leases.files import opened

ROOT = Path(__file__).parents[1]
GPUS = tuple(f"GPU-{number}" for number in range(8))
OTHER = os.geteuid() or 65534


def asks(count, *, boards=(), gpus=GPUS):
    return Request(count=count, gpus=gpus, boards=boards, only_boards=bool(boards))


@dataclass
class Holder:
    """A process that leases, and what it says."""

    process: subprocess.Popen

    def hears(self, word):
        said = json.loads(self.process.stdout.readline())
        assert said[0] == word, said
        return said[1]

    def ends(self):
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "leases"


@pytest.fixture
def start(folder):
    """Start processes; all are gone at the end."""
    made = []

    def begin(request, *, wait_s=60.0, what="a launch", **how):
        asked = {"folder": str(folder), "wait_s": wait_s, "what": what}
        text = json.dumps({**asked, "request": request.as_json()})
        command = [sys.executable, "-m", "tests.fakes.lease_program", text]
        made.append(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                **how,
            )
        )
        return Holder(made[-1])

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def here(folder, request, *, wait_s=0.05, tell=lambda _: None):
    leases = Leases(folder=folder, wait_s=wait_s, poll_s=0.01)
    return leases.held(request, tell, what="this test")


def test_processes_hold_different_gpus(start):
    holders = [start(asks(1)) for _ in range(4)]

    boards = [tuple(each.hears("holds")) for each in holders]

    assert sorted(boards) == [(gpu,) for gpu in GPUS[:4]]


def test_a_lease_ends_with_its_block(folder):
    with here(folder, asks(8)) as board:
        assert board == GPUS
    with here(folder, asks(8)) as board:
        assert board == GPUS


def test_what_is_held_is_waited_for_and_then_taken(start):
    first = start(asks(8))
    first.hears("holds")
    second = start(asks(1))
    second.hears("waits")

    first.ends()

    assert len(holds(second)) == 1


def test_the_deadline_is_an_error_that_names_the_owner_and_shares_nothing(folder, start):
    owner = start(asks(8), what="qwen3-8b-b64")
    owner.hears("holds")

    with pytest.raises(LeaseError) as caught, here(folder, asks(1)):
        pytest.fail("it was shared")

    text = str(caught.value)
    assert f"held by process {owner.process.pid} of " in text
    assert "lease_program" in text
    assert "for qwen3-8b-b64" in text
    assert "--joules-lease-wait" in text
    assert "CUDA_VISIBLE_DEVICES" in text


def test_a_killed_process_leaves_its_gpus_to_the_next(folder, start):
    holder = start(asks(8))
    holder.hears("holds")

    holder.process.send_signal(signal.SIGKILL)
    holder.process.wait()

    with here(folder, asks(8)) as board:
        assert board == GPUS


def test_a_killed_process_loses_its_place_in_the_queue(folder, start):
    start(asks(8, gpus=GPUS[:4] + GPUS[5:] + GPUS[4:5])).hears("holds")
    waiting = start(asks(8))
    waiting.hears("waits")

    waiting.process.send_signal(signal.SIGKILL)
    waiting.process.wait()

    with pytest.raises(LeaseError) as caught, here(folder, asks(1)):
        pass
    assert "came first" not in str(caught.value)


def test_a_wide_request_is_not_overtaken_by_narrow_ones(start):
    running = [start(asks(1)) for _ in range(8)]
    for each in running:
        each.hears("holds")
    wide = start(asks(4), what="wide")
    wide.hears("waits")
    narrow = [start(asks(1), what="narrow") for _ in range(4)]
    assert all("for wide came first" in each.hears("waits") for each in narrow)

    by_gpu = sorted(running, key=lambda each: each.process.pid)
    for each in by_gpu[:4]:
        each.ends()

    board = holds(wide)
    assert len(board) == 4
    wide.ends()
    assert sorted(each_board for each in narrow for each_board in holds(each)) == sorted(board)


def holds(holder):
    """Read on until the process has its GPUs."""
    while (said := json.loads(holder.process.stdout.readline()))[0] == "waits":
        pass
    assert said[0] == "holds"
    return said[1]


def test_two_wide_requests_never_hold_half_each(start):
    first = start(asks(8))
    first.hears("holds")
    wide = [start(asks(5)) for _ in range(2)]
    for each in wide:
        each.hears("waits")

    first.ends()

    # Each speaks whenever what it waits for changes: they cannot be read in turns.
    with ThreadPoolExecutor() as readers:
        told = {readers.submit(holds, each): each for each in wide}
        for has_gpus in as_completed(told):
            assert len(has_gpus.result()) == 5
            told[has_gpus].ends()


def test_a_board_that_must_be_is_waited_for_though_others_are_free(folder, start):
    holder = start(asks(1, boards=((GPUS[0],),)))
    holder.hears("holds")

    with (
        pytest.raises(LeaseError, match="needs GPU-0"),
        here(folder, asks(1, boards=((GPUS[0],),))),
    ):
        pass
    with here(folder, asks(1)) as board:
        assert board == (GPUS[1],)


def test_waiting_is_told_each_time_that_it_changes(folder, start):
    start(asks(4)).hears("holds")
    told = []

    with pytest.raises(LeaseError), here(folder, asks(8), wait_s=0.2, tell=told.append):
        pass

    assert len(told) == 1
    assert told[0].startswith("needs 8 of 8 GPUs; GPU-0, GPU-1, GPU-2, GPU-3 held by process ")


def test_a_lease_is_not_inherited_by_an_engine(folder):
    """A process of a killed worker that lives on must not keep the lock."""
    with here(folder, asks(8)):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with here(folder, asks(8)) as board:
            assert board == GPUS
    finally:
        child.kill()
        child.wait()


def test_the_folder_is_sticky_and_open_to_all_whatever_the_umask(folder):
    before = os.umask(0o077)
    try:
        with here(folder, asks(1)):
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    finally:
        os.umask(before)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert set(modes.values()) == {0o666}


def test_a_private_folder_will_do(folder):
    folder.mkdir(mode=0o700)

    with here(folder, asks(1)) as board:
        assert board == (GPUS[0],)


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_whose_files_others_may_replace_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(LeaseError, match=r"others may replace its files.*chmod 1777"):
        here(folder, asks(1)).__enter__()


def test_a_folder_that_is_a_link_is_refused_and_nothing_is_written(folder, tmp_path):
    target = tmp_path / "home"
    target.mkdir()
    folder.symlink_to(target)

    with pytest.raises(LeaseError, match="--joules-lease-folder"):
        here(folder, asks(1)).__enter__()
    assert list(target.iterdir()) == []


def test_a_missing_parent_is_told(tmp_path):
    with pytest.raises(LeaseError, match="No such file"):
        here(tmp_path / "no" / "leases", asks(1)).__enter__()


def planted_link(path, victim):
    path.symlink_to(victim)


def planted_hard_link(path, victim):
    path.hardlink_to(victim)


def planted_pipe(path, victim):
    del victim
    os.mkfifo(path)


def planted_folder(path, victim):
    del victim
    path.mkdir()


@pytest.mark.parametrize("name", ["queue.lock", "gpu-GPU-0.lock"])
@pytest.mark.parametrize(
    "plant", [planted_link, planted_hard_link, planted_pipe, planted_folder]
)
def test_what_somebody_planted_is_refused_and_not_written(folder, name, plant):
    with here(folder, asks(1)):
        pass
    victim = folder.parent / "precious"
    victim.write_text("precious")
    (folder / name).unlink()
    plant(folder / name, victim)

    with pytest.raises(LeaseError, match=name):
        here(folder, asks(1)).__enter__()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"request": 1}', '{"request": {"count": "x"}}', "[" * 100_000]
)
def test_a_ticket_that_says_nothing_asks_for_nothing(folder, text):
    with opened(folder) as planted:
        held = planted.lock("ticket-00000001")
        os.pwrite(held.descriptor, text.encode(), 0)

        with here(folder, asks(8)) as board:
            assert board == GPUS
        held.close()


@pytest.mark.parametrize(
    "plant", [planted_link, planted_hard_link, planted_pipe, planted_folder]
)
def test_a_ticket_that_nobody_can_lock_keeps_nobody_waiting(folder, plant):
    """Tickets give the order alone: what no GPU can be held by may not stop all launches."""
    with here(folder, asks(1)):
        pass
    victim = folder.parent / "precious"
    victim.write_text("precious")
    plant(folder / "ticket-00000001", victim)

    with here(folder, asks(8)) as board:
        assert board == GPUS
    assert victim.read_text() == "precious"


def test_a_ticket_that_may_not_be_opened_keeps_nobody_waiting():
    """Root's, where another user asks; else a file of one's own without rights."""
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        folder = Path(top) / "leases"
        with here(folder, asks(8)):
            pass
        (folder / "ticket-00000001").touch(mode=0)

        with another_user(folder, asks(8)):
            assert (folder / "ticket-00000001").exists()


def test_what_a_lease_file_says_of_its_process_holds_no_secret(folder, start, monkeypatch):
    """Its readers are other users, who do not know what is one."""
    monkeypatch.setenv("HF_TOKEN", "hf_Planted1xyz")
    start(asks(1), what="x").hears("holds")
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"pytest\0--of=hf_Planted1xyz\0")

    with here(folder, asks(1, gpus=GPUS[1:])) as (gpu,):
        assert json.loads((folder / f"gpu-{gpu}.lock").read_text())["command"] == (
            "pytest --of=***"
        )


def test_what_an_owner_says_steers_no_terminal(folder, start):
    start(asks(8), what="\x1b[31mred").hears("holds")

    with pytest.raises(LeaseError) as caught, here(folder, asks(1)):
        pass

    assert "\x1b" not in str(caught.value)
    assert r"\x1b[31mred" in str(caught.value)


def test_another_users_lock_excludes_and_its_leftovers_do_not():
    """Only root can become another user; anybody else meets a second process of their own."""
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        folder = Path(top) / "leases"
        with here(folder, asks(8)):
            pass
        with (
            another_user(folder, asks(8)) as pid,
            pytest.raises(LeaseError, match=f"process {pid} of somebody"),
        ):
            here(folder, asks(1)).__enter__()
        assert {each.stat().st_uid for each in folder.iterdir()} == {os.geteuid(), OTHER}
        with here(folder, asks(8)) as board:
            assert board == GPUS


@contextmanager
def another_user(folder, request):
    """Run a process of another account that holds GPUs and then is killed."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(OTHER)
                os.setuid(OTHER)
            os.environ["LOGNAME"] = "somebody"
            with opened(folder) as made:
                made.lock("ticket-00000007").write("left over")
                with here(folder, request) as board:
                    os.write(theirs, ",".join(board).encode())
                    signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    try:
        assert os.read(ours, 1000).decode() == ",".join(request.gpus)
        yield pid
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
