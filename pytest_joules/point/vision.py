"""What one request of a vision task shows to the model: images or a video, and of which size.

They are made from a seed, or they are a user's own files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.tasks import Task

__tracebackhide__ = is_expected

FIELDS: Final = ("num_images", "height", "width", "num_frames", "fps", "media")
"""Fields of a point that say what is shown; some mean the output of a diffusion task there."""

SUFFIXES: Final = {
    "image": {
        ".jpeg": "image/jpeg",
        ".jpg": "image/jpeg",
        ".png": "image/png",
        ".webp": "image/webp",
    },
    "video": {
        ".avi": "video/x-msvideo",
        ".mkv": "video/x-matroska",
        ".mov": "video/quicktime",
        ".mp4": "video/mp4",
        ".webm": "video/webm",
    },
}
"""Files of a folder that are offered, and their media types."""

_LONGEST_SIDE: Final = 8192
_OUT_OF_PLACE: Final = {"image": ("num_frames", "fps"), "video": ("num_images",)}


@dataclass(frozen=True, kw_only=True)
class Vision:
    """Images or one video of a request.

    The default sizes are a choice of this package: the paper names none. 32 frames are what
    vLLM takes of a video by default.
    """

    kind: Literal["image", "video"]
    num_images: int = 1
    height: int
    width: int
    num_frames: int = 32
    """Frames of a synthetic video, or the most that the model sees of a file."""

    fps: int | None = None
    """Frames a second; ``None`` takes a file's frames evenly from its whole length."""

    media: str = ""
    """Folder of the user's own files; empty makes synthetic ones."""

    def __str__(self) -> str:
        """Say it for a plan."""
        source = f"files of {self.media}" if self.media else f"{self.width} x {self.height}"
        if self.kind == "video":
            rate = f" at {self.fps} fps" if self.fps else ""
            most = "at most " if self.media else ""
            return f"video of {most}{self.num_frames} frames{rate}, {source}"
        return f"{self.num_images} image{'s' if self.num_images > 1 else ''}, {source}"


_DEFAULTS: Final = {
    "image": {"height": 1024, "width": 1024},
    "video": {"height": 360, "width": 640},
}


def vision_of(spec: Task, given: dict[str, int | str]) -> Vision | None:
    """Return what a task's requests show; ``None`` for tasks without vision.

    Args:
        spec: The task.
        given: Those of ``FIELDS`` that a point sets.

    Raises:
        InvalidPoint: A field has no meaning for the task or contradicts another.
    """
    kind = spec.vision
    if kind is None:
        require_absent(("num_images", "media"), given, spec)
        return None
    require_absent(_OUT_OF_PLACE[kind], given, spec)
    if "media" in given:
        _require_of_the_files(given)
    for side in ("height", "width"):
        if int(given.get(side, 1)) > _LONGEST_SIDE:
            raise InvalidPoint(f"{side}={given[side]}: give at most {_LONGEST_SIDE} pixels.")
    rate = {} if kind == "image" or "media" in given else {"fps": 1}
    return Vision(**{"kind": kind, **_DEFAULTS[kind], **rate, **given})  # type: ignore[arg-type]


def require_absent(names: Iterable[str], given: Mapping[str, Any], spec: Task) -> None:
    """Refuse fields that say nothing of a task's requests.

    Args:
        names: The fields.
        given: All that a point may set, by name.
        spec: The task.

    Raises:
        InvalidPoint: Some of them are set; names these.
    """
    wrong = [name for name in names if given.get(name)]
    if wrong:
        raise InvalidPoint(
            f"{', '.join(wrong)} has no meaning for task={spec.name!r}; leave it out."
        )


def _require_of_the_files(given: dict[str, int | str]) -> None:
    sizes = [name for name in ("height", "width") if name in given]
    if sizes:
        raise InvalidPoint(
            f"{', '.join(sizes)}: the files in media={given['media']!r} have their own size; "
            "leave one of them out."
        )
