"""Models that the catalog does not know: described by a ``config.json`` or by a few numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_joules import storage
from pytest_joules.errors import ConfigurationError, FormatError, InvalidPoint, is_expected
from pytest_joules.latent.architecture import LanguageArchitecture

__tracebackhide__ = is_expected

_NESTS = ("text_config", "thinker_config", "llm_config", "language_config")
_VOCABULARY = 128_000
_LAYER_TYPES = ("full_attention", "sliding_attention")
_MOST = 10**9
"""Of any count: far beyond every model, and no product of a few overflows."""

_MOST_PARAMS = 1e15


def from_config(path: Path) -> LanguageArchitecture:
    """Read the shape of a language model from its Hugging Face ``config.json``.

    Raises:
        ConfigurationError: The file cannot be read.
        FormatError: It is of no language model known here.
        InvalidPoint: A number is none that a model can have, or a layer of an unknown type.
    """
    try:
        config = storage.read(path)
    except FormatError as error:  # a wrong option of the command, not a damaged record
        raise ConfigurationError(str(error)) from None
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


def _whole(name: str, value: Any, *, least: int = 1, most: int = _MOST) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or value != int(value):
        raise InvalidPoint(f"{name}={value!r}: give a whole number from {least} to {most}.")
    return int(value)


def _read(config: Mapping[str, Any], name: str, *, least: int = 1, most: int = _MOST) -> int:
    return _whole(name, config[name], least=least, most=most)


def _optional(
    config: Mapping[str, Any], *names: str, default: int = 0, least: int = 1, most: int = _MOST
) -> int:
    """Read the first that is there; a published config writes null for what it has not."""
    name = next((name for name in names if config.get(name) is not None), None)
    return default if name is None else _read(config, name, least=least, most=most)


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    heads, hidden = _read(config, "num_attention_heads"), _read(config, "hidden_size")
    mlp = ("intermediate_size_mlp", "intermediate_size")
    return {
        "num_layers": _read(config, "num_hidden_layers"),
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": _optional(config, "num_key_value_heads", default=heads),
        "head_size": _optional(config, "head_dim") or _whole("head_dim", hidden // heads),
        "vocabulary_size": _read(config, "vocab_size"),
        "intermediate_size": _optional(config, *mlp),
        "has_tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        **_experts(config),
        **_attention(config),
    }


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    number = max(_optional(config, name, least=0) for name in names)
    if not number:
        return {}
    each = _optional(config, "moe_intermediate_size") or _read(config, "intermediate_size")
    shared = _optional(config, "shared_expert_intermediate_size", least=0)
    shared += each * _optional(config, "n_shared_experts", least=0)
    layers = _read(config, "num_hidden_layers")
    layers -= _optional(config, "first_k_dense_replace", least=0, most=layers)
    steps = ("decoder_sparse_step", "interleave_moe_layer_step")
    visited = _optional(config, "num_experts_per_tok", most=number)
    return {
        "num_experts": number,
        "experts_per_token": visited or _read(config, "experts_per_token", most=number),
        "expert_intermediate_size": each,
        "shared_intermediate_size": shared,
        "num_expert_layers": layers // _optional(config, *steps, default=1),
    }


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    sliding = _sliding_layers(config)
    window = _optional(config, "sliding_window") if sliding else 0
    if window:
        shape |= {"sliding_window": window, "num_sliding_layers": sliding}
    if _optional(config, "kv_lora_rank", least=0):
        shape |= _compressed(config)
    return shape


def _sliding_layers(config: Mapping[str, Any]) -> int:
    kinds = config.get("layer_types")
    if kinds is None:
        return 0
    layers = _read(config, "num_hidden_layers")
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise InvalidPoint(f"layer_types={kinds!r}: give one for each of the {layers} layers.")
    unknown = [kind for kind in kinds if kind not in _LAYER_TYPES]
    if unknown:
        raise InvalidPoint(
            f"layer_types: the model does not know {unknown[0]!r}, only "
            f"{' and '.join(_LAYER_TYPES)}; such a model cannot be predicted."
        )
    return kinds.count("sliding_attention")


def _compressed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Count what multi-head latent attention stores and multiplies (arXiv:2405.04434, 2.1)."""
    hidden, heads = _read(config, "hidden_size"), _read(config, "num_attention_heads")
    rank, rope = _read(config, "kv_lora_rank"), _read(config, "qk_rope_head_dim")
    nope, value = _read(config, "qk_nope_head_dim"), _read(config, "v_head_dim")
    query_rank = _optional(config, "q_lora_rank", least=0)
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
        params: All.
        layers: Blocks of attention and MLP.
        kv_heads: Of a layer.
        head_size: Values of one head.
        active_params: That one token meets; all, without experts.
        experts: Of a layer, and how many of them a token visits.

    Raises:
        InvalidPoint: The numbers fit no model.
    """
    (number, visited), active = experts, params if active_params is None else active_params
    _require_sound(params, active, layers=layers, heads=(kv_heads, head_size), experts=experts)
    per_expert, dense = _split(params, active, layers=layers, experts=experts)
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


def _require_sound(
    params: float,
    active: float,
    *,
    layers: int,
    heads: tuple[int, int],
    experts: tuple[int, int],
) -> None:
    _amount("parameters", params, most=_MOST_PARAMS)
    _amount("active parameters", active, most=params)
    _whole("layers", layers)
    _whole("KV heads", heads[0])
    _whole("head size", heads[1])
    _whole("experts", experts[0], least=0)
    _whole("experts per token", experts[1], least=0)


def _amount(name: str, value: Any, *, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= most:
        raise InvalidPoint(f"{name}={value!r}: give a number above 0, at most {most:g}.")


def _split(
    params: float, active: float, *, layers: int, experts: tuple[int, int]
) -> tuple[float, float]:
    """Return the parameters of one expert of one layer, and all that are no experts'.

    What no token meets is in the experts that it does not visit.
    """
    number, visited = experts
    if not any(experts):
        return 0.0, active
    if not 0 < visited < number or active >= params:
        raise InvalidPoint(
            f"experts={number}, experts per token={visited}, {active:g} of {params:g} "
            "parameters active: no such model; a token visits some of the experts, so "
            "some parameters are not active."
        )
    per_layer = (params - active) / (number - visited)
    dense = active - visited * per_layer
    if dense <= 0:
        raise InvalidPoint(
            f"active parameters={active:g}: {visited} of {number} experts leave none for "
            "the rest."
        )
    return per_layer / layers, dense


def _hidden(params_per_layer: float, *, is_sparse: bool) -> int:
    """Guess the hidden size: a dense layer has about 12 squares of it, attention alone 4."""
    squares = 5.0 if is_sparse else 12.5
    return max(128, 128 * round(math.sqrt(params_per_layer / squares) / 128))
