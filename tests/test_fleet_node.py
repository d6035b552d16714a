"""The process on a node, as a process: what it says, and that its end ends everything."""

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_joules import errors
from pytest_joules.errors import FormatError, LaunchError, MeterError
from pytest_joules.fleet import carrier, lines, wire
from pytest_joules.fleet.cluster import NodeInfo
from pytest_joules.fleet.node import Node, require_room
from pytest_joules.leases import Leases
from pytest_joules.leases.allocation import Request
from pytest_joules.measure import Failure, FrozenWork
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Launch, Stack, plan
from pytest_joules.point import Point
from pytest_joules.steady_state import Work
from pytest_joules.tasks import Lengths
from pytest_joules.testing import FakeMachine, source_of
from pytest_joules.version import __version__
from tests.fakes import fleet

STACK = Stack(name="old", python="/envs/old/bin/python", env={"A": "b"}, args=("--x", "1"))
POINT = Point(model="Qwen/Qwen3-8B", batch_size=8, output_tokens=Lengths(mean=50, cv=0.5))
LAUNCH = Launch(points=(POINT, POINT.but(batch_size=4)), stack=STACK, gpu="h200")


def through_the_wire(values):
    return json.loads(lines.line(values))


def test_what_goes_over_the_wire_comes_out_equal():
    options = Options(
        gpu="h200",
        stacks={"old": STACK},
        window=12.5,
        baselines=Path("/b"),
        point_deadline=90.0,
        lease_wait=5.0,
        lease_folder=Path("/leases"),
        resume="died",  # or a simulated node would draw the noise of before once more
    )
    frozen = {POINT: FrozenWork(num_requests=64, work=Work(start_index=3, end_index=40))}

    assert wire.launch_from(through_the_wire(wire.launch_json(LAUNCH))) == LAUNCH
    assert wire.options_from(through_the_wire(wire.options_json(options))) == options
    sent = through_the_wire({"frozen": wire.frozen_json(frozen)})["frozen"]
    assert wire.frozen_from(sent) == frozen


