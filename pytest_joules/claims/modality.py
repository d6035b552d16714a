"""Observation 2: images and videos in the prompt raise energy per token (section 3.2)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pytest_joules.claims.claim import (
    Claim,
    Equal,
    Printed,
    Quantity,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import (
    IMAGE_CHAT,
    TEXT_CONVERSATION,
    VIDEO_CHAT,
    Dataset,
    cheapest,
)
from pytest_joules.errors import NotMeasured
from pytest_joules.result import Result

_GPU = "b200"

TEXT_TWINS: Mapping[str, str] = MappingProxyType(
    {
        "Qwen/Qwen3-VL-8B-Instruct": "Qwen/Qwen3-8B",
        "Qwen/Qwen3-VL-32B-Instruct": "Qwen/Qwen3-32B",
        "Qwen/Qwen3-VL-30B-A3B-Instruct": "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "Qwen/Qwen3-Omni-30B-A3B-Instruct": "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "Qwen/Qwen3-VL-235B-A22B-Instruct": "Qwen/Qwen3-235B-A22B-Instruct-2507",
        "Qwen/Qwen3-VL-235B-A22B-Instruct-FP8": "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
    }
)
"""The text-only model of the same family and size, by multimodal model."""


def _ratios(dataset: Dataset, task: str) -> list[float]:
    """Minimum energy per token over the text twin's, at equal numbers of GPUs."""
    texts = {
        (curve.model, curve.num_gpus): cheapest(curve.rows)
        for curve in dataset.curves_of(TEXT_CONVERSATION, gpu=_GPU)
    }
    ratios = [
        _energy(cheapest(curve.rows)) / _energy(texts[TEXT_TWINS[curve.model], curve.num_gpus])
        for curve in dataset.curves_of(task, gpu=_GPU)
        if (TEXT_TWINS.get(curve.model, ""), curve.num_gpus) in texts
    ]
    if not ratios:
        raise NotMeasured(f"no {task} model of the data has its text twin in it.")
    return ratios


def _ratios_of_minima(dataset: Dataset, task: str) -> list[float]:
    texts = dataset.minima(TEXT_CONVERSATION, gpu=_GPU)
    return [
        _energy(row) / _energy(texts[TEXT_TWINS[model]])
        for model, row in dataset.minima(task, gpu=_GPU).items()
        if TEXT_TWINS.get(model, "") in texts
    ]


def _energy(row: Result) -> float:
    return row.energy_per_token_j


def _range(ratios: list[float]) -> Mapping[str, Scalar]:
    return {"least": min(ratios), "most": max(ratios)}


def _image(dataset: Dataset) -> Mapping[str, Scalar]:
    """B200, over the text twin on Text Conversation with as many GPUs.

    Minimum energy per token of the Qwen 3 VL or Omni model over that of its text twin;
    range over models and GPU counts. Found by search, the paper does not state the pairing.
    """
    return _range(_ratios(dataset, IMAGE_CHAT))


def _video(dataset: Dataset) -> Mapping[str, Scalar]:
    """As M1 for Video Chat."""
    return _range(_ratios(dataset, VIDEO_CHAT))


def _any_gpus(task: str) -> Callable[[Dataset], Mapping[str, Scalar]]:
    def over_all_gpu_counts(dataset: Dataset) -> Mapping[str, Scalar]:
        """Minima over all GPU counts, which may differ."""
        return _range(_ratios_of_minima(dataset, task))

    return over_all_gpu_counts


def _small_model(dataset: Dataset) -> Mapping[str, Scalar]:
    """Qwen 3 8B on Text Conversation, Qwen 3 VL 8B on Image Chat and Video Chat, 1 x B200.

    Minimum-energy configurations: batch size falls and energy per token rises.
    """
    text, image, video = (
        cheapest(dataset.curve(task, gpu=_GPU, model=model, num_gpus=1).rows)
        for task, model in (
            (TEXT_CONVERSATION, "Qwen/Qwen3-8B"),
            (IMAGE_CHAT, "Qwen/Qwen3-VL-8B-Instruct"),
            (VIDEO_CHAT, "Qwen/Qwen3-VL-8B-Instruct"),
        )
    )
    return {
        "batch size falls": _batch(text) > _batch(image) > _batch(video),
        "energy rises": _energy(text) < _energy(image) < _energy(video),
    }


def _batch(row: Result) -> int:
    return row.point.batch_size


def _printed(least: float, most: float) -> tuple[Quantity, ...]:
    return (
        Quantity(name="least", published=least, criterion=Printed(1)),
        Quantity(name="most", published=most, criterion=Printed(1)),
    )


CLAIMS = (
    Claim(
        id="M1",
        section="3.2, observation 2",
        text="image input takes 1.1 to 5.2 times the energy per token of text",
        quantities=_printed(1.1, 5.2),
        rule=_image,
        variants=(Variant(name="any number of GPUs", rule=_any_gpus(IMAGE_CHAT)),),
    ),
    Claim(
        id="M2",
        section="3.2, observation 2",
        text="video input takes 1.3 to 15.0 times the energy per token of text",
        quantities=_printed(1.3, 15.0),
        rule=_video,
        expected=Status.APPROXIMATELY,
        known={"most": 14.78},
        variants=(Variant(name="any number of GPUs", rule=_any_gpus(VIDEO_CHAT)),),
    ),
    Claim(
        id="M3",
        section="3.2, Figure 2b",
        text="8B: from text to image to video, batch size falls and energy per token rises",
        quantities=(
            Quantity(name="batch size falls", published=True, criterion=Equal()),
            Quantity(name="energy rises", published=True, criterion=Equal()),
        ),
        rule=_small_model,
    ),
    Claim(
        id="M4",
        section="3.2, Figure 2b",
        text="KV-cache utilisation drops from text to image to video",
        quantities=(),
        expected=Status.NOT_TESTABLE,
        note="the public data hold no KV-cache use",
    ),
)
