"""What one step of serving a language model costs, in seconds and joules: the formulas."""

from collections.abc import Mapping

import numpy as np

from pytest_joules.latent.parameters import Parameters
from pytest_joules.latent.serving import Serving, Value

_SHARPNESS = 4.0
_CAP_SHARPNESS = 8.0
_FEED_ITERATIONS = 5


def prompt_tokens(s: Serving, p: Parameters) -> Value:
    """Mean tokens read for one request, those of images and video included."""
    images = p.megapixels_per_image * s.tokens_per_image * (s.modality == "image-input")
    return s.prompt_text_tokens + images + p.tokens_per_video * (s.modality == "video-input")


def input_s_per_request(s: Serving, p: Parameters) -> Value:
    """Host seconds between two requests whose image or video is ready; 0 for text."""
    alone, shared = (
        by_task(each, s.task) for each in (p.input_s_per_request, p.shared_input_s_per_request)
    )
    larger = np.where(s.modality == "image-input", s.tokens_per_image / 1024, 1.0)
    return (alone + shared / s.num_gpus) * larger


def by_task(values: Mapping[str, float], task: Value) -> Value:
    """Look up a value by task, of one task or of an array of them."""
    return sum(value * (task == known) for known, value in values.items())


def step_s(
    s: Serving, p: Parameters, batch: Value, *, context: Value, prefill: Value
) -> dict[str, Value]:
    """Seconds of one step by cause, on the slowest GPU, at the data sheet's clock.

    Args:
        s: The model on its GPUs.
        p: The GPU.
        batch: Sequences that are decoded.
        context: Their mean length, in tokens.
        prefill: Prompt tokens read in the same step, on average over steps.
    """
    _, slowest = touched(s, p, batch, prefill=prefill)
    bandwidth = p.gpu.bandwidth_bytes_per_s
    moved = s.layer_vector_bytes * p.layer_moves + s.visit_vector_bytes * p.expert_visit_moves
    link_s = (
        s.link_bytes_per_token / p.link_bytes_per_s
        + s.expert_link_bytes_per_token / p.expert_link_bytes_per_s
    )
    return {
        "weights": s.dense_bytes / (bandwidth * p.weight_bandwidth_ratio),
        "experts": slowest * s.expert_bytes / (bandwidth * _expert_bandwidth_ratio(s, p)),
        "kv": batch * kv_bytes(s, context) / (bandwidth * p.kv_bandwidth_ratio),
        "states": 2 * batch * s.state_bytes / (bandwidth * p.state_bandwidth_ratio),
        "activations": batch * moved / bandwidth,
        **_arithmetic_s(s, p, batch, context=context, prefill=prefill),
        **_overhead_s(s, p, batch),
        "collectives": s.num_collectives * p.collective_latency_s + (batch + prefill) * link_s,
        "host": _host_s(s, p, batch),
    }


def _arithmetic_s(
    s: Serving, p: Parameters, batch: Value, *, context: Value, prefill: Value
) -> dict[str, Value]:
    flop_per_s = p.gpu.bf16_flop_per_s
    speed = 1 + s.is_fp8 * (fp8_speed(p) * p.fp8_flop_ratio - 1)
    expert_speed = 1 + s.is_fp8 * (fp8_speed(p) * p.fp8_expert_flop_ratio - 1)
    dense = s.dense_flop_per_token / speed + context * s.attention_flop_per_token
    experts = s.expert_flop_per_token / expert_speed
    reading = prefill * s.prefill_flop_per_token * (1 + s.stalls * (p.group_stall - 1))
    # A step that reads a prompt starts its kernels one by one.
    starting_s = (
        s.num_layers * p.prompt_layer_overhead_s
        + s.num_state_layers * p.prompt_state_layer_overhead_s
    )
    prompts = np.minimum(1.0, prefill / prompt_tokens(s, p))
    return {
        "arithmetic": batch
        * (dense / p.decode_flop_ratio + experts / p.expert_flop_ratio)
        / flop_per_s,
        "prefill": reading / (flop_per_s * speed * p.prefill_flop_ratio) + prompts * starting_s,
    }


def _overhead_s(s: Serving, p: Parameters, batch: Value) -> dict[str, Value]:
    converting_s = (
        s.num_layers * p.fp8_layer_overhead_s
        + s.num_expert_layers * p.fp8_expert_layer_overhead_s
    )
    return {
        "overhead": p.step_overhead_s
        + s.num_layers * p.layer_overhead_s
        + s.num_expert_layers * p.expert_layer_overhead_s
        + s.num_state_layers * p.state_layer_overhead_s
        + batch * p.sequence_overhead_s,
        "precision": s.is_fp8 * converting_s,
    }


def _host_s(s: Serving, p: Parameters, batch: Value) -> Value:
    """Grow with the sequences; shrink with the launch's share of the host."""
    half = by_task(p.host_half_batch, s.task)
    waiting_s = by_task(p.host_step_s, s.task) * batch**2 / (batch**2 + half**2)
    return s.waits_for_host * (waiting_s + batch * p.host_sequence_s) / s.num_gpus


def fp8_speed(p: Parameters) -> Value:
    """FP8 arithmetic rate over BF16's, by the data sheet."""
    if p.gpu.fp8_flop_per_s is None:
        return 1.0
    return p.gpu.fp8_flop_per_s / p.gpu.bf16_flop_per_s


