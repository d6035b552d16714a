"""Pipelines with real weights, or built from configurations with random ones."""

from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from pytest_joules.engines.worker.device import DTYPES


def pipeline(job: Any, *, device: str, transformer: type | None = None) -> Any:
    """Build the job's pipeline on a device.

    Args:
        job: As ``pipelines.as_job`` writes it.
        device: Where.
        transformer: Class to build the transformer with, instead of the pipeline's own.
    """
    diffusers, torch = import_module("diffusers"), import_module("torch")
    dtype = getattr(torch, DTYPES[job["precision"]])
    made_by = getattr(diffusers, job["pipeline"]["name"])
    if job["components"] is None:
        extra = {}
        if transformer is not None:
            extra["transformer"] = transformer.from_pretrained(  # type: ignore[attr-defined]
                job["model"], subfolder="transformer", torch_dtype=dtype
            )
        return made_by.from_pretrained(job["model"], torch_dtype=dtype, **extra).to(device)
    parts = {
        part: _component(
            config,
            made_by=transformer if part == "transformer" else None,
            place={"device": device, "dtype": dtype},
            seed=job["seed"],
        )
        for part, config in job["components"].items()
    }
    wanted = signature(made_by.__init__).parameters
    absent = {
        name: None
        for name, parameter in wanted.items()
        if name not in ("self", *parts) and parameter.default is parameter.empty
    }
    # Not missing by mistake: a safety checker is no part of what is measured.
    switches = {"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}
    return made_by(**parts, **absent, **switches)


def _component(
    config: Mapping[str, Any], *, made_by: type | None, place: Mapping[str, Any], seed: int
) -> Any:
    diffusers = import_module("diffusers")
    named = getattr(diffusers, config["class"])
    fields = {name: value for name, value in config.items() if name != "class"}
    if not issubclass(named, diffusers.ModelMixin):
        return named.from_config(fields)
    return _filled(made_by or named, fields, place=place, seed=seed)


def _filled(
    made_by: Any, fields: Mapping[str, Any], *, place: Mapping[str, Any], seed: int
) -> Any:
    """Build a model whose weights are made where they stay, not first on the CPU."""
    accelerate, torch = import_module("accelerate"), import_module("torch")
    with accelerate.init_empty_weights(include_buffers=False):
        model = made_by.from_config(dict(fields))
    generator = torch.Generator(place["device"]).manual_seed(seed)
    wide = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    for path, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            keeps = any(part in f"{path}.{name}".split(".") for part in wide)
            values = torch.empty(
                weight.shape,
                device=place["device"],
                dtype=torch.float32 if keeps else place["dtype"],
            )
            setattr(module, name, torch.nn.Parameter(values, requires_grad=False))
            _fill(values, name, generator)
        for name, values in module.named_buffers(recurse=False):
            dtype = place["dtype"] if values.is_floating_point() else values.dtype
            setattr(module, name, values.to(place["device"], dtype))
    return model.eval()


def _fill(values: Any, name: str, generator: Any) -> None:
    """Fill as initialised layers are, so that activations neither vanish nor overflow."""
    if values.dim() > 1:
        inputs = values[0].numel()
        values.normal_(0.0, inputs**-0.5, generator=generator)
    else:
        values.fill_(1.0 if name == "weight" else 0.0)


def embeds(pipeline: Mapping[str, Any], pipe: Any, *, batch_size: int, device: str) -> Any:
    """Make the text embeddings and masks that stand for prompts."""
    torch = import_module("torch")
    config, dtype = pipe.transformer.config, pipe.transformer.dtype
    generator = torch.Generator(device).manual_seed(0)
    made = {}
    for name, shape in pipeline["embeds"].items():
        sizes = [config[size] if isinstance(size, str) else size for size in shape]
        made[name] = torch.randn(
            batch_size, *sizes, generator=generator, device=device, dtype=dtype
        )
    for name, length in pipeline["masks"].items():
        made[name] = torch.ones(batch_size, length, device=device, dtype=torch.long)
    return made
