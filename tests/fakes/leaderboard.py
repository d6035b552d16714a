"""A tiny leaderboard folder, and the published one where the user has it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = "JOULES_MLENERGY_DATA"
Tasks = dict[str, list[dict[str, Any]]]

needs_published = pytest.mark.skipif(
    DATA not in os.environ, reason=f"{DATA} names no folder of the published data"
)


def published_folder() -> Path:
    """Return the published data's folder; for tests marked ``needs_published``."""
    return Path(os.environ[DATA])


def text_row(**changes: Any) -> dict[str, Any]:
    """Make one row that generated tokens; the numbers are invented, but consistent."""
    row = {
        "model_id": "maker/talker-8b",
        "nickname": "Talker 8B",
        "architecture": "Dense Transformer",
        "total_params_billions": 8.0,
        "activated_params_billions": 8.0,
        "weight_precision": "bfloat16",
        "gpu_model": "B200",
        "num_gpus": 1,
        "max_num_seqs": 8,
        "avg_batch_size": 7.9,
        "avg_output_len": 100.0,
        "energy_per_token_joules": 0.5,
        "output_throughput_tokens_per_sec": 1000.0,
        "median_itl_ms": 8.0,
        "p90_itl_ms": 9.0,
        "p95_itl_ms": 10.0,
        "p99_itl_ms": 12.0,
        "tensor_parallel": 1,
        "expert_parallel": 1,
        "data_parallel": 1,
        **changes,
    }
    energy = row["energy_per_token_joules"]
    if isinstance(energy, float):
        row.setdefault("energy_per_request_joules", energy * 100.0)
        row.setdefault("avg_power_watts", energy * 1000.0)
    return row


def image_row(**changes: Any) -> dict[str, Any]:
    """Make one row that generated images."""
    return {
        "model_id": "maker/painter",
        "nickname": "Painter",
        "total_params_billions": 2.0,
        "activated_params_billions": 2.0,
        "weight_precision": "bfloat16",
        "gpu_model": "H100",
        "num_gpus": 2,
        "batch_size": 4,
        "energy_per_image_joules": 1000.0,
        "throughput_images_per_sec": 0.5,
        "avg_power_watts": 500.0,
        "batch_latency_s": 8.0,
        "inference_steps": 20,
        "image_height": 1024,
        "image_width": 512,
        "ulysses_degree": 2,
        "ring_degree": 1,
        **changes,
    }


def video_row(**changes: Any) -> dict[str, Any]:
    """Make one row that generated videos."""
    return {
        "model_id": "maker/filmer",
        "nickname": "Filmer",
        "total_params_billions": 5.0,
        "activated_params_billions": 5.0,
        "weight_precision": "bfloat16",
        "gpu_model": "B200",
        "num_gpus": 1,
        "batch_size": 1,
        "energy_per_video_joules": 50_000.0,
        "throughput_videos_per_sec": 0.01,
        "avg_power_watts": 500.0,
        "batch_latency_s": 100.0,
        "inference_steps": 50,
        "num_frames": 49,
        "fps": 8,
        "video_height": 480,
        "video_width": 720,
        "ulysses_degree": 1,
        "ring_degree": 1,
        **changes,
    }


def small_tasks() -> Tasks:
    """Return one row of each shape."""
    return {
        "lm-arena-chat": [text_row()],
        "text-to-image": [image_row()],
        "text-to-video": [video_row()],
    }


def write_leaderboard(folder: Path, tasks: Tasks, index: dict[str, Any] | None = None) -> Path:
    """Write the folder; without ``index`` one that fits the rows."""
    (folder / "tasks").mkdir(parents=True)
    for name, rows in tasks.items():
        document = {"task": name, "configurations": rows}
        (folder / "tasks" / f"{name}.json").write_text(json.dumps(document))
    (folder / "index.json").write_text(json.dumps(index or index_of(tasks)))
    return folder


def index_of(tasks: Tasks) -> dict[str, Any]:
    """Make the index that lists all tasks and models of the rows."""
    described = (
        "nickname",
        "architecture",
        "total_params_billions",
        "activated_params_billions",
    )
    return {
        "last_updated": "2026-02-16",
        "tasks": list(tasks),
        "models": {
            row["model_id"]: {name: row[name] for name in described if name in row}
            for rows in tasks.values()
            for row in rows
            if "model_id" in row
        },
    }


def read_tasks(folder: Path) -> Tasks:
    """Read the rows of a folder as plain JSON, to change and write them again."""
    return {
        path.stem: json.loads(path.read_text())["configurations"]
        for path in sorted((folder / "tasks").glob("*.json"))
    }


def change_energy(row: dict[str, Any], factor: float) -> None:
    """Multiply a row's energy; energy per response and power follow, time does not."""
    for name in row:
        if name.startswith("energy_per_") or name == "avg_power_watts":
            row[name] *= factor


def mutated(source: Path, target: Path, mutate: Callable[[Tasks], None]) -> Path:
    """Write a changed copy of a leaderboard's folder."""
    tasks = read_tasks(source)
    mutate(tasks)
    return write_leaderboard(target, tasks)
