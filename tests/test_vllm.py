"""Launching: readiness, deadlines and faults, with a program that stands in for vLLM."""

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_joules.engines.vllm import VllmEngine
from pytest_joules.errors import InvalidPoint, LaunchError, MissingDependency, ServerDied
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from tests.fakes.processes import runs
from tests.fakes.vllm_program import make_stack

POINT = Point(model="org/model", batch_size=4)


def launch(stack: Stack, point: Point = POINT) -> Launch:
    return Launch(points=(point,), stack=stack, gpu="h200")


def starts(folder: Path) -> int:
    return (folder / "env" / "was-here").read_text().count("start")


def start(tmp_path: Path, stack: Stack) -> None:
    with VllmEngine(folder=tmp_path / "launches").started(launch(stack)):
        pytest.fail("it started")


def test_a_server_is_ready_when_it_has_answered_and_is_ended_on_leaving(tmp_path: Path) -> None:
    engine = VllmEngine(folder=tmp_path / "launches")
    stack = make_stack(tmp_path / "env")

    with engine.started(launch(stack), gpu_uuids=["GPU-a", "GPU-b"]) as server:
        pids = server.process_ids
        assert len(pids) == 1
        assert server.packages["vllm"] == "9.9"
        server.require_healthy()

    assert not server.process_ids
    assert not list(filter(runs, pids))
    (log,) = (tmp_path / "launches").glob("*/vllm.log")
    assert log.read_text() == "devices GPU-a,GPU-b\n"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param("dies", r"code 1 .*\nCause: OSError: boom\n[^$]*first words", id="dies"),
        pytest.param("other-model", "serves another/model instead of org/model", id="other"),
        pytest.param("no-models", r"/v1/models in no form .*KeyError", id="no-models"),
        pytest.param("null-models", r"/v1/models in no form .*TypeError", id="null-models"),
        pytest.param("models-of-lists", "/v1/models in no form", id="models-of-lists"),
        pytest.param("endless-context", "/v1/models in no form .*endless", id="endless"),
        pytest.param("no-usage", r"first request with usage \[\]", id="no-usage"),
        pytest.param("bad-usage", "first request with usage .*1", id="wrong-count"),
        pytest.param("bad-request", "with 400: .*out of vocabulary", id="vocabulary"),
    ],
)
def test_a_server_that_is_not_as_asked_is_a_launch_error(
    fault: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(LaunchError, match=said):
        start(tmp_path, make_stack(tmp_path / "env", fault))

    assert starts(tmp_path) == 1


def test_the_deadline_of_the_stack_is_kept_and_named(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "env", "never-healthy", deadline_s=1.5)

    with pytest.raises(LaunchError, match=r"deadline of 1\.5 s.*stacks\.fake\]"):
        start(tmp_path, stack)


def test_a_port_that_was_taken_in_the_meantime_is_tried_again(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "env", "port-taken-once")

    with VllmEngine(folder=tmp_path / "launches").started(launch(stack)) as server:
        server.require_healthy()

    assert starts(tmp_path) == 2


def test_a_port_that_is_always_taken_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="another process took the port"):
        start(tmp_path, make_stack(tmp_path / "env", "port-taken"))

    assert starts(tmp_path) == 3


def test_a_server_that_died_says_so_instead_of_being_driven(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "env", "dies-when-ready")

    with VllmEngine(folder=tmp_path / "launches").started(launch(stack)) as server:
        assert server._child.wait(60) == 7  # noqa: SLF001 to know that it is dead
        with pytest.raises(ServerDied, match="ended with code 7 under load"):
            server.drive(POINT, min_window_s=0.0, deadline_s=60.0)


def test_a_stack_without_vllm_is_refused_before_anything_starts(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "env", installed=False)

    with pytest.raises(MissingDependency, match=r"stack 'fake'.*pip install vllm"):
        start(tmp_path, stack)

    assert not (tmp_path / "launches").exists()


def test_a_point_that_vllm_cannot_run_starts_nothing(tmp_path: Path) -> None:
    engine = VllmEngine(folder=tmp_path / "launches")
    stack = make_stack(tmp_path / "env")

    with (
        pytest.raises(InvalidPoint, match="published in bf16"),
        engine.started(launch(stack, Point(model="Qwen/Qwen3-8B", precision="int4"))),
    ):
        pytest.fail("it started")

    assert not (tmp_path / "env" / "was-here").exists()


def test_a_container_s_run_command_starts_vllm_and_ends_with_it(tmp_path: Path) -> None:
    """A wrapper that, as ``docker run``, passes on what it is told and runs a child."""
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1" = run ] || exit 64\nshift\n'
        'while [ "$1" = -e ]; do set_to="$set_to $2=$(printenv "$2")"; shift 2; done\n'
        '[ "$1" = image:1 ] || exit 65\nshift\n'
        'env -i PATH="$PATH" $set_to "$@" &\nwait $!\n'
    )
    docker.chmod(0o755)
    inside = make_stack(tmp_path / "env")
    passed = [*inside.env, "VLLM_API_KEY", "CUDA_VISIBLE_DEVICES"]
    stack = replace(
        inside,
        command=(str(docker), "run", *(x for name in passed for x in ("-e", name)), "image:1"),
    )
    engine = VllmEngine(folder=tmp_path / "launches")

    with engine.started(launch(stack), gpu_uuids=["GPU-a"]) as server:
        pids = server.process_ids
        assert len(pids) == 2  # the wrapper and what it runs
        assert server.packages["vllm"] == "9.9"
        server.require_healthy()

    assert not list(filter(runs, pids))
    (log,) = (tmp_path / "launches").glob("*/vllm.log")
    assert log.read_text().startswith("devices GPU-a\n")  # the shell adds a word


def test_a_container_that_does_not_start_is_told(tmp_path: Path) -> None:
    stack = replace(make_stack(tmp_path / "env"), command=("false",))

    with pytest.raises(LaunchError, match=r"false .*ended with code 1 instead of telling"):
        start(tmp_path, stack)


def test_only_the_newest_launches_are_kept_and_failed_ones_longer(tmp_path: Path) -> None:
    engine = VllmEngine(folder=tmp_path / "launches", keep=1)
    good, bad = make_stack(tmp_path / "env"), make_stack(tmp_path / "other", "dies")

    with pytest.raises(LaunchError), engine.started(launch(bad)):
        pass
    for _ in range(3):
        with engine.started(launch(good)):
            pass

    folders = list((tmp_path / "launches").iterdir())
    failed = [folder for folder in folders if (folder / "failed").exists()]
    # The current one is not counted before it has begun, so the last stays beside it.
    assert (len(failed), len(folders)) == (1, 3)
