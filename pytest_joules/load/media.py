"""Images and videos that requests show: made from a seed, or a user's own files."""

import base64
import hashlib
import importlib.util
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from pytest_joules.errors import InvalidPoint, MissingDependency, is_expected
from pytest_joules.point import Point
from pytest_joules.point.vision import SUFFIXES, Vision

__tracebackhide__ = is_expected

_CELL: Final = 16
"""Pixels between two random colours. With it a JPEG takes 1.4 bits a pixel, as photographs do:
noise in every pixel takes ten times as many, and one colour none, and decoding as long."""

_QUALITY: Final = 85


def require_media(point: Point) -> None:
    """Refuse a point whose images or videos cannot be had.

    Raises:
        InvalidPoint: Its folder holds no file of the kind.
        MissingDependency: They would be made, and Pillow is not installed.
    """
    vision = point.vision
    if vision is None:
        return
    if vision.media:
        files(vision)
    elif importlib.util.find_spec("PIL") is None:
        raise MissingDependency(
            f"{point.id}: making its {vision.kind}s needs Pillow beside pytest; install it "
            "with 'pip install \"pytest-joules[vision]\"', or show your own files (media)."
        )


def digest(point: Point) -> str:
    """Return the SHA-256 of the user's files that a point shows; empty where it shows none.

    Raises:
        InvalidPoint: Its folder holds no file of the kind.
    """
    vision = point.vision
    if vision is None or not vision.media:
        return ""
    found = files(vision)
    return _digest(tuple((path, path.stat().st_mtime_ns) for path in found))


@cache
def _digest(versions: tuple[tuple[Path, int], ...]) -> str:
    """Read files once in every version; their order counts, their names do not."""
    whole = hashlib.sha256()
    for path, _ in versions:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def files(vision: Vision) -> list[Path]:
    """Return the user's files in order of their names.

    Raises:
        InvalidPoint: There is none, or one is no plain file; names the folder or the file.
    """
    folder, known = Path(vision.media), SUFFIXES[vision.kind]
    named = (path for path in folder.glob("*") if path.suffix.lower() in known)
    found = [path for path in named if _is_plain(path)]
    if not found:
        raise InvalidPoint(
            f"media={vision.media!r}: {folder.absolute()} is no folder with {vision.kind}s "
            f"({', '.join(known)})."
        )
    return sorted(found, key=lambda path: path.name)


def _is_plain(path: Path) -> bool:
    """Refuse what cannot be shown: a folder, a link to nothing, a pipe that never ends."""
    if path.is_file():
        return True
    raise InvalidPoint(f"media: {path.absolute()} is no plain file; move it out of the folder.")


def parts(vision: Vision, index: int, *, seed: int) -> list[dict[str, Any]]:
    """Return what request ``index`` shows, as parts of a chat message."""
    urls = _of_files(vision, index) if vision.media else _synthetic(vision, index, seed)
    kind = f"{vision.kind}_url"
    return [{"type": kind, kind: {"url": url}} for url in urls]


def _of_files(vision: Vision, index: int) -> Iterator[str]:
    found = files(vision)
    first = index * vision.num_images
    for number in range(first, first + vision.num_images):
        path = found[number % len(found)]
        data = base64.b64encode(path.read_bytes()).decode()
        yield f"data:{SUFFIXES[vision.kind][path.suffix.lower()]};base64,{data}"


def _synthetic(vision: Vision, index: int, seed: int) -> Iterator[str]:
    number = vision.num_frames if vision.kind == "video" else vision.num_images
    made = [
        base64.b64encode(picture(vision.width, vision.height, f"{seed}:{index}:{i}")).decode()
        for i in range(number)
    ]
    if vision.kind == "video":
        yield f"data:video/jpeg;base64,{','.join(made)}"  # vLLM's form of a list of frames
    else:
        yield from (f"data:image/jpeg;base64,{data}" for data in made)


def picture(width: int, height: int, seed: str) -> bytes:
    """Return a JPEG of soft random colours, the same one for the same seed and Pillow."""
    from PIL import Image  # noqa: PLC0415  an extra, needed only here

    columns, rows = max(1, width // _CELL), max(1, height // _CELL)
    colours = Random(f"picture:{seed}").randbytes(3 * columns * rows)
    small = Image.frombytes("RGB", (columns, rows), colours)
    out = io.BytesIO()
    large = small.resize((width, height), Image.Resampling.BICUBIC)
    large.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
