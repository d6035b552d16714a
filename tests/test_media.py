"""Images and videos of requests: pinned bytes, or the user's files in order."""

import base64
import importlib.util
import io
import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pytest_joules.errors import InvalidPoint, MissingDependency
from pytest_joules.load import Job
from pytest_joules.load.asks import asks
from pytest_joules.load.media import digest, parts, picture, require_media
from pytest_joules.point import Point
from pytest_joules.prompts import prompt_text
from pytest_joules.tasks import Lengths

MODEL = "Qwen/Qwen3-VL-8B-Instruct"
IMAGE = Point(model=MODEL, task="image-chat", num_images=2, width=64, height=48)
VIDEO = Point(model=MODEL, task="video-chat", num_frames=3, fps=2, width=64, height=48)


def shown(point: Point, index: int = 0, *, seed: int = 0) -> list[dict[str, Any]]:
    assert point.vision is not None
    return parts(point.vision, index, seed=seed)


def jpegs(url: str) -> list[bytes]:
    head, _, data = url.partition(";base64,")
    assert head in ("data:image/jpeg", "data:video/jpeg")
    return [base64.b64decode(each, validate=True) for each in data.split(",")]


def test_an_image_request_shows_as_many_jpegs_of_the_size() -> None:
    made = shown(IMAGE)

    assert [part["type"] for part in made] == ["image_url", "image_url"]
    for part in made:
        (data,) = jpegs(part["image_url"]["url"])
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 48))


def test_a_video_is_one_part_with_all_its_frames() -> None:
    (part,) = shown(VIDEO)

    frames = jpegs(part["video_url"]["url"])
    assert len(set(frames)) == 3
    assert {Image.open(io.BytesIO(frame)).size for frame in frames} == {(64, 48)}


def test_the_same_seed_and_index_show_the_same_bytes_and_others_do_not() -> None:
    assert shown(IMAGE, 5) == shown(IMAGE, 5)
    every = [
        part["image_url"]["url"]
        for index in range(4)
        for seed in range(3)
        for part in shown(IMAGE, index, seed=seed)
    ]
    assert len(set(every)) == 24


def test_a_picture_takes_as_many_bits_as_a_photograph() -> None:
    """Neither noise (10 bits a pixel) nor one colour (0.1), whose decoding costs otherwise."""
    bits = 8 * len(picture(1024, 768, "x")) / (1024 * 768)

    assert 1.0 < bits < 2.0


@pytest.mark.parametrize("size", [(1, 1), (15, 17), (8192, 1)])
def test_the_smallest_and_longest_pictures_can_be_made(size: tuple[int, int]) -> None:
    assert Image.open(io.BytesIO(picture(*size, "x"))).size == size


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.PNG", "a.jpg", "c.webp"):
        (folder / name).write_bytes(name.encode())
    (folder / "readme.txt").write_text("not one of them")
    return folder


def test_files_are_shown_in_order_of_their_names_and_again_from_the_first(
    photos: Path,
) -> None:
    point = Point(model=MODEL, task="image-chat", num_images=2, media=str(photos))

    urls = [part["image_url"]["url"] for i in range(2) for part in shown(point, i)]

    assert [url.split(";")[0] for url in urls] == [
        "data:image/jpeg",
        "data:image/png",
        "data:image/webp",
        "data:image/jpeg",
    ]
    assert base64.b64decode(urls[1].split(",")[1]) == b"b.PNG"


def test_the_digest_is_of_the_bytes_in_order_and_not_of_the_names(photos: Path) -> None:
    point = Point(model=MODEL, task="image-chat", media=str(photos))
    before = digest(point)

    (photos / "readme.txt").write_text("changed")
    (photos / "a.jpg").rename(photos / "aa.jpg")
    assert digest(point) == before

    (photos / "d.png").write_bytes(b"one more")
    assert digest(point) != before
    assert digest(IMAGE) == digest(Point(model="a/b")) == ""


def test_a_folder_without_images_is_refused_with_what_it_may_hold(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "absent", tmp_path / "clip.mp4"):
        point = Point(model=MODEL, task="image-chat", media=str(folder))
        with pytest.raises(InvalidPoint, match=r"no folder with images \(\.jpeg, \.jpg, \.png"):
            require_media(point)
    require_media(Point(model=MODEL, task="video-chat", media=str(tmp_path)))


def test_what_is_named_as_an_image_and_is_no_plain_file_is_refused(photos: Path) -> None:
    """A folder and a dead link cannot be read, and reading a pipe would never end."""
    plants: list[Callable[[Path], None]] = [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
    ]
    for number, plant in enumerate(plants):
        planted = photos / f"planted-{number}.jpg"
        plant(planted)

        with pytest.raises(InvalidPoint, match=f"{planted} is no plain file"):
            require_media(Point(model=MODEL, task="image-chat", media=str(photos)))
        planted.rename(planted.with_suffix(".txt"))


def test_without_pillow_synthetic_images_are_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(MissingDependency, match=r"pytest-joules\[vision\].*\(media\)"):
        require_media(IMAGE)
    require_media(Point(model=MODEL, task="image-chat", media=str(photos)))
    require_media(Point(model="a/b"))


def job(point: Point, **changes: Any) -> Job:
    values = {"min_window_s": 0.0, "deadline_s": 60.0, **changes}
    return Job(url="http://x/v1/chat/completions", model="served", point=point, **values)


def test_a_vision_request_is_a_chat_with_pinned_text_images_and_lengths() -> None:
    point = IMAGE.but(num_requests=9, batch_size=3, seed=4, input_tokens=Lengths(mean=7, cv=1))
    pinned = list(point.requests())

    made = list(asks(job(point, sample_size=1)))

    assert [ask.index for ask in made] == list(range(9))
    for ask, request in zip(made, pinned, strict=True):
        body = json.loads(ask.body)
        (message,) = body["messages"]
        assert message["content"] == [
            *shown(point, request.index, seed=4),
            {"type": "text", "text": prompt_text(4, request.index, request.prompt_tokens)},
        ]
        assert body["max_tokens"] == body["min_tokens"] == request.output_tokens
        assert (body["ignore_eos"], body["temperature"]) == (True, 0)
        assert "prompt" not in body
        assert not ask.counts_exactly


def test_a_prompt_has_as_many_words_and_a_longer_one_begins_with_it() -> None:
    assert len(prompt_text(0, 0, 50).split(" ")) == 50
    assert prompt_text(0, 0, 60).startswith(prompt_text(0, 0, 50) + " ")
    assert prompt_text(0, 0, 50) != prompt_text(0, 1, 50) != prompt_text(1, 1, 50)


@pytest.mark.parametrize(
    ("context", "longest", "expected"),
    [(None, 700, 700), (4096, 700, 700), (512, 700, None)],
)
def test_a_natural_output_is_bounded_by_the_server_where_images_take_the_room(
    context: int | None, longest: int, expected: int | None
) -> None:
    point = IMAGE.but(mode="natural", output_tokens=Lengths(mean=6, longest=longest))

    (ask,) = islice(asks(job(point, max_model_len=context)), 1)

    assert json.loads(ask.body).get("max_tokens") == expected


def test_requests_without_end_can_be_left_unfinished() -> None:
    made = asks(job(IMAGE.but(batch_size=2)))

    assert [next(made).index for _ in range(5)] == [0, 1, 2, 3, 4]
    del made  # ends the thread that made them ahead of time
