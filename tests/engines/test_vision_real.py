"""Images and videos through a real vLLM: a tiny Qwen2-VL with random weights."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_joules.assess.request_times import request_times
from pytest_joules.engines.vllm import VllmEngine, VllmServer
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

HERE = Path(__file__).parent
PATIENCE_S = 300.0
DISTURBED = {"client-lagged", "client-busy", "scrape-slow", "batch-starved", "window-late"}
"""What a short load meets that has to share its core with other work."""

TOKENS_AROUND = 2
"""The model's marks where what is shown begins and ends."""


@pytest.fixture(scope="module")
def vision_stack(stack: Stack, engine_python: str) -> Stack:
    """Video preprocessors need torchvision, which is on PyPI for CUDA only."""
    torchvision = Path(engine_python).parents[1] / "torchvision"
    assert (torchvision / "torchvision").is_dir(), f"{torchvision} holds no torchvision"
    paths = f"{torchvision}:{HERE / 'torchvision_without_cuda'}"
    return replace(stack, env={**stack.env, "PYTHONPATH": paths})


@pytest.fixture(scope="module")
def vision_model(engine_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-qwen2-vl")
    maker = HERE / "tiny_vision_model.py"
    subprocess.run([engine_python, str(maker), str(folder)], check=True, timeout=60)
    return folder


def point_of(model: Path, **fields: object) -> Point:
    base = Point(
        model=str(model),
        task="image-chat",
        batch_size=4,
        weights="dummy",
        num_requests=20,
        max_model_len=1024,
        engine_args=["--enforce-eager"],
        width=112,
        height=112,
        input_tokens=Lengths(mean=16, cv=0.5, longest=64),
        output_tokens=Lengths(mean=30, cv=0.6, shortest=8, longest=120),
    )
    return base.but(**fields)


@contextmanager
def serving(points: list[Point], stack: Stack, folder: Path) -> Iterator[VllmServer]:
    launch = Launch(points=tuple(points), stack=stack, gpu="cpu")
    with VllmEngine(folder=folder).started(launch) as server:
        yield server


def require_counted(trace: LoadTrace, point: Point, *, shown: int) -> None:
    """A square of 112 pixels is 8 x 8 patches of 14, four of which make one token."""
    pinned = list(point.requests())
    prompts = [request.prompt_tokens + shown for request in pinned]
    first, last = trace.server[0], trace.server[-1]

    assert [request.error for request in trace.requests] == [None] * len(pinned)
    assert [r.prompt_tokens for r in trace.requests] == prompts
    assert [r.output_tokens for r in trace.requests] == [r.output_tokens for r in pinned]
    assert last.prompt_tokens - first.prompt_tokens == sum(prompts)
    assert last.output_tokens - first.output_tokens == sum(r.output_tokens for r in pinned)


def require_timed(trace: LoadTrace) -> None:
    times = request_times(trace.server, full_batch_window(trace))

    assert times is not None
    assert 0 < times.preprocessing_s < times.whole_s
    streamed = [r for r in trace.requests if r.first_token_s is not None]
    assert len(streamed) >= 16
    # What the client sees of a request is never less than what the server tells of it.
    whole_s = [request.finish_s - request.sent_s for request in trace.requests]
    told = [sample.e2el_s for sample in (trace.server[0], trace.server[-1])]
    assert told[0] is not None
    assert told[1] is not None
    assert 0 < told[1] - told[0] <= sum(whole_s)


@pytest.fixture(scope="module")
def images(vision_model: Path) -> list[Point]:
    """Two images each, at two sizes on one server."""
    return [point_of(vision_model, num_images=2, width=width) for width in (112, 224)]


@pytest.fixture(scope="module")
def image_server(
    images: list[Point], vision_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    with serving(images, vision_stack, tmp_path_factory.mktemp("images")) as server:
        yield server


def test_images_are_seen_in_full_by_every_request(
    images: list[Point], image_server: VllmServer
) -> None:
    small, large = (
        image_server.drive(point, min_window_s=0.0, deadline_s=PATIENCE_S) for point in images
    )

    require_counted(small, images[0], shown=2 * (16 + TOKENS_AROUND))
    require_counted(large, images[1], shown=2 * (32 + TOKENS_AROUND))
    require_timed(small)
    require_timed(large)


@dataclass(frozen=True, kw_only=True)
class Running:
    """An engine whose server is there already, so that a module needs one only."""

    server: VllmServer
    name: str = "vllm"
    attaches: bool = False

    @contextmanager
    def started(self, launch: Launch, *, gpu_uuids: Sequence[str]) -> Iterator[VllmServer]:
        del launch, gpu_uuids
        yield self.server


def test_the_preparation_of_images_is_part_of_a_metered_result(
    images: list[Point], image_server: VllmServer, mock_nvml: MockNvml
) -> None:
    mock_nvml.set_power(0, 300.0)
    point = images[0].but(num_requests=None)
    rig = Rig(
        engine=Running(server=image_server),
        meter=ZeusMeter(),
        procedure=Procedure(min_window_s=3.0),
    )

    (result,) = measure(Launch(points=(point,), stack=Stack(), gpu="h200"), rig, {})

    assert isinstance(result, Result), result
    assert {reason.code for reason in result.reasons} <= DISTURBED
    assert 0 < result.mean_preprocessing_s < 10
    assert result.evidence
    assert result.evidence.mean_prompt_tokens is not None
    assert 2 * 18 + 8 < result.evidence.mean_prompt_tokens < 2 * 18 + 32
    assert Result.from_json(result.as_json()) == result


def test_all_declared_frames_of_a_video_are_seen(
    vision_model: Path, vision_stack: Stack, tmp_path: Path
) -> None:
    """Two frames make one layer of 16 tokens."""
    point = point_of(vision_model, task="video-chat", num_frames=6, fps=2)

    with serving([point], vision_stack, tmp_path) as server:
        trace = server.drive(point, min_window_s=0.0, deadline_s=PATIENCE_S)

    require_counted(trace, point, shown=3 * 16 + TOKENS_AROUND)
    require_timed(trace)