class OtherError(MeterError):
    """One that ``errors`` does not list."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [(LaunchError("no"), LaunchError), (OtherError("no"), MeterError)],
    ids=["listed", "nearest"],
)
def test_an_error_keeps_its_class_and_names_the_node(error, kind):
    failure = Failure(point=POINT, error=error)

    back = wire.outcome_from(through_the_wire(wire.outcome_json(failure)), "node a")

    assert back.point == POINT
    assert type(back.error) is kind
    assert str(back.error) == "node a: no"


@pytest.mark.parametrize(
    "kind", ["NoSuch", "os", "_Told", "EnergyRegression"], ids=["none", "module", "base", "red"]
)
def test_only_errors_of_ours_are_made_from_what_a_node_says(kind):
    made = lines.error_from({"kind": kind, "text": "x"}, "node a")

    assert type(made) is errors.JoulesError


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", '"a"', '{"a":'])
def test_what_is_no_message_is_refused(text):
    with pytest.raises(FormatError, match="which is no message"):
        lines.message(text)


def test_room_is_taken_and_given_back(tmp_path):
    require_room(tmp_path, 1 << 20)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("accelerator", "gpu", "may"),
    [
        ("H100", "h100", True),
        ("H100", "h100-nvl", True),
        ("H100", "h200", False),
        ("A100-80G", "a100", True),
        ("", "anything", True),
        ("B200", "gb200", False),
    ],
)
def test_which_nodes_are_asked(accelerator, gpu, may):
    node = NodeInfo(id="0123456789", host="h", num_gpus=8, accelerator=accelerator)

    assert node.may_have(gpu) is may
    assert node.name == "h (012345)"


@pytest.fixture
def process(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest_joules.fleet.node"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with child:
        yield child
        child.kill()


def test_a_node_says_who_it_is_and_answers_until_its_input_ends(process):
    def ask(**message):
        process.stdin.write(lines.line(message))
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    hello = json.loads(process.stdout.readline())["hello"]
    assert hello == {"version": __version__, "pid": process.pid}
    early = ask(identify=wire.launch_json(LAUNCH))["error"]
    assert "before it said who it is" in early["text"]
    setup = {"maker": "pytest_joules.testing", "session": "s"}
    options = wire.options_json(Options(gpu="h200"))
    assert ask(setup={**setup, "options": options}) == {"ready": {}}
    launch = wire.launch_json(replace(LAUNCH, points=(POINT,)))
    assert ask(identify=launch)["identity"]["gpu_model"] == "NVIDIA H200"
    result = ask(launch=launch, frozen=[], asks=False)
    while "outcome" not in result:
        result = json.loads(process.stdout.readline())
    assert result["outcome"]["result"]["provenance"]["context"]["session"] == "s"
    process.stdin.close()
    assert process.wait(60) == 0


def test_a_plugin_that_is_not_installed_on_the_node_is_told(process):
    process.stdout.readline()
    setup = {"maker": "no_such_plugin", "session": "s"}
    message = {"setup": {**setup, "options": wire.options_json(Options(gpu="h200"))}}
    process.stdin.write(lines.line(message))
    process.stdin.flush()

    error = json.loads(process.stdout.readline())["error"]

    assert error["kind"] == "ConfigurationError"
    assert "install it on every node" in error["text"]


def test_the_actor_needs_nothing_of_this_package_and_tells_how_the_process_ended(
    tmp_path, monkeypatch
):
    """On a node without pytest-joules: its file alone, and an interpreter that lacks it."""
    source = Path(carrier.__file__).read_text()
    assert "pytest_joules import" not in source
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    names = {"__name__": "shipped"}
    exec(compile(source, "<actor>", "exec"), names)

    actor = names["Carrier"]("s", sees_all=True)

    told = []
    while not told:
        told = actor.hear(5.0)
    died = json.loads(told[0])["died"]
    assert died["status"] == 1
    assert "No module named" in died["said"]
    assert "pytest_joules" in died["said"]
    assert actor.end(5.0)
    assert not [*tmp_path.glob("pytest-joules-*/*")]


def test_a_launch_that_waits_to_hear_whether_it_may_go_on_ends_with_the_input(
    tmp_path, monkeypatch
):
    made = FakeMachine(num_gpus=1, journal=tmp_path / "journal")
    monkeypatch.setattr(fleet, "pytest_joules_source", lambda _: source_of(made))
    said = []
    node = Node(lambda **message: said.append(message))
    options = wire.options_json(Options(gpu="h200"))
    node.answer({"setup": {"options": options, "maker": fleet.MAKER, "session": "s"}})

    def events():
        return [json.loads(line)["event"] for line in made.journal.read_text().splitlines()]

    with closing(node):
        node.answer({"launch": wire.launch_json(LAUNCH), "frozen": [], "asks": True})
        assert sum("outcome" in each for each in said) == 1
        assert events() == ["begins"]

    assert sum("outcome" in each for each in said) == 1
    assert events() == ["begins", "ends"]
    assert said[-1]["ended"]["error"] is None


def test_a_launch_that_does_not_wait_cannot_go_on():
    said = []

    Node(lambda **message: said.append(message)).answer({"go_on": True})

    assert "none waits" in said[0]["error"]["text"]


def test_waiting_for_others_on_the_node_is_told_and_costs_nothing(tmp_path, monkeypatch):
    made = FakeMachine(num_gpus=1)
    leases = Leases(folder=tmp_path / "leases", wait_s=0.05, poll_s=0.01)
    source = source_of(made, leases=leases)
    monkeypatch.setattr(fleet, "pytest_joules_source", lambda _: source)
    said = []

    def tell(**message):
        said.append(message)
        made.clock.now_s += 100.0 * ("waits" in message)

    node = Node(tell)
    options = wire.options_json(Options(gpu="h200"))
    node.answer({"setup": {"options": options, "maker": fleet.MAKER, "session": "s"}})
    launch = plan([POINT], stack=STACK, gpu="h200").launches[0]
    asked = Request(count=1, gpus=(made.identify()[0].uuid,))
    with leases.held(asked, lambda _: None, what="somebody else"):
        node.answer({"launch": wire.launch_json(launch), "frozen": [], "asks": False})

    first, *_, last = [each["waits"] for each in said if "waits" in each]
    assert "somebody else" in first
    assert last == ""
    ended = said[-1]["ended"]
    assert ended["elapsed_s"] == 0
    assert ended["error"]["kind"] == "LeaseError"
