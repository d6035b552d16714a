import pytest

from pytest_joules.errors import InvalidPoint
from pytest_joules.plan import Costs, Pace, Plan, Stack, plan, require_runs_on, server_key
from pytest_joules.point import Point
from pytest_joules.tasks import Lengths

QWEN = Point(model="Qwen/Qwen3-8B", precision="bf16")


def made(*points: Point, gpu: str = "h200") -> Plan:
    return plan(points, stack=Stack(), gpu=gpu)


def test_a_sweep_of_one_model_is_one_launch_largest_batch_first() -> None:
    batches = [1, 8, 16, 32, 64, 96, 128, 256]
    tasks = ["text-conversation", "problem-solving", "code-completion"]
    points = QWEN.sweep(batch_size=batches, task=tasks)
    assert len(points) == 24

    (launch,) = made(*points).launches

    assert sorted(p.batch_size for p in launch.points) == sorted(batches * 3)
    assert [p.batch_size for p in launch.points] == sorted(batches * 3, reverse=True)
    assert launch.largest.batch_size == 256


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 64},
        {"num_requests": 100},
        {"seed": 7},
        {"input_tokens": Lengths(mean=10)},
        {"output_tokens": Lengths(mean=10)},
        {"task": "problem-solving"},
    ],
)
def test_what_only_shapes_requests_shares_a_server(changes: dict[str, object]) -> None:
    assert server_key(QWEN.but(**changes)) == server_key(QWEN)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "Qwen/Qwen3-14B"},
        {"precision": "fp8"},
        {"num_gpus": 2},
        {"engine": "transformers"},
        {"weights": "dummy"},
        {"engine_args": ("--enforce-eager",)},
        {"prefix_caching": True},
        {"tensor_parallel": 1},
        {"max_model_len": 4096},
        {"trust_remote_code": True},
        {"task": "image-chat"},
    ],
)
def test_what_shapes_the_server_needs_one_of_its_own(changes: dict[str, object]) -> None:
    assert server_key(QWEN.but(**changes)) != server_key(QWEN)
    assert len(made(QWEN, QWEN.but(**changes)).launches) == 2


def test_image_chat_and_video_chat_do_not_share_a_server() -> None:
    assert len(made(*QWEN.sweep(task=["image-chat", "video-chat"])).launches) == 2


def test_points_that_want_their_own_server_get_one_for_each_batch() -> None:
    alone = QWEN.but(shared_server=False)

    launches = made(*alone.sweep(batch_size=[8, 16], seed=[0, 1]), QWEN).launches

    assert [[p.batch_size for p in launch.points] for launch in launches] == [
        [8, 8],
        [16, 16],
        [1],
    ]


def test_diffusion_points_of_one_model_share_a_worker() -> None:
    image = Point(model="black-forest-labs/FLUX.1-dev", task="text-to-image", height=512)

    launches = made(*image.sweep(batch_size=[1, 4]), image.but(height=1024)).launches

    assert [len(launch.points) for launch in launches] == [3]


def test_equal_points_are_measured_once_and_launches_keep_their_order() -> None:
    other = QWEN.but(precision="fp8")

    launches = made(other, QWEN, other, QWEN).launches

    assert [launch.points for launch in launches] == [(other,), (QWEN,)]


def test_gpu_minutes_count_every_gpu_from_start_to_end() -> None:
    # 90 s start, and 30 s + 60 s for each of two points, on four GPUs: 270 x 4 / 60
    big = made(*QWEN.but(num_gpus=4).sweep(batch_size=[8, 16]))
    assert big.total_gpu_minutes == 18.0

    # 10 s + 3 x (5 s + 15 s) = 70 s, and 10 s + 20 s = 30 s on two GPUs: 70 + 60 s
    mixed = Plan(
        launches=made(*QWEN.sweep(batch_size=[1, 2, 3]), QWEN.but(num_gpus=2)).launches,
        costs=Costs(start_s=10, ramp_up_s=5, min_window_s=15),
    )
    assert mixed.total_gpu_minutes == pytest.approx(130 / 60)


def test_nothing_costs_nothing() -> None:
    assert made().total_gpu_minutes == 0


def test_fp8_is_refused_where_the_gpu_has_none() -> None:
    fp8 = QWEN.but(precision="fp8")

    with pytest.raises(InvalidPoint, match="a100 has no FP8 arithmetic; use bf16 there"):
        made(fp8, gpu="a100")
    require_runs_on(fp8, "h200")
    require_runs_on(fp8, "a-gpu-that-nobody-knows")
    require_runs_on(QWEN, "a100")


IMAGES = Point(model="Qwen/Qwen3-VL-8B-Instruct", task="image-chat")


def test_images_of_any_size_share_a_server_and_any_number_does_not() -> None:
    sizes = IMAGES.sweep(width=[512, 1024], seed=[0, 1])
    videos = IMAGES.but(task="video-chat").sweep(num_frames=[8, 16], height=[180, 360])

    assert len(made(*sizes, IMAGES.but(media="photos")).launches) == 1
    assert len(made(*IMAGES.sweep(num_images=[1, 2])).launches) == 2
    assert len(made(*videos).launches) == 2


def test_long_requests_cost_more_than_the_window() -> None:
    # 200 s a request: opened after 200 s, open as long, drained in 300 s. Short ones: as ever.
    long, short = (
        Costs(pace=lambda *_, p=p: p)
        for p in (Pace(request_s=200, drain_s=300), Pace(request_s=5, drain_s=20))
    )

    assert long.of(QWEN, "h200") == 200 + 200 + 300
    assert short.of(QWEN, "h200") == 30 + 60
    # 3 rounds of 200 s, which are the pinned work, then drained.
    assert long.of(QWEN.but(num_requests=3 * QWEN.batch_size), "h200") == 3 * 200 + 300
    # A launch counts its start, and every GPU.
    two = made(QWEN.but(num_gpus=2)).launches
    assert Plan(launches=two, costs=long).total_gpu_minutes == (90 + 700) * 2 / 60
