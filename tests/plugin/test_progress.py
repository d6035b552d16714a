"""Progress in pytest's output: plain lines in a log, a status line on a terminal."""

import os
import pty
import subprocess
import sys
import textwrap

import pytest

REAL = """
    from dataclasses import replace
    from pytest_joules.testing import FakeMachine, source_of

    machine = FakeMachine({machine})

    def pytest_joules_source(options):
        made = source_of(machine, window_s=options.window)
        rigs = {{name: replace(rig, source="live") for name, rig in made.rigs.items()}}
        return replace(made, rigs=rigs, name="live")
"""
TESTS = """
    from pytest_joules import Point

    QWEN = Point(model="Qwen/Qwen3-8B")

    def test_one(energy_bench):
        print("printed before")
        energy_bench.measure(QWEN.but(batch_size=16))
        print("printed after")

    def test_two(energy_bench):
        energy_bench.measure(QWEN.but(batch_size=64))

    def test_plain():
        pass
"""


@pytest.fixture
def live(joules):
    """A machine whose results pass for measured ones."""

    def machine(arguments=""):
        (joules.path / "conftest.py").write_text(
            textwrap.dedent(REAL.format(machine=arguments))
        )

    joules.machine = machine
    machine()
    joules.tests(TESTS)
    return joules


def told(run):
    return [line for line in run.stdout.lines if line.startswith("joules ")]


def ran(joules, *args):
    """Run without ``-s``, as people do."""
    return joules.pytester.runpytest_inprocess("--gpu=h200", *args)


@pytest.mark.parametrize("args", [[], ["-q"], ["-v"], ["-s"], ["-p", "no:capture"]])
def test_a_log_gets_whole_lines_in_order(live, args):
    run = ran(live, *args)

    run.assert_outcomes(passed=3)
    launch, load_64, done_64, load_16, done_16 = told(run)
    assert "launch 1 of 1: vllm Qwen/Qwen3-8B bf16 on 1 x h200" in launch
    # Reading idle GPUs takes 0.4 s, starting 1.0 s and the first readings 0.2 s.
    assert "ready after 0:02; load qwen3-8b-text-conversation-bf16-1gpu-b64" in load_64
    assert "-b64: 151 mJ/token in 6" in done_64
    assert "so far" in done_16
    assert "GPU minutes, about 0:00 left" in done_16
    assert "load qwen3-8b-text-conversation-bf16-1gpu-b16" in load_16


@pytest.mark.parametrize("args", [[], ["--capture=sys"], ["-v"]])
def test_what_the_test_prints_stays_captured_and_progress_does_not(live, args):
    live.tests("""
        from pytest_joules import Point

        def test_red(energy_bench, capsys):
            print("printed before")
            energy_bench.measure(Point(model="Qwen/Qwen3-8B", batch_size=16)).power_w
            assert capsys.readouterr().out == "printed before\\n"
            print("printed after")
            assert False
    """)

    # A process of its own: only there does capture take what leaves by the descriptor.
    run = live.pytester.runpytest_subprocess("--gpu=h200", *args)

    shown, captured = run.stdout.str().split("Captured stdout call")
    assert "launch 1 of 1" in shown[: shown.index("FAILURES")]
    assert "printed after" not in shown.split("FAILURES")[0]
    assert "printed after" in captured
    assert "launch 1 of 1" not in captured


@pytest.mark.parametrize("args", [["-qq"], ["-p", "no:terminal"], ["--joules-plan"]])
def test_who_asks_for_silence_gets_it(live, args):
    run = ran(live, *args)

    assert told(run) == []
    assert run.ret == 0


def test_a_fake_machine_is_over_in_a_moment_and_tells_nothing(live):
    (live.path / "conftest.py").unlink()

    assert told(ran(live, "-p", "pytest_joules.testing")) == []


def test_a_launch_that_fails_is_named_and_the_run_goes_on(live):
    live.machine("dies_after_requests=40")

    run = ran(live)

    assert any("no result (ServerDied)" in line for line in told(run))


def test_recording_counts_launches_and_the_budget(live):
    live.tests("""
        from pytest_joules import Point

        def test_one(energy_bench):
            energy_bench.check(Point(model="Qwen/Qwen3-8B", batch_size=16))
    """)

    run = ran(live, "--joules-record", "--joules-budget=100")

    lines = told(run)
    assert [line.split(": vllm")[0][-13:] for line in lines if ": vllm" in line] == [
        "launch 1 of 3", "launch 2 of 3", "launch 3 of 3",
    ]  # fmt: skip
    measured = [line for line in lines if "mJ/token" in line]
    assert ["of 100 GPU minutes" in line for line in measured] == [True] * 3
    again = ran(live)
    assert "launch 1 of 1 or more" in told(again)[0]


def on_a_terminal(joules, *args):
    """Run pytest on a pseudo-terminal of 100 columns; return all that it wrote."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "pytest", "--gpu=h200", "-p", "no:cacheprovider", *args]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    with subprocess.Popen(
        command,
        cwd=joules.path,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
    ) as child:
        os.close(follower)
        written = b""
        while piece := _piece(leader):
            written += piece
    os.close(leader)
    return written.decode(), child.returncode


def _piece(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux tells that the other end is closed
        return b""


@pytest.mark.parametrize("args", [[], ["-v"], ["-s"]])
def test_on_a_terminal_the_status_line_is_wiped_before_pytest_writes(live, args):
    text, code = on_a_terminal(live, *args)

    assert code == 0, text
    lines = [line for line in text.replace("\r", "\n").split("\n") if "launch 1 of 1" in line]
    assert lines
    assert "joules 0:" not in text
    # What follows the last status line begins by wiping it.
    after = text[text.rindex(" left") :]
    assert "\x1b[2K" in after[:40]
    assert "3 passed" in after
