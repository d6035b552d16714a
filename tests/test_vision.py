"""What requests of vision tasks show: declared, checked, part of the point."""

from typing import Any

import pytest

from pytest_joules.errors import InvalidPoint
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.report.text import describe_plan

MODEL = "Qwen/Qwen3-VL-8B-Instruct"
IMAGE = Point(model=MODEL, task="image-chat")
VIDEO = Point(model=MODEL, task="video-chat")


@pytest.mark.parametrize(
    ("point", "text"),
    [
        (IMAGE, "1 image, 1024 x 1024"),
        (IMAGE.but(num_images=3, width=640, height=480), "3 images, 640 x 480"),
        (IMAGE.but(media="photos"), "1 image, files of photos"),
        (VIDEO, "video of 32 frames at 1 fps, 640 x 360"),
        (
            VIDEO.but(num_frames=8, fps=2, media="clips"),
            "video of at most 8 frames at 2 fps, files of clips",
        ),
        (VIDEO.but(media="clips"), "video of at most 32 frames, files of clips"),
    ],
)
def test_what_is_shown_can_be_said_and_the_plan_says_it(point: Point, text: str) -> None:
    lines = describe_plan(plan([point], stack=Stack(), gpu="h200"))

    assert str(point.vision).startswith(text)
    assert lines[2].startswith(f"    each request shows {text}")


def test_a_text_point_and_a_diffusion_point_show_nothing() -> None:
    assert Point(model="a/b").vision is None
    assert Point(model="a/b", task="text-to-image", width=512).vision is None
    told = describe_plan(plan([Point(model="a/b")], stack=Stack(), gpu="h200"))
    assert not any("shows" in line for line in told)


@pytest.mark.parametrize(
    ("task", "fields", "said"),
    [
        ("image-chat", {"num_frames": 8}, "num_frames has no meaning for task='image-chat'"),
        ("image-chat", {"fps": 1}, "fps has no meaning"),
        ("image-chat", {"steps": 20}, "steps has no meaning"),
        ("image-chat", {"ulysses_degree": 1}, "ulysses_degree has no meaning"),
        ("image-chat", {"num_images": 0}, "num_images=0: give a whole number of at least 1"),
        ("image-chat", {"width": 8193}, "width=8193: give at most 8192 pixels"),
        ("image-chat", {"media": 3}, "media=3: give a string"),
        ("image-chat", {"media": "x", "width": 8}, "width: the files in media='x' have"),
        ("image-chat", {"engine": "transformers"}, "engines that can: vllm, endpoint"),
        ("image-chat", {"engine": "diffusers"}, "cannot run task='image-chat'"),
        ("video-chat", {"num_images": 1}, "num_images has no meaning for task='video-chat'"),
        ("video-chat", {"num_frames": True}, "num_frames=True: give a whole number"),
        ("text-conversation", {"width": 8}, "width has no meaning"),
        ("text-conversation", {"num_images": 1}, "num_images has no meaning"),
        ("text-conversation", {"media": "x"}, "media has no meaning"),
        ("text-to-image", {"num_images": 1}, "num_images has no meaning"),
        ("text-to-video", {"media": "x"}, "media has no meaning"),
        ("text-to-image", {"engine": "vllm"}, "engines that can: diffusers, xdit"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(
    task: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidPoint) as caught:
        Point(model=MODEL, task=task, **fields)

    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["num_images", "width", "media"])
def test_what_is_shown_is_part_of_the_point(name: str) -> None:
    changed = IMAGE.but(**{name: "photos" if name == "media" else 2})

    assert changed.hash != IMAGE.hash
    assert changed.id != IMAGE.id
    assert Point.from_json(changed.as_json()) == changed
    assert eval(repr(changed)) == changed
