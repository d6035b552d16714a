"""Models that the catalog does not know: described by a ``config.json`` or by a few numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_joules import storage
from pytest_joules.errors import FormatError, InvalidPoint, is_expected
from pytest_joules.latent.architecture import LanguageArchitecture

__tracebackhide__ = is_expected

_NESTS = ("text_config", "thinker_config", "llm_config", "language_config")
_VOCABULARY = 128_000


def from_config(path: Path) -> LanguageArchitecture:
    """Read the shape of a language model from its Hugging Face ``config.json``.

    Raises:
        FormatError: The file cannot be read, or is of no language model known here.
    """
    config = storage.read(path)
    if not isinstance(config, dict):
        raise FormatError(f"{path}: holds no object; give a model's config.json.")
    for nest in (*_NESTS, *_NESTS):  # a thinker's text_config lies in thinker_config
        config = (
            config.get(nest, config) if isinstance(config.get(nest, config), dict) else config
        )
    if "num_hidden_layers" not in config:
        raise FormatError(
            f"{path}: has no num_hidden_layers, so it is of no language model; "
            "describe the model by --parameters and --layers instead."
        )
    try:
        return LanguageArchitecture(source=str(path), **_shape(config))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: lacks or misstates {error}.") from None


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    return {
        "num_layers": int(config["num_hidden_layers"]),
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": int(config.get("num_key_value_heads") or heads),
        "head_size": int(config.get("head_dim") or hidden // heads),
        "vocabulary_size": int(config["vocab_size"]),
        "intermediate_size": int(
            config.get("intermediate_size_mlp") or config.get("intermediate_size") or 0
        ),
        "has_tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        **_experts(config),
        **_attention(config),
    }


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    number = next((int(config[name]) for name in names if config.get(name)), 0)
    if not number:
        return {}
    each = int(config.get("moe_intermediate_size") or config["intermediate_size"])
    shared = int(config.get("shared_expert_intermediate_size") or 0) + each * int(
        config.get("n_shared_experts") or 0
    )
    layers = int(config["num_hidden_layers"]) - int(config.get("first_k_dense_replace") or 0)
    sparse = int(
        config.get("decoder_sparse_step") or config.get("interleave_moe_layer_step") or 1
    )
    return {
        "num_experts": number,
        "experts_per_token": int(
            config.get("num_experts_per_tok") or config["experts_per_token"]
        ),
        "expert_intermediate_size": each,
        "shared_intermediate_size": shared,
        "num_expert_layers": layers // sparse,
    }


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    kinds = config.get("layer_types") or []
    sliding = sum("sliding" in kind or "chunked" in kind for kind in kinds)
    if sliding and config.get("sliding_window"):
        shape |= {
            "sliding_window": int(config["sliding_window"]),
            "num_sliding_layers": sliding,
        }
    if config.get("kv_lora_rank"):
        shape |= _compressed(config)
    return shape


def _compressed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Count what multi-head latent attention stores and multiplies (arXiv:2405.04434, 2.1)."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    rank, rope = int(config["kv_lora_rank"]), int(config["qk_rope_head_dim"])
    nope, value = int(config["qk_nope_head_dim"]), int(config["v_head_dim"])
    query_rank = int(config.get("q_lora_rank") or 0)
    query = heads * (nope + rope)
    queries = query_rank * (hidden + query) if query_rank else hidden * query
    keys = hidden * (rank + rope) + rank * heads * (nope + value)
    return {
        "kv_values_per_token_per_layer": rank + rope,
        "attention_params_per_layer": float(queries + keys + heads * value * hidden),
        "head_size": value,
    }


def from_numbers(
    *,
    params: float,
    layers: int,
    kv_heads: int = 8,
    head_size: int = 128,
    active_params: float | None = None,
    experts: tuple[int, int] = (0, 0),
) -> LanguageArchitecture:
    """Guess a shape that has these numbers.

    Args:
        params: All parameters.
        layers: Blocks of attention and MLP.
        kv_heads: KV heads of a layer.
        head_size: Values of one head.
        active_params: That one token meets; all, without experts.
        experts: Of a layer, and how many of them a token visits.

    Raises:
        InvalidPoint: The numbers fit no model.
    """
    (number, visited), active = experts, active_params or params
    per_expert = _per_expert(params, active, layers=layers, experts=experts) if number else 0.0
    dense = active - visited * per_expert * layers
    hidden = _hidden(dense / layers, is_sparse=bool(number))
    heads = max(1, hidden // head_size)
    attention = hidden * head_size * 2 * (heads + kv_heads)
    size = round(((dense - _VOCABULARY * hidden) / layers - attention) / 3 / hidden)
    if size < 0 and not number:
        raise InvalidPoint(f"{params:g} parameters in {layers} layers leave none for MLPs.")
    return LanguageArchitecture(
        source="the numbers given",
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        vocabulary_size=_VOCABULARY,
        intermediate_size=0 if number else size,
        num_experts=number,
        experts_per_token=visited,
        expert_intermediate_size=round(per_expert / 3 / hidden),
        shared_intermediate_size=max(0, size) if number else 0,
    )


def _per_expert(
    params: float, active: float, *, layers: int, experts: tuple[int, int]
) -> float:
    """Return the parameters of one expert of one layer: what no token meets is unvisited."""
    number, visited = experts
    if not 0 < visited < number or active >= params:
        raise InvalidPoint(
            f"experts={number}, experts per token={visited}, {active:g} of {params:g} "
            "parameters active: no such model; a token visits some of the experts, so "
            "some parameters are not active."
        )
    return (params - active) / (number - visited) / layers


def _hidden(params_per_layer: float, *, is_sparse: bool) -> int:
    """Guess the hidden size: a dense layer has about 12 squares of it, attention alone 4."""
    squares = 5.0 if is_sparse else 12.5
    return max(128, 128 * round(math.sqrt(params_per_layer / squares) / 128))