def _expert_bandwidth_ratio(s: Serving, p: Parameters) -> Value:
    others = 1 - s.is_fp8 - s.is_mxfp4
    return (
        others * p.expert_bandwidth_ratio
        + s.is_fp8 * p.fp8_expert_bandwidth_ratio
        + s.is_mxfp4 * p.mxfp4_expert_bandwidth_ratio
    )


def touched(s: Serving, p: Parameters, batch: Value, *, prefill: Value) -> tuple[Value, Value]:
    """Expect the share of experts whose weights are read: of a mean GPU, of the slowest.

    Each token visits ``k`` of ``E`` experts at random, so ``1 - (1 - k/E)^batch`` of them are
    visited; a step that reads a prompt visits all. Of ``g`` GPUs the busiest exceeds the mean
    by about ``sqrt(2 ln g)`` deviations.
    """
    prompts = np.minimum(1.0, prefill / prompt_tokens(s, p))
    mean = 1 - (1 - s.expert_visit_ratio) ** batch * (1 - prompts)
    mean = mean + s.is_fp8 * p.fp8_untouched_ratio * (1 - mean)
    own = np.maximum(1.0, s.num_experts / s.num_gpus)
    deviation = np.sqrt(mean * (1 - mean) / own) * np.sqrt(2 * np.log(s.num_gpus))
    return mean, np.minimum(1.0, mean + p.expert_imbalance * deviation)


def kv_bytes(s: Serving, context: Value) -> Value:
    """Of the keys and values of one sequence, on one GPU."""
    near = np.minimum(context, s.sliding_window)
    return s.kv_bytes_per_far_token * context + s.kv_bytes_per_near_token * near


def bytes_moved(
    s: Serving, p: Parameters, batch: Value, *, context: Value, prefill: Value
) -> tuple[Value, Value]:
    """Of weights, and of keys, values and states, that one mean GPU reads in a step."""
    mean, _ = touched(s, p, batch, prefill=prefill)
    kept = batch * (kv_bytes(s, context) + 2 * s.state_bytes)
    return s.dense_bytes + mean * s.expert_bytes, kept


def step_j(
    s: Serving,
    p: Parameters,
    seconds: Mapping[str, Value],
    *,
    batch: Value,
    context: Value,
    prefill: Value,
) -> dict[str, Value]:
    """Joules of one step on one GPU by cause, before any cap."""
    weights, kept = bytes_moved(s, p, batch, context=context, prefill=prefill)
    mean, slowest = touched(s, p, batch, prefill=prefill)
    even = np.where(slowest > 0, mean / np.where(slowest > 0, slowest, 1.0), 1.0)
    # A GPU that waits for the slowest one is not busy.
    working = seconds["experts"] * even + sum(
        seconds[cause]
        for cause in ("weights", "kv", "states", "activations", "arithmetic", "prefill")
    )
    cheaper = 1 - s.is_fp8 * (1 - p.fp8_energy_ratio)
    decode = batch * (
        s.dense_flop_per_token + s.expert_flop_per_token + context * s.attention_flop_per_token
    )
    tdp_w = p.gpu.tdp_w
    return {
        "static": p.static_power_ratio * tdp_w * sum(seconds.values()),
        "busy": p.busy_power_ratio * tdp_w * working,
        "overhead": p.overhead_power_ratio
        * tdp_w
        * (seconds["overhead"] + seconds["collectives"]),
        "precision": p.fp8_overhead_power_ratio * tdp_w * seconds["precision"],
        "arithmetic": cheaper
        * (
            decode * p.energy_per_flop_j
            + prefill * s.prefill_flop_per_token * p.energy_per_prefill_flop_j
        ),
        "memory": weights * p.energy_per_byte_j + kept * p.energy_per_kv_byte_j,
        "link": (batch + prefill)
        * (s.link_bytes_per_token + s.expert_link_bytes_per_token)
        * p.energy_per_link_byte_j,
    }


def flop(s: Serving, batch: Value, *, context: Value, prefill: Value) -> Value:
    """Operations of one step on one GPU."""
    decode = s.dense_flop_per_token + s.expert_flop_per_token
    return batch * (decode + context * s.attention_flop_per_token) + (
        prefill * s.prefill_flop_per_token
    )


def running_batch(s: Serving, p: Parameters, batch: Value, *, context: Value) -> Value:
    """Sequences that are decoded at once: as many as asked, or as the input feeds.

    Where the host prepares ``r`` requests a second, ``r x answer`` tokens a second are made,
    and only as many sequences run as one step needs for that.
    """
    feed_s_per_token = input_s_per_request(s, p) / s.output_tokens
    running = batch
    for _ in range(_FEED_ITERATIONS):
        prefill = running * prompt_tokens(s, p) / s.output_tokens
        duration_s = sum(step_s(s, p, running, context=context, prefill=prefill).values())
        fed = duration_s / np.maximum(feed_s_per_token, 1e-12)
        running = (batch**-_SHARPNESS + fed**-_SHARPNESS) ** (-1 / _SHARPNESS)
    return running


def capped_w(power_w: Value, limit_w: Value) -> Value:
    """Power that a limit lets through; near the limit, clocks already fall now and then."""
    return (power_w**-_CAP_SHARPNESS + limit_w**-_CAP_SHARPNESS) ** (-1 / _CAP_SHARPNESS)
