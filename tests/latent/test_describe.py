"""Unknown models: from config.json and from a few numbers, against known shapes."""

import json
import math
import re

import pytest

from pytest_joules.errors import ConfigurationError, FormatError, InvalidPoint
from pytest_joules.latent import architecture_of
from pytest_joules.latent.describe import from_config, from_numbers

QWEN_8B = {
    "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288,
    "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip
QWEN_30B = {
    **QWEN_8B, "hidden_size": 2048, "num_hidden_layers": 48, "num_key_value_heads": 4,
    "intermediate_size": 6144, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768, "decoder_sparse_step": 1,
}  # fmt: skip
DEEPSEEK = {
    "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": 128, "intermediate_size": 18432, "vocab_size": 129280,
    "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
    "n_shared_experts": 1, "first_k_dense_replace": 3, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
}  # fmt: skip


def written(tmp_path, config):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("config", "model_id"),
    [
        pytest.param(QWEN_8B, "Qwen/Qwen3-8B", id="dense"),
        pytest.param(QWEN_30B, "Qwen/Qwen3-30B-A3B-Instruct-2507", id="experts"),
        pytest.param(DEEPSEEK, "deepseek-ai/DeepSeek-V3.1", id="shared-experts-and-mla"),
        pytest.param(
            {"text_config": {**QWEN_8B}, "vision_config": {}}, "Qwen/Qwen3-8B", id="nested"
        ),
    ],
)
def test_a_config_gives_the_shape_of_the_catalog(tmp_path, config, model_id):
    known, read = architecture_of(model_id), from_config(written(tmp_path, config))
    assert read.total_params == pytest.approx(known.total_params, rel=0.002)
    assert read.active_params == pytest.approx(known.active_params, rel=0.01)
    assert read.kv_values(100) == known.kv_values(100)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        pytest.param(
            {"_class_name": "FluxTransformer2DModel"}, "no language model", id="other"
        ),
        pytest.param({"num_hidden_layers": 3}, "num_attention_heads", id="incomplete"),
        pytest.param([], "no object", id="list"),
    ],
)
def test_what_is_no_config_is_said(tmp_path, config, said):
    with pytest.raises(FormatError, match=said):
        from_config(written(tmp_path, config))


@pytest.mark.parametrize(
    ("model_id", "numbers"),
    [
        pytest.param("Qwen/Qwen3-8B", {"params": 8.2e9, "layers": 36}, id="8b"),
        pytest.param(
            "meta-llama/Llama-3.1-70B-Instruct", {"params": 70.6e9, "layers": 80}, id="70b"
        ),
        pytest.param(
            "Qwen/Qwen3-235B-A22B-Instruct-2507",
            {
                "params": 235e9,
                "active_params": 22e9,
                "layers": 94,
                "kv_heads": 4,
                "experts": (128, 8),
            },
            id="experts",
        ),
    ],
)
def test_a_few_numbers_come_near_the_known_shape(model_id, numbers):
    known, guessed = architecture_of(model_id), from_numbers(**numbers)
    assert guessed.total_params == pytest.approx(known.total_params, rel=0.08)
    assert guessed.active_params == pytest.approx(known.active_params, rel=0.1)
    assert guessed.hidden_size == pytest.approx(known.hidden_size, rel=0.1)
    assert guessed.kv_values(1) == known.kv_values(1)


def test_numbers_that_fit_no_model_are_said():
    with pytest.raises(InvalidPoint, match="no such model"):
        from_numbers(params=1e9, layers=10, experts=(4, 8), active_params=5e8)
    with pytest.raises(InvalidPoint, match="leave none for MLPs"):
        from_numbers(params=1e8, layers=1000)


WRONG = [-1, math.nan, math.inf, 1e300, 10**300, 1.5, "many", True, []]
MAY_BE_ZERO = {
    "n_routed_experts", "n_shared_experts", "first_k_dense_replace", "kv_lora_rank",
    "q_lora_rank",
}  # fmt: skip


@pytest.mark.parametrize("name", list(DEEPSEEK))
def test_a_number_that_no_model_has_is_named(tmp_path, name):
    for value in WRONG if name in MAY_BE_ZERO else [*WRONG, 0]:
        with pytest.raises((InvalidPoint, ConfigurationError), match=f"{name}( is |=)"):
            from_config(written(tmp_path, {**DEEPSEEK, name: value}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_experts_per_tok": 257}, "num_experts_per_tok=257"),
        ({"first_k_dense_replace": 62}, "first_k_dense_replace=62"),
        ({"hidden_size": None}, "hidden_size=None"),
        ({"layer_types": ["linear_attention"] * 61}, "does not know 'linear_attention'"),
        ({"layer_types": ["full_attention"]}, "each of the 61 layers"),
        ({"layer_types": 3}, "layer_types=3"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(tmp_path, changed, said):
    with pytest.raises(InvalidPoint, match=said):
        from_config(written(tmp_path, {**DEEPSEEK, **changed}))


@pytest.mark.parametrize(
    ("name", "said", "is_count"),
    [
        ("params", "parameters", False),
        ("active_params", "active parameters", False),
        ("layers", "layers", True),
        ("kv_heads", "KV heads", True),
        ("head_size", "head size", True),
    ],
)
def test_an_impossible_number_is_named(name, said, is_count):
    for value in [0, *(each for each in WRONG if is_count or each != 1.5)]:
        numbers = {"params": 8e9, "active_params": 8e9, "layers": 36, name: value}
        with pytest.raises(InvalidPoint, match=re.escape(f"{said}={value!r}")):
            from_numbers(**numbers)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"active_params": 9e9}, "active parameters=9000000000.0"),
        ({"experts": (0, 2), "active_params": 1e9}, "no such model"),
        ({"experts": (-8, 2), "active_params": 1e9}, "experts=-8"),
        ({"experts": (8, 7), "active_params": 1e9}, "leave none for the rest"),
    ],
)
def test_experts_that_contradict_the_parameters_are_refused(numbers, said):
    with pytest.raises(InvalidPoint, match=said):
        from_numbers(**{"params": 8e9, "layers": 36, **numbers})
