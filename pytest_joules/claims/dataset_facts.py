"""The data themselves: how many models, tasks and configurations (abstract, appendix A)."""

from collections.abc import Mapping

from pytest_joules.claims.claim import (
    AtLeast,
    Claim,
    Equal,
    Quantity,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import LLM_TASKS, MLLM_TASKS, Dataset
from pytest_joules.claims.rules import share_percent
from pytest_joules.errors import NotMeasured
from pytest_joules.point import Point
from pytest_joules.sources.mlenergy import PublishedRow

# Rounding of the published numbers, which carry 15 to 17 digits.
_IDENTITY_TOLERANCE = 1e-9

_MODELS_PER_TASK = {
    "problem-solving": 12,
    "text-conversation": 18,
    "code-completion": 3,
    "image-chat": 11,
    "video-chat": 6,
    "text-to-image": 7,
    "text-to-video": 5,
}


def _num_models(dataset: Dataset) -> Mapping[str, Scalar]:
    """Distinct models over all tasks; FP8 checkpoints count separately."""
    return {"models": len({row.point.model for row in dataset.results})}


def _num_tasks(dataset: Dataset) -> Mapping[str, Scalar]:
    """Distinct tasks."""
    return {"tasks": len({row.point.task for row in dataset.results})}


def _num_configurations(dataset: Dataset) -> Mapping[str, Scalar]:
    """Rows over all tasks; three rows repeat a configuration."""
    return {"configurations": len(dataset.results)}


def _num_distinct(dataset: Dataset) -> Mapping[str, Scalar]:
    """Distinct points."""
    distinct = {(row.point, row.gpu) for row in dataset.results}
    return {"distinct configurations": len(distinct)}


def _gpus(dataset: Dataset) -> Mapping[str, Scalar]:
    """Distinct GPU models."""
    return {"gpus": ", ".join(sorted({row.gpu for row in dataset.results}))}


def _models_per_task(dataset: Dataset) -> Mapping[str, Scalar]:
    """Distinct models of each task."""
    return {task: len(dataset.models_of(task)) for task in _MODELS_PER_TASK}


def _precisions(dataset: Dataset) -> Mapping[str, Scalar]:
    """Distinct weight precisions."""
    return {"precisions": ", ".join(sorted({row.point.precision for row in dataset.results}))}


def _throughput_identity(dataset: Dataset) -> Mapping[str, Scalar]:
    """Published throughput over published power is the inverse of energy per work.

    Energy per token, image or video as published, to 1e-9, on every row; so by construction
    of the data.
    """
    return {
        "rows %": share_percent(
            _equal(
                row.result.throughput_work_units_per_s / row.power_w,
                1 / row.result.energy_per_work_unit_j,
            )
            for row in _published(dataset)
        )
    }


def _response_identity(dataset: Dataset) -> Mapping[str, Scalar]:
    """Published energy per response equals energy per token times mean output tokens.

    To 1e-9, on every row that generates tokens; so by construction of the data.
    """
    return {
        "rows %": share_percent(
            _equal(row.energy_per_response_j, row.result.energy_per_response_j)
            for row in _published(dataset)
            if row.energy_per_response_j is not None
        )
    }


def _published(dataset: Dataset) -> tuple[PublishedRow, ...]:
    if not dataset.published:
        raise NotMeasured(
            "these results do not hold the published power and energy per response; read "
            "the leaderboard's own folder."
        )
    return dataset.published


def _equal(one: float, other: float) -> bool:
    return abs(one / other - 1) <= _IDENTITY_TOLERANCE


def _moe_parallelism(dataset: Dataset) -> Mapping[str, Scalar]:
    """Rows of mixture-of-experts models on two and more GPUs.

    Share with expert parallelism over all of them. Attention tensor parallelism is not
    recorded.
    """
    return {"expert parallel %": share_percent(row.expert_parallel for row in _moe(dataset))}


def _moe_tensor_parallel(dataset: Dataset) -> Mapping[str, Scalar]:
    """Share whose recorded tensor parallelism is the number of GPUs."""
    return {
        "tensor_parallel=n %": share_percent(
            point.tensor_parallel == point.num_gpus for point in _moe(dataset)
        )
    }


def _moe(dataset: Dataset) -> list[Point]:
    return [
        row.point
        for row in dataset.rows((*LLM_TASKS, *MLLM_TASKS))
        if row.point.num_gpus > 1 and dataset.models[row.point.model].architecture == "moe"
    ]


def _every(name: str) -> tuple[Quantity, ...]:
    return (Quantity(name=name, published=100, criterion=AtLeast()),)


CLAIMS = (
    Claim(
        id="D1",
        section="abstract, 1",
        text="46 models were measured",
        quantities=(Quantity(name="models", published=46, criterion=Equal()),),
        rule=_num_models,
    ),
    Claim(
        id="D2",
        section="abstract, 1",
        text="on 7 tasks",
        quantities=(Quantity(name="tasks", published=7, criterion=Equal()),),
        rule=_num_tasks,
    ),
    Claim(
        id="D3",
        section="abstract, 1",
        text="in 1,858 configurations",
        quantities=(Quantity(name="configurations", published=1858, criterion=Equal()),),
        rule=_num_configurations,
        variants=(Variant(name="without repeats", rule=_num_distinct),),
    ),
    Claim(
        id="D4",
        section="abstract, 2",
        text="on NVIDIA H100 and B200",
        quantities=(Quantity(name="gpus", published="b200, h100", criterion=Equal()),),
        rule=_gpus,
    ),
    Claim(
        id="D5",
        section="A, Table 3",
        text="models per task",
        quantities=tuple(
            Quantity(name=task, published=count, criterion=Equal())
            for task, count in _MODELS_PER_TASK.items()
        ),
        rule=_models_per_task,
    ),
    Claim(
        id="D6",
        section="A, Table 3",
        text="models are BF16 unless noted as FP8",
        quantities=(Quantity(name="precisions", published="bf16, fp8", criterion=Equal()),),
        rule=_precisions,
        expected=Status.DOES_NOT_REPRODUCE,
        known={"precisions": "bf16, fp8, mxfp4"},
        note="GPT OSS is MXFP4 in the data; DeepSeek R1 and V3.1 are FP8 without the note",
    ),
    Claim(
        id="D7",
        section="5.4, C",
        text="throughput per watt is the inverse of energy per work",
        quantities=_every("rows %"),
        rule=_throughput_identity,
    ),
    Claim(
        id="D8",
        section="2, 3.1",
        text="energy per response is energy per token times mean output tokens",
        quantities=_every("rows %"),
        rule=_response_identity,
    ),
    Claim(
        id="D9",
        section="4.4, footnote 3",
        text="MoE models run with expert parallelism and attention tensor parallelism",
        quantities=_every("expert parallel %"),
        rule=_moe_parallelism,
        expected=Status.APPROXIMATELY,
        known={"expert parallel %": 93.57},
        note="GPT OSS 120B on 2 GPUs ran tensor-parallel without expert parallelism",
        variants=(Variant(name="recorded tensor parallelism", rule=_moe_tensor_parallel),),
    ),
)
