"""A raw result folder of the ML.ENERGY Benchmark: one run of text, one of images."""

from typing import Any

TEXT_RUN = (
    "llm/h100/current/run/llm/gpqa/results/Qwen/Qwen3-8B/H100/"
    "num_gpus+2+max_num_seqs+4+max_num_batched_tokens+2048+seed+1"
)
IMAGE_RUN = (
    "diffusion/b200/current/run/diffusion/text-to-image/maker/painter/"
    "batch-2+uly-2+ring-1+size-512x768+steps-20"
)


def text_results() -> dict[str, Any]:
    """Make a text run: 30 kJ at 0.3 J a token in 50 s."""
    return {
        "completed": 2,
        "total_output_tokens": 1000,
        "steady_state_duration": 50.0,
        "steady_state_energy": 30_000.0,
        "steady_state_energy_per_token": 0.3,
        "results": [
            {"success": True, "ttft": 0.2, "itl": [0.01, 0.03, 0.0]},
            {"success": True, "ttft": 0.4, "itl": [0.02, 0.02]},
        ],
    }


def gauges() -> dict[str, Any]:
    """Make the means of vLLM's gauges beside it."""
    stats = {"vllm:num_requests_running": 3.8, "vllm:kv_cache_usage_perc": 0.25}
    return {"steady_state_stats": stats}


def image_results() -> dict[str, Any]:
    """Make an image run: batches of 2,400 and 2,800 J in 4 and 6 s."""
    return {
        "iteration_energy_measurements": [
            {"gpu_energy": {"0": 1000.0, "1": 1400.0}, "time": 4.0},
            {"gpu_energy": {"0": 1200.0, "1": 1600.0}, "time": 6.0},
        ]
    }


def trees() -> dict[str, Any]:
    """Return all files by their paths."""
    measured = {"time": 50.0, "gpu_energy": {"0": 14_000.0, "1": 16_000.0}}
    return {
        f"{TEXT_RUN}/results.json": {**text_results(), "steady_state_measurement": measured},
        f"{TEXT_RUN}/prometheus.json": gauges(),
        f"{IMAGE_RUN}/results.json": image_results(),
        "configs/vllm/gpqa/Qwen/Qwen3-8B/model_info.json": {"weight_precision": "bfloat16"},
    }
