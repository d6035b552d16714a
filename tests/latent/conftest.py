import pytest

from pytest_joules.catalog import Gpu
from pytest_joules.latent.architecture import LanguageArchitecture
from pytest_joules.latent.fit.solve import parameters

# One terabyte and one petaflop a second, so that seconds can be read off.
ROUND_GPU = Gpu(
    slug="round",
    nvml_names=(),
    memory_gib=100.0,
    bandwidth_bytes_per_s=1e12,
    bf16_flop_per_s=1e15,
    fp8_flop_per_s=2e15,
    tdp_w=1000.0,
    source="made up",
)


@pytest.fixture
def ideal():
    """A GPU that reaches its data sheet and has no overheads."""
    zero = (
        "step_overhead_s", "layer_overhead_s", "expert_layer_overhead_s",
        "state_layer_overhead_s", "prompt_layer_overhead_s", "prompt_state_layer_overhead_s",
        "fp8_layer_overhead_s", "fp8_expert_layer_overhead_s", "sequence_overhead_s",
        "collective_latency_s", "host_sequence_s", "layer_moves", "expert_visit_moves",
        "fp8_untouched_ratio", "busy_power_ratio", "overhead_power_ratio",
        "fp8_overhead_power_ratio",
    )  # fmt: skip
    tasks = (
        "problem-solving",
        "text-conversation",
        "code-completion",
        "image-chat",
        "video-chat",
    )
    one = (
        "weight_bandwidth_ratio", "expert_bandwidth_ratio", "kv_bandwidth_ratio",
        "decode_flop_ratio", "expert_flop_ratio", "prefill_flop_ratio", "fp8_flop_ratio",
    )  # fmt: skip
    return parameters(
        ROUND_GPU,
        {
            **dict.fromkeys(zero, 0.0),
            **dict.fromkeys(one, 1.0),
            **{f"host_step_s.{task}": 0.0 for task in tasks},
            "static_power_ratio": 0.1,
            "energy_per_flop_j": 1e-12,
            "energy_per_byte_j": 100e-12,
            "energy_per_kv_byte_j": 100e-12,
            "reserved_memory_bytes": 0.0,
        },
    )


@pytest.fixture
def dense():
    """Of 10 layers of width 1000, without vocabulary to speak of."""
    return LanguageArchitecture(
        source="made up",
        num_layers=10,
        hidden_size=1000,
        num_heads=10,
        num_kv_heads=10,
        head_size=100,
        intermediate_size=2000,
        vocabulary_size=0,
    )
