"""Text through the real transformers library's continuous batching, metered on a mock GPU."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_joules.assess.validity import mean_batch_size
from pytest_joules.engines.transformers import TransformersEngine
from pytest_joules.errors import LaunchError
from pytest_joules.measure import measure
from pytest_joules.meter import ZeusMeter
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Result
from pytest_joules.rig import Rig
from pytest_joules.steady_state import full_batch_window
from pytest_joules.tasks import Lengths
from pytest_joules.trace import LoadTrace
from tests.fakes.mock_nvml import MockNvml

WATTS = 300.0


@pytest.fixture
def launch(stack: Stack, tiny_model: Path) -> Launch:
    """A cache of 64 pages: on a CPU the library would take most of the memory."""
    point = Point(
        model=str(tiny_model),
        engine="transformers",
        weights="dummy",
        batch_size=4,
        engine_args=["num_blocks=64", "max_batch_tokens=256"],
        input_tokens=Lengths(mean=16, cv=0.5, longest=64),
        output_tokens=Lengths(mean=20, cv=0.6, shortest=4, longest=80),
    )
    on_cpu = replace(stack, env={**stack.env, "PYTEST_JOULES_DEVICE": "cpu"})
    return Launch(points=(point, point.but(batch_size=2)), stack=on_cpu, gpu="h200")


def test_a_model_is_measured_with_its_batch_full(
    launch: Launch, mock_nvml: MockNvml, tmp_path: Path
) -> None:
    mock_nvml.set_power(0, WATTS)
    rig = Rig(
        engine=TransformersEngine(folder=tmp_path),
        meter=ZeusMeter(),
        procedure=Procedure(min_window_s=4.0),
    )

    outcomes = list(measure(launch, rig, {}))

    for outcome, batch_size in zip(outcomes, [4, 2], strict=True):
        assert isinstance(outcome, Result), outcome
        # A ramp-up on a busy machine may take more than half of so short a load.
        assert {reason.code for reason in outcome.reasons} <= {"window-late"}
        assert outcome.power_w == pytest.approx(WATTS, rel=0.03)
        assert outcome.mean_batch_size is not None
        assert 0.85 * batch_size <= outcome.mean_batch_size <= batch_size
        assert outcome.latency.median_itl_s is not None
        assert {"torch", "transformers"} < outcome.provenance.context.packages.keys()


def test_fixed_work_is_the_same_work_and_a_batch_in_flight(
    launch: Launch, tmp_path: Path
) -> None:
    point = launch.largest.but(num_requests=20)
    alone = replace(launch, points=(point,))

    with TransformersEngine(folder=tmp_path).started(alone) as server:
        first, again = (
            server.drive(point, min_window_s=0.0, deadline_s=200.0) for _ in range(2)
        )

    for trace in (first, again):
        assert isinstance(trace, LoadTrace)
        assert [r.error for r in trace.requests] == [None] * 20
        pinned = [(r.index, r.prompt_tokens, r.output_tokens) for r in point.requests()]
        made = [(r.index, r.prompt_tokens, r.output_tokens) for r in trace.requests]
        assert made == pinned
        assert trace.server[-1].output_tokens == sum(tokens for *_, tokens in pinned)
        assert max(sample.running + sample.waiting for sample in trace.server) <= 4
        batch = mean_batch_size(trace.server, full_batch_window(trace))
        assert batch is not None
        assert 3.2 < batch <= 4


MAKE_WEIGHTS = """
import sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.from_pretrained(sys.argv[1])
AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(sys.argv[2])
"""


def test_published_weights_are_loaded(launch: Launch, tiny_model: Path, tmp_path: Path) -> None:
    python, folder = launch.stack.python, tmp_path / "with-weights"
    subprocess.run(
        [python, "-c", MAKE_WEIGHTS, str(tiny_model), str(folder)], check=True, timeout=100
    )
    point = launch.largest.but(model=str(folder), weights="real", num_requests=12)
    alone = replace(launch, points=(point,))

    with TransformersEngine(folder=tmp_path / "launches").started(alone) as server:
        trace = server.drive(point, min_window_s=0.0, deadline_s=200.0)

    assert [request.error for request in trace.requests] == [None] * 12


def test_without_a_gpu_it_does_not_run_on_the_cpu_unasked(
    launch: Launch, stack: Stack, tmp_path: Path
) -> None:
    alone = replace(launch, stack=stack)

    with (
        pytest.raises(LaunchError, match=r"sees no GPU.*PYTEST_JOULES_DEVICE=cpu"),
        TransformersEngine(folder=tmp_path).started(alone),
    ):
        pytest.fail("it started")
