"""Counts of parameters and bytes, against the published totals and by hand."""

import pytest

from pytest_joules import catalog
from pytest_joules.errors import InvalidPoint
from pytest_joules.latent import (
    DiffusionArchitecture,
    LanguageArchitecture,
    architecture_of,
    architectures,
)


def test_every_model_of_the_catalog_has_a_shape_of_its_kind():
    assert set(architectures()) == set(catalog.models())
    for model_id, shape in architectures().items():
        is_diffusion = catalog.models()[model_id].architecture == "diffusion"
        assert isinstance(shape, DiffusionArchitecture) == is_diffusion, model_id


@pytest.mark.parametrize("model_id", catalog.models())
def test_parameters_add_up_to_the_published_total(model_id):
    """Published totals are rounded; vision encoders count in ours and not always in theirs."""
    published, shape = catalog.models()[model_id], architectures()[model_id]
    assert shape.total_params / 1e9 == pytest.approx(published.total_params_b, rel=0.16)


@pytest.mark.parametrize(
    ("model_id", "billions"),
    [
        pytest.param("Qwen/Qwen3-8B", 8.19, id="model-card-8.2B"),
        pytest.param("Qwen/Qwen3-30B-A3B-Instruct-2507", 30.5, id="model-card-30.5B"),
        pytest.param("meta-llama/Llama-3.1-70B-Instruct", 70.6, id="model-card-70.6B"),
        pytest.param("deepseek-ai/DeepSeek-V3.1", 671.0, id="paper-671B"),
        pytest.param("openai/gpt-oss-120b", 116.8, id="model-card-116.8B"),
    ],
)
def test_totals_of_shapes_with_precise_published_counts(model_id, billions):
    assert architectures()[model_id].total_params / 1e9 == pytest.approx(billions, rel=0.005)


def test_active_parameters_of_experts():
    """3.3 B with both vocabulary matrices (model card); one of them, 0.31 B, is a look-up."""
    shape = architecture_of("Qwen/Qwen3-30B-A3B-Instruct-2507")
    assert shape.active_params / 1e9 == pytest.approx(3.3 - 0.31, abs=0.05)


def test_kv_values_of_a_window(dense):
    """2 x 10 heads x 100 values in each of 10 layers; 4 of them see 50 tokens at most."""
    windowed = LanguageArchitecture(
        **{**vars(dense), "sliding_window": 50, "num_sliding_layers": 4}
    )
    assert dense.kv_values(200) == 2000 * 10 * 200
    assert windowed.kv_values(200) == 2000 * (6 * 200 + 4 * 50)
    assert windowed.kv_values(20) == dense.kv_values(20)


def test_compressed_keys_and_values():
    """DeepSeek V3 stores 512 + 64 values a token and layer (arXiv:2412.19437, 2.1.1)."""
    assert architecture_of("deepseek-ai/DeepSeek-V3.1").kv_values(1) == 61 * 576


def test_latent_tokens_of_a_video():
    """Wan 2.1: 81 frames become 21, 480 x 832 pixels 30 x 52 tokens."""
    shape = architecture_of("Wan-AI/Wan2.1-T2V-14B-Diffusers")
    assert shape.latent_tokens(480, 832, 81) == 21 * 30 * 52


def test_an_unknown_model_is_an_error_with_the_remedy():
    with pytest.raises(InvalidPoint, match=r"no/such.*--config"):
        architecture_of("no/such")
