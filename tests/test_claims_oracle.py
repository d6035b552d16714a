"""A sample of the claims computed a second way: pandas on the raw JSON, no code of ours."""

import itertools
import json

import pandas as pd
import pytest

from pytest_joules.claims.claim import Scalar
from pytest_joules.claims.dataset import Dataset
from pytest_joules.claims.registry import CLAIMS
from tests.fakes.leaderboard import needs_published, published_folder

pytestmark = needs_published
LLM = ["gpqa", "lm-arena-chat", "sourcegraph-fim"]
CURVE = ["task", "model_id", "gpu_model", "num_gpus"]
TWINS = {
    "Qwen/Qwen3-VL-8B-Instruct": "Qwen/Qwen3-8B",
    "Qwen/Qwen3-VL-32B-Instruct": "Qwen/Qwen3-32B",
    "Qwen/Qwen3-VL-30B-A3B-Instruct": "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "Qwen/Qwen3-VL-235B-A22B-Instruct": "Qwen/Qwen3-235B-A22B-Instruct-2507",
    "Qwen/Qwen3-VL-235B-A22B-Instruct-FP8": "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    found = []
    for path in sorted((published_folder() / "tasks").glob("*.json")):
        document = json.loads(path.read_text())
        found += [{**row, "task": document["task"]} for row in document["configurations"]]
    table = pd.DataFrame(found)
    table["energy"] = table.energy_per_token_joules.fillna(
        table.energy_per_image_joules
    ).fillna(table.energy_per_video_joules)
    table["latency"] = (table.median_itl_ms / 1000).fillna(table.batch_latency_s)
    return table


@pytest.fixture(scope="module")
def ours() -> Dataset:
    return Dataset.read(published_folder())


def values(claim_id: str, data: Dataset) -> list[Scalar]:
    claim = CLAIMS[claim_id]
    recomputed = claim.rule(data)
    return [recomputed[quantity.name] for quantity in claim.quantities]


def cheapest(rows: pd.DataFrame, task: str, gpu: str = "B200") -> pd.DataFrame:
    chosen = rows[(rows.task == task) & (rows.gpu_model == gpu)]
    return chosen.loc[chosen.groupby("model_id").energy.idxmin()]


def test_task_types(rows: pd.DataFrame, ours: Dataset) -> None:
    solving, talking = cheapest(rows, "gpqa"), cheapest(rows, "lm-arena-chat")
    tokens = [table.avg_output_len.mean() for table in (solving, talking)]
    joules = [table.energy_per_request_joules.mean() for table in (solving, talking)]

    assert values("S1", ours) == pytest.approx(tokens)
    assert values("S2", ours) == pytest.approx([tokens[0] / tokens[1]])
    assert values("S3", ours) == pytest.approx(joules)
    assert values("S4", ours) == pytest.approx([joules[0] / joules[1]])


@pytest.mark.parametrize(("claim_id", "task"), [("M1", "image-chat"), ("M2", "video-chat")])
def test_modalities(rows: pd.DataFrame, ours: Dataset, *, claim_id: str, task: str) -> None:
    least = rows[rows.gpu_model == "B200"].groupby([*CURVE[:2], "num_gpus"]).energy.min()
    ratios = [
        energy / least["lm-arena-chat", TWINS[model], num_gpus]
        for (model, num_gpus), energy in least[task].items()
        if model in TWINS and ("lm-arena-chat", TWINS[model], num_gpus) in least.index
    ]
    assert values(claim_id, ours) == pytest.approx([min(ratios), max(ratios)])


def test_diffusion(rows: pd.DataFrame, ours: Dataset) -> None:
    images, videos = (
        cheapest(rows, task).energy for task in ("text-to-image", "text-to-video")
    )

    assert values("F1", ours) == pytest.approx([images.max() / images.min()])
    assert values("F4", ours) == pytest.approx([videos.min() / 1e3, videos.max() / 1e3])
    assert values("F6", ours) == pytest.approx([videos.max() / images.min()])


@pytest.mark.parametrize(
    ("claim_id", "column", "sign"),
    [
        ("B1", "energy", -1),
        ("B2", "latency", 1),
        ("B3", "output_throughput_tokens_per_sec", 1),
        ("B4", "avg_power_watts", 1),
    ],
)
def test_trends(
    rows: pd.DataFrame, ours: Dataset, *, claim_id: str, column: str, sign: int
) -> None:
    means = rows[rows.task.isin(LLM)].groupby([*CURVE, "max_num_seqs"])[column].mean()
    steps = means.groupby(level=CURVE).diff().dropna() * sign
    ends = (means.groupby(level=CURVE).last() - means.groupby(level=CURVE).first()) * sign
    assert values(claim_id, ours) == pytest.approx(
        [100 * (steps > 0).mean(), 100 * (ends > 0).mean()]
    )


@pytest.mark.parametrize(
    ("ids", "tasks", "limits_s"),
    [
        (("G1", "G2", "G3"), LLM[:2], (0.05, 0.1, 0.25)),
        (("G8", "G9"), ["text-to-image"], (10, 30, 60)),
        (("G10", "G11"), ["text-to-video"], (100, 500, 1000)),
    ],
    ids=["llm", "image", "video"],
)
def test_gpu_generations(
    rows: pd.DataFrame,
    ours: Dataset,
    *,
    ids: tuple[str],
    tasks: list[str],
    limits_s: tuple[float],
) -> None:
    reductions = pd.concat(
        [
            rows[rows.task.isin(tasks) & (rows.latency <= limit_s)]
            .pivot_table(
                index=["task", "model_id"], columns="gpu_model", values="energy", aggfunc="min"
            )
            .dropna()
            .eval("100 * (1 - B200 / H100)")
            for limit_s in limits_s
        ]
    )
    expected = [
        *((reductions > 0).sum(), len(reductions), 100 * (reductions > 0).mean()),
        *(reductions.median(), -reductions.min(), reductions.max()),
    ]
    assert [v for i in ids for v in values(i, ours)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ids", "low", "high"),
    [(("P-E8", "P-L8"), 8, 16), (("P-E17", "P-L17"), 16, 64), (("P-E65", "P-L65"), 64, 256)],
    ids=["8-16", "17-64", "65-256"],
)
def test_precisions(
    rows: pd.DataFrame, ours: Dataset, *, ids: tuple[str], low: float, high: float
) -> None:
    tokens = rows[rows.max_num_seqs.notna() & ~rows.model_id.str.contains("480B")]
    fp8 = tokens[tokens.model_id.str.endswith("-FP8")].copy()
    fp8["model_id"] = fp8.model_id.str.removesuffix("-FP8")
    both = tokens.merge(fp8, on=[*CURVE, "max_num_seqs"], suffixes=("", "_fp8"))
    both = both[(both.avg_batch_size > low) & (both.avg_batch_size <= high)]
    for claim_id, column in zip(ids, ("energy", "latency"), strict=True):
        change = 100 * (both[f"{column}_fp8"] / both[column] - 1)
        wins = (change < 0).sum()
        expected = [wins, len(change), change.min(), change.max(), change.median()]
        assert values(claim_id, ours) == pytest.approx(expected)


@pytest.mark.parametrize(("ids", "gpu"), [(("N1", "N2"), "B200"), (("N3", "N4"), "H100")])
def test_multiple_gpus(rows: pd.DataFrame, ours: Dataset, *, ids: tuple[str], gpu: str) -> None:
    energy, latency = [], []
    chosen = rows[rows.task.isin(LLM) & (rows.gpu_model == gpu)]
    for _, group in chosen.groupby(["task", "model_id", "max_num_seqs"]):
        for (_, one), (_, other) in itertools.permutations(group.iterrows(), 2):
            if one.num_gpus < other.num_gpus:
                energy.append(other.energy > one.energy)
                latency.append(other.latency < one.latency)
    assert [values(i, ours)[0] for i in ids] == pytest.approx(
        [100 * pd.Series(cases).mean() for cases in (energy, latency)]
    )
