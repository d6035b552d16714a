"""Observation 3: diffusion energy depends on more than model size (section 3.3)."""

import math
from collections.abc import Callable, Mapping
from statistics import fmean, geometric_mean, median

from pytest_joules.claims.claim import (
    Between,
    Claim,
    Equal,
    MoreThan,
    Printed,
    Quantity,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import TEXT_TO_IMAGE, TEXT_TO_VIDEO, Dataset
from pytest_joules.result import Result

_GPU = "b200"
_MUCH = 100
_HUNYUAN_DIT = "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"
_SD_LARGE = "stabilityai/stable-diffusion-3.5-large"
_HUNYUAN_VIDEO = "tencent/HunyuanVideo"
_WAN_14B = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
_COGVIDEO_5B = "zai-org/CogVideoX1.5-5B"


def _energies(dataset: Dataset, task: str) -> list[float]:
    minima = dataset.minima(task, gpu=_GPU)
    return [row.energy_per_work_unit_j for row in minima.values()]


def _minimum(dataset: Dataset, task: str, model: str) -> Result:
    return dataset.minimum(task, gpu=_GPU, model=model)


def _image_range(dataset: Dataset) -> Mapping[str, Scalar]:
    """B200, minimum energy per image of each model: most over least."""
    energies = _energies(dataset, TEXT_TO_IMAGE)
    return {"ratio": max(energies) / min(energies)}


def _image_models(dataset: Dataset) -> Mapping[str, Scalar]:
    """As F1: range of total parameters in billions and of denoising steps."""
    minima = dataset.minima(TEXT_TO_IMAGE, gpu=_GPU)
    sizes = [dataset.models[model].total_params_b for model in minima]
    steps = [row.point.steps or 0 for row in minima.values()]
    return {
        "smallest B": min(sizes),
        "largest B": max(sizes),
        "fewest steps": min(steps),
        "most steps": max(steps),
    }


def _small_above_large_image(dataset: Dataset) -> Mapping[str, Scalar]:
    """As F1: energy per image of Hunyuan-DiT 1.2 over that of SD 3.5 Large.

    And their steps.
    """
    small = _minimum(dataset, TEXT_TO_IMAGE, _HUNYUAN_DIT)
    large = _minimum(dataset, TEXT_TO_IMAGE, _SD_LARGE)
    return {
        "ratio": small.energy_per_image_j / large.energy_per_image_j,
        "steps": f"{small.point.steps} and {large.point.steps}",
    }


def _video_range(dataset: Dataset) -> Mapping[str, Scalar]:
    """B200, minimum energy per video of each model, in kJ."""
    energies = _energies(dataset, TEXT_TO_VIDEO)
    return {"least kJ": min(energies) / 1e3, "most kJ": max(energies) / 1e3}


def _orders(
    reduce: Callable[[list[float]], float],
) -> Callable[[Dataset], Mapping[str, Scalar]]:
    def orders_of_magnitude(dataset: Dataset) -> Mapping[str, Scalar]:
        """Common logarithm of one such figure for videos over that for images."""
        videos, images = (
            reduce(_energies(dataset, task)) for task in (TEXT_TO_VIDEO, TEXT_TO_IMAGE)
        )
        return {"orders": math.log10(videos / images)}

    return orders_of_magnitude


def _video_over_image(dataset: Dataset) -> Mapping[str, Scalar]:
    """As F1 and F4: orders of magnitude (common logarithm).

    Of mean energy per video over mean energy per image, over models.
    """
    return _orders(fmean)(dataset)


def _most_over_least(dataset: Dataset) -> Mapping[str, Scalar]:
    """As F1 and F4: the costliest model's video over the cheapest model's image."""
    videos, images = (_energies(dataset, task) for task in (TEXT_TO_VIDEO, TEXT_TO_IMAGE))
    return {"ratio": max(videos) / min(images)}


def _pairs_above(dataset: Dataset) -> Mapping[str, Scalar]:
    """Share of all pairs of a video and an image model above 100."""
    ratios = [
        video / image
        for video in _energies(dataset, TEXT_TO_VIDEO)
        for image in _energies(dataset, TEXT_TO_IMAGE)
    ]
    return {"pairs above 100 %": 100 * sum(each > _MUCH for each in ratios) / len(ratios)}


def _small_above_large_video(dataset: Dataset) -> Mapping[str, Scalar]:
    """As F4: energy per video of CogVideoX 1.5 5B over that of Wan 2.1 14B.

    And their resolutions.
    """
    small = _minimum(dataset, TEXT_TO_VIDEO, _COGVIDEO_5B)
    large = _minimum(dataset, TEXT_TO_VIDEO, _WAN_14B)
    return {
        "ratio": small.energy_per_video_j / large.energy_per_video_j,
        "resolutions": f"{_resolution(small)} and {_resolution(large)}",
    }


def _resolution(row: Result) -> str:
    return f"{row.point.height}x{row.point.width}"


def _hunyuan_over_wan(dataset: Dataset) -> Mapping[str, Scalar]:
    """As F4: energy per video of HunyuanVideo over that of Wan 2.1 14B."""
    one, other = (
        _minimum(dataset, TEXT_TO_VIDEO, model).energy_per_video_j
        for model in (_HUNYUAN_VIDEO, _WAN_14B)
    )
    return {"ratio": one / other}


def _hunyuan_frames(dataset: Dataset) -> Mapping[str, Scalar]:
    """As F4: frames and height of HunyuanVideo."""
    point = _minimum(dataset, TEXT_TO_VIDEO, _HUNYUAN_VIDEO).point
    return {"frames": point.num_frames or 0, "height": point.height or 0}


def _above_one() -> Quantity:
    return Quantity(name="ratio", published="> 1", criterion=MoreThan(1))


CLAIMS = (
    Claim(
        id="F1",
        section="3.3",
        text="Text to Image varies 20 times across models",
        quantities=(Quantity(name="ratio", published=20, criterion=Printed()),),
        rule=_image_range,
    ),
    Claim(
        id="F2",
        section="3.3",
        text="Text to Image models have 0.6 to 12 B parameters and 20 to 50 steps",
        quantities=(
            Quantity(name="smallest B", published=0.6, criterion=Printed(1)),
            Quantity(name="largest B", published=12, criterion=Printed()),
            Quantity(name="fewest steps", published=20, criterion=Equal()),
            Quantity(name="most steps", published=50, criterion=Equal()),
        ),
        rule=_image_models,
    ),
    Claim(
        id="F3",
        section="3.3",
        text="Hunyuan-DiT 1.2 (1.5 B, 50 steps) takes more than SD 3.5 Large (8.1 B, 28)",
        quantities=(
            _above_one(),
            Quantity(name="steps", published="50 and 28", criterion=Equal()),
        ),
        rule=_small_above_large_image,
    ),
    Claim(
        id="F4",
        section="3.3",
        text="a video takes 26 kJ to 1.16 MJ",
        quantities=(
            Quantity(name="least kJ", published=26, criterion=Printed()),
            Quantity(name="most kJ", published=1160, criterion=Printed(-1)),
        ),
        rule=_video_range,
    ),
    Claim(
        id="F5",
        section="3.3, observation 3",
        text="videos take one to two orders of magnitude more than images",
        quantities=(Quantity(name="orders", published="1 to 2", criterion=Between(1, 2)),),
        rule=_video_over_image,
        expected=Status.APPROXIMATELY,
        known={"orders": 2.153},
        variants=(
            Variant(name="medians", rule=_orders(median)),
            Variant(name="geometric means", rule=_orders(geometric_mean)),
            Variant(name="least", rule=_orders(min)),
            Variant(name="most", rule=_orders(max)),
        ),
    ),
    Claim(
        id="F6",
        section="abstract, 1",
        text="a video sometimes takes more than 100 times the energy of an image",
        quantities=(Quantity(name="ratio", published="> 100", criterion=MoreThan(_MUCH)),),
        rule=_most_over_least,
        variants=(Variant(name="pairs of models", rule=_pairs_above),),
    ),
    Claim(
        id="F7",
        section="3.3",
        text="CogVideoX 1.5 5B (768x1360) takes more than Wan 2.1 14B (480x832)",
        quantities=(
            _above_one(),
            Quantity(name="resolutions", published="768x1360 and 480x832", criterion=Equal()),
        ),
        rule=_small_above_large_video,
    ),
    Claim(
        id="F8",
        section="3.3",
        text="HunyuanVideo takes 4 times the energy of Wan 2.1 14B",
        quantities=(Quantity(name="ratio", published=4, criterion=Printed()),),
        rule=_hunyuan_over_wan,
    ),
    Claim(
        id="F9",
        section="3.3",
        text="HunyuanVideo generates 129 frames at 720p",
        quantities=(
            Quantity(name="frames", published=129, criterion=Equal()),
            Quantity(name="height", published=720, criterion=Equal()),
        ),
        rule=_hunyuan_frames,
    ),
)
