"""The paper's seven tasks, what each produces, and how long its answers are.

Source: *Where Do the Joules Go?* (arXiv:2601.22076), appendix A, Table 2.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite, log, sqrt
from types import MappingProxyType
from typing import Any, Literal

from pytest_joules.errors import InvalidPoint, is_expected

__tracebackhide__ = is_expected

_LARGEST_CV = 5.0
WorkUnit = Literal["token", "image", "video"]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Log-normal token counts, clipped; one seed and index always give the same length."""

    mean: float
    """Mean of the unclipped distribution, in tokens."""

    cv: float = 0.0
    """Standard deviation over mean; 0 makes every length equal."""

    shortest: int = 1
    longest: int = 32_768

    def __post_init__(self) -> None:
        if not self._is_distribution():
            raise InvalidPoint(
                f"{self} is no length distribution: 1 <= shortest <= mean <= longest "
                "and 0 <= cv <= 5 must hold, shortest and longest in whole tokens."
            )
        # One spelling of equal values, so that equal points have equal JSON: 300 and 300.0,
        # 0.0 and -0.0.
        object.__setattr__(self, "mean", float(self.mean))
        object.__setattr__(self, "cv", abs(float(self.cv)))

    def _is_distribution(self) -> bool:
        bounds, shape = (self.shortest, self.longest), (self.mean, self.cv)
        return (
            all(type(bound) is int for bound in bounds)
            and all(type(value) in (int, float) and isfinite(value) for value in shape)
            and 1 <= self.shortest <= self.mean <= self.longest
            and 0 <= self.cv <= _LARGEST_CV
        )

    def draw(self, index: int, *, seed: int, what: str) -> int:
        """Draw the length of request ``index``; it does not depend on how many are drawn."""
        if self.cv == 0:
            return round(self.mean)
        sigma = sqrt(log(1 + self.cv**2))
        mu = log(self.mean) - sigma**2 / 2
        stream = random.Random(f"{what}:{seed}:{index}")
        return round(min(max(stream.lognormvariate(mu, sigma), self.shortest), self.longest))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked of a model, and the unit of work that energy is divided by."""

    name: str
    dataset_name: str
    """The task's name in the ML.ENERGY data."""

    work_unit: WorkUnit
    engine: str
    """Engine used when a point names none."""

    modality: Literal["text", "image-input", "video-input", "image-output", "video-output"]
    input_tokens: Lengths | None = None
    """Prompt lengths of synthetic requests; ``None`` where no tokens are generated."""

    output_tokens: Lengths | None = None

    @property
    def vision(self) -> Literal["image", "video"] | None:
        """What its requests show to the model beside the text."""
        return _SHOWN.get(self.modality)


_SHOWN: Mapping[str, Literal["image", "video"]] = {
    "image-input": "image",
    "video-input": "video",
}


def _text(name: str, dataset_name: str, *, prompt: float, answer: float, cv: float) -> Task:
    return Task(
        name=name,
        dataset_name=dataset_name,
        work_unit="token",
        engine="vllm",
        modality="text",
        input_tokens=Lengths(mean=prompt, cv=0.5, longest=8192),
        output_tokens=Lengths(mean=answer, cv=cv, shortest=2, longest=32_768),
    )


def _table(*tasks: Task) -> Mapping[str, Task]:
    return MappingProxyType({task.name: task for task in tasks})


# Output lengths: mean over models of the published output-length distributions
# (ML.ENERGY Benchmark v3, mean of the means and of the coefficients of variation).
TASKS: Mapping[str, Task] = _table(
    _text("problem-solving", "gpqa", prompt=300, answer=6992, cv=0.69),
    _text("text-conversation", "lm-arena-chat", prompt=200, answer=623, cv=1.0),
    _text("code-completion", "sourcegraph-fim", prompt=3000, answer=251, cv=1.5),
    Task(
        name="image-chat",
        dataset_name="image-chat",
        work_unit="token",
        engine="vllm",
        modality="image-input",
        input_tokens=Lengths(mean=100, cv=0.5, longest=8192),
        output_tokens=Lengths(mean=718, cv=1.0, shortest=2),
    ),
    Task(
        name="video-chat",
        dataset_name="video-chat",
        work_unit="token",
        engine="vllm",
        modality="video-input",
        input_tokens=Lengths(mean=100, cv=0.5, longest=8192),
        output_tokens=Lengths(mean=392, cv=0.62, shortest=2),
    ),
    Task(
        name="text-to-image",
        dataset_name="text-to-image",
        work_unit="image",
        engine="diffusers",
        modality="image-output",
    ),
    Task(
        name="text-to-video",
        dataset_name="text-to-video",
        work_unit="video",
        engine="diffusers",
        modality="video-output",
    ),
)


def task(name: str) -> Task:
    """Look up a task by its paper name.

    Raises:
        InvalidPoint: There is no such task.
    """
    if name not in TASKS:
        raise InvalidPoint(f"task={name!r} is unknown; choose one of {', '.join(TASKS)}.")
    return TASKS[name]


def task_of_dataset(dataset_name: str) -> Task:
    """Look up a task by its name in the ML.ENERGY data.

    Raises:
        InvalidPoint: There is no such dataset.
    """
    for candidate in TASKS.values():
        if candidate.dataset_name == dataset_name:
            return candidate
    known = ", ".join(known.dataset_name for known in TASKS.values())
    raise InvalidPoint(f"dataset {dataset_name!r} is unknown; known are {known}.")


def lengths_from_json(name: str, values: Any) -> Lengths:
    """Build lengths from JSON.

    Raises:
        InvalidPoint: They are none; names the field.
    """
    if isinstance(values, Lengths):
        return values
    known = {f.name for f in fields(Lengths)}
    if not isinstance(values, dict) or "mean" not in values or set(values) - known:
        raise InvalidPoint(
            f"{name}={values!r}: give mean and, if need be, cv, shortest and longest."
        )
    return Lengths(**values)
