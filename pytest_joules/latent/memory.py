"""Whether a launch fits in memory, by the latent model's estimate; it refuses nothing."""

from collections.abc import Sequence

from pytest_joules.errors import InvalidPoint
from pytest_joules.latent.machine import machine
from pytest_joules.point import Point


def shortage(points: Sequence[Point], gpu: str) -> list[str]:
    """Say which of a launch's points memory seems too small for; nothing where all fit.

    Models and GPUs that the catalog does not describe are not judged. An engine may shrink
    its weights or keep them elsewhere, so what is said here is no reason to refuse a point.

    Args:
        points: Of one launch.
        gpu: Its GPU's slug.
    """
    return [text for point in points if (text := _shortage(point, gpu))]


def _shortage(point: Point, gpu: str) -> str:
    try:
        fits = machine(point, gpu).max_batch_size()
    except InvalidPoint:
        return ""
    where = f"{point.num_gpus} x {gpu}"
    if fits < 1:
        return (
            f"batch {point.batch_size}: by estimate the weights leave no room for a request in "
            f"the memory of {where}; use more GPUs or a lower precision"
        )
    if fits < point.batch_size:
        return (
            f"batch {point.batch_size}: by estimate about {fits} fit in the memory of {where}, "
            "and a batch that is not filled is not valid"
        )
    return ""
