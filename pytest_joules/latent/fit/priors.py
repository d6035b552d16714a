"""What is expected of each parameter before any data: engineering guesses, as priors.

A prior is the expected value and how far the truth may be from it: deviations of the
logarithm. Rates are shares of the data sheet's and cannot exceed it.
"""

from collections.abc import Mapping

Priors = Mapping[str, tuple[float, float]]

_TASKS = ("problem-solving", "text-conversation", "code-completion", "image-chat", "video-chat")
CHATS = ("image-chat", "video-chat")

SERVING_S: Priors = {
    "weight_bandwidth_ratio": (0.75, 0.2),
    "expert_bandwidth_ratio": (0.6, 0.3),
    "fp8_expert_bandwidth_ratio": (0.5, 0.4),
    "mxfp4_expert_bandwidth_ratio": (0.5, 0.4),
    "fp8_untouched_ratio": (0.3, 0.7),
    "expert_imbalance": (1.0, 0.5),
    "kv_bandwidth_ratio": (0.7, 0.3),
    "state_bandwidth_ratio": (0.5, 0.4),
    "decode_flop_ratio": (0.55, 0.25),
    "expert_flop_ratio": (0.25, 0.5),
    "fp8_flop_ratio": (0.7, 0.3),
    "fp8_expert_flop_ratio": (0.6, 0.3),
    "prefill_flop_ratio": (0.5, 0.3),
    "group_stall": (2.0, 0.7),
    "layer_moves": (15.0, 0.5),
    "expert_visit_moves": (8.0, 0.7),
    "step_overhead_s": (1e-3, 0.7),
    "layer_overhead_s": (15e-6, 0.5),
    "expert_layer_overhead_s": (40e-6, 0.5),
    "state_layer_overhead_s": (50e-6, 0.5),
    "prompt_layer_overhead_s": (80e-6, 0.5),
    "prompt_state_layer_overhead_s": (300e-6, 0.7),
    "fp8_layer_overhead_s": (30e-6, 0.7),
    "fp8_expert_layer_overhead_s": (30e-6, 0.7),
    "sequence_overhead_s": (5e-6, 0.7),
    "collective_latency_s": (12e-6, 0.5),
    "link_bytes_per_s": (3e11, 0.3),
    "expert_link_bytes_per_s": (2e11, 0.4),
    **{f"host_step_s.{task}": (1e-3, 2.0) for task in _TASKS},
    **{f"host_half_batch.{task}": (8.0, 1.0) for task in CHATS},
    "host_sequence_s": (20e-6, 1.0),
    "input_s_per_request.image-chat": (0.02, 1.0),
    "input_s_per_request.video-chat": (0.06, 1.0),
    "shared_input_s_per_request.image-chat": (0.02, 1.5),
    "shared_input_s_per_request.video-chat": (0.08, 1.5),
    "megapixels_per_image": (0.6, 0.3),
    "tokens_per_video": (1500.0, 0.3),
}
SERVING_J: Priors = {
    "static_power_ratio": (0.18, 0.3),
    "busy_power_ratio": (0.2, 0.6),
    "overhead_power_ratio": (0.06, 0.6),
    "fp8_overhead_power_ratio": (0.3, 0.6),
    "energy_per_flop_j": (0.5e-12, 0.4),
    "energy_per_prefill_flop_j": (0.4e-12, 0.4),
    "fp8_energy_ratio": (0.6, 0.3),
    "energy_per_byte_j": (40e-12, 0.4),
    "energy_per_kv_byte_j": (40e-12, 0.4),
    "energy_per_link_byte_j": (50e-12, 0.5),
}
RENDERING_S: Priors = {
    "diffusion_flop_ratio": (0.5, 0.3),
    "attention_flop_ratio": (0.4, 0.3),
    "activation_moves": (20.0, 0.7),
    "launch_layer_s": (1.0e-3, 0.7),
    "parallel_launch_layer_s": (0.5e-3, 1.0),
    "diffusion_link_bytes_per_s": (2e11, 0.7),
    "pixel_s": (60e-9, 1.0),
}
RENDERING_J: Priors = {
    "diffusion_static_power_ratio": (0.2, 0.3),
    "diffusion_busy_power_ratio": (0.3, 0.5),
    "diffusion_energy_per_flop_j": (0.5e-12, 0.5),
    "diffusion_energy_per_byte_j": (40e-12, 0.5),
}

# What depends on how the measured machine was loaded beside, not on its GPU.
OF_THE_MACHINE = (
    "host_step_s",
    "host_half_batch",
    "host_sequence_s",
    "input_s_per_request",
    "shared_input_s_per_request",
)

_LIMITED = (
    "_flop_ratio",
    "_bandwidth_ratio",
    "untouched_ratio",
    "static_power_ratio",
    "fp8_energy_ratio",
)


def largest(name: str) -> float:
    """Return a parameter's physical bound: a share of the data sheet is at most 1."""
    return 1.0 if name.endswith(_LIMITED) else float("inf")
