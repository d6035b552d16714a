"""What serving a language model asks of each GPU: weights, work and links, spread over all.

Every quantity may be a number or an array with one entry for each configuration, so that the
fit evaluates all published rows at once with the code of a prediction.
"""

from dataclasses import dataclass
from typing import Any

from pytest_joules.latent.architecture import BYTES_PER_PARAM, LanguageArchitecture
from pytest_joules.point import Point

Value = Any  # float or numpy array; numpy's own types do not unite both

_STATE_BYTES = 4.0  # vLLM keeps state-space states in FP32


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A point's model as one GPU sees it; bytes and operations are of one GPU."""

    task: Value
    modality: Value
    num_gpus: Value
    stalls: Value
    """1 where groups with attention of their own wait for each other's prompts, else 0."""

    dense_bytes: Value
    """Of weights that are read in every step."""

    expert_bytes: Value
    """Of all routed experts on one GPU."""

    num_experts: Value
    expert_visit_ratio: Value
    """Chance that a token visits a given expert of a layer."""

    kv_bytes_per_far_token: Value
    kv_bytes_per_near_token: Value
    """In layers that look back no further than the window."""

    sliding_window: Value
    state_bytes: Value
    """Of one sequence."""

    dense_flop_per_token: Value
    expert_flop_per_token: Value
    attention_flop_per_token: Value
    """Per token of context."""

    prefill_flop_per_token: Value
    is_fp8: Value
    is_mxfp4: Value
    num_layers: Value
    num_expert_layers: Value
    num_state_layers: Value
    num_collectives: Value
    link_bytes_per_token: Value
    """Exchanged between the parts of dense layers, each vector once (NVSwitch adds them)."""

    expert_link_bytes_per_token: Value
    """Exchanged between experts."""

    layer_vector_bytes: Value
    """Of one token's vector of the hidden size, over all layers."""

    visit_vector_bytes: Value
    """The same over all of its visits to experts."""

    tokens_per_image: Value
    waits_for_host: Value
    """0 where the engine schedules the next step while the GPU works on this one."""

    prompt_text_tokens: Value
    output_tokens: Value
    """Mean answer."""


def serving(
    point: Point, a: LanguageArchitecture, *, num_gpus: int, output_tokens: float
) -> Serving:
    """Spread a model over its GPUs.

    Attention is split over the GPUs of a data-parallel group and copied between groups;
    experts are split over all. With data-parallel attention one group's prompt holds up the
    others, so that prefill is as slow as on one group alone.
    """
    return Serving(
        task=point.task,
        modality=point.spec.modality,
        num_gpus=float(num_gpus),
        stalls=float(point.data_parallel > 1),
        is_fp8=float(point.precision in ("fp8", "int8")),
        is_mxfp4=float(point.precision in ("mxfp4", "nvfp4", "int4")),
        num_layers=float(a.num_layers),
        num_expert_layers=float(a.expert_layers),
        num_state_layers=float(a.num_state_layers),
        waits_for_host=float(not _schedules_ahead(point)),
        output_tokens=float(output_tokens),
        **_kept(point, a, num_gpus),
        **_work(point, a, num_gpus),
        **_moved(a, num_gpus),
    )


def _kept(point: Point, a: LanguageArchitecture, g: int) -> dict[str, float]:
    own, copied = a.kv_values_per_token_per_layer, point.data_parallel - 1
    kv = 2.0 * (2 * a.num_kv_heads * a.head_size if own is None else own)
    kv /= _kv_shards(point, a, g)
    copies = copied * _bytes_per_param(point.precision) * a.attention_params
    return {
        "dense_bytes": (_always_bytes(point, a) + copies) / g,
        "expert_bytes": BYTES_PER_PARAM[point.precision] * a.expert_params / g,
        "kv_bytes_per_far_token": kv * (a.attention_layers - a.num_sliding_layers),
        "kv_bytes_per_near_token": kv * a.num_sliding_layers,
        "sliding_window": float(a.sliding_window),
        "state_bytes": _STATE_BYTES * a.state_values / g,
    }


def _work(point: Point, a: LanguageArchitecture, g: int) -> dict[str, float]:
    experts = 2.0 * a.expert_layers * a.experts_per_token * a.params_per_expert
    far_layers = a.attention_layers - a.num_sliding_layers
    asked = point.input_tokens or point.spec.input_tokens
    everything = 2.0 * (a.active_params + a.encoder_params)
    return {
        "num_experts": float(a.num_experts),
        "expert_visit_ratio": a.experts_per_token / a.num_experts if a.num_experts else 0.0,
        "dense_flop_per_token": (2.0 * a.active_params - experts) / g,
        "expert_flop_per_token": experts / g,
        "attention_flop_per_token": 4.0 * a.num_heads * a.head_size * far_layers / g,
        "prefill_flop_per_token": everything * point.data_parallel / g,
        "prompt_text_tokens": asked.mean if asked else 0.0,
        "tokens_per_image": a.tokens_per_image,
    }


def _moved(a: LanguageArchitecture, g: int) -> dict[str, float]:
    vector_bytes, is_split = 2.0 * a.hidden_size, g > 1
    dense = 2 * a.num_layers - a.expert_layers
    return {
        "num_collectives": 2.0 * a.num_layers * is_split,
        "link_bytes_per_token": vector_bytes * dense * is_split,
        "expert_link_bytes_per_token": vector_bytes * a.expert_layers * is_split,
        "layer_vector_bytes": vector_bytes * a.num_layers,
        "visit_vector_bytes": vector_bytes * a.expert_layers * a.experts_per_token,
    }


def _schedules_ahead(point: Point) -> bool:
    """Tell whether the engine prepares a step during the one before.

    vLLM's recipe for the MXFP4 checkpoints that exist (GPT OSS) switches it on.
    """
    return point.precision == "mxfp4" or "--async-scheduling" in point.engine_args


def _bytes_per_param(precision: str) -> float:
    """Of the weights that every token meets; MXFP4 checkpoints quantise experts only."""
    return 2.0 if precision == "mxfp4" else BYTES_PER_PARAM[precision]


def _always_bytes(point: Point, a: LanguageArchitecture) -> float:
    """Of weights read in every step; the vocabulary matrix stays in BF16."""
    inner = a.always_read_params - a.embedding_params
    return _bytes_per_param(point.precision) * inner + 2.0 * a.embedding_params


def _kv_shards(point: Point, a: LanguageArchitecture, num_gpus: int) -> float:
    """Count the GPUs that share one copy of the keys and values.

    A KV head is not split: further GPUs hold copies. Compressed ones (MLA) are one head.
    """
    groups = point.data_parallel
    heads = 1 if a.kv_values_per_token_per_layer is not None else a.num_kv_heads
    return float(groups * min(num_gpus / groups, heads))
