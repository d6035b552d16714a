"""xDiT (``xfuser``) around a pipeline: the transformer's sequence is split over the ranks."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pytest_joules.engines.worker import components

# Pipelines that xDiT runs unchanged, with a transformer of its own class; it wraps the others.
_OWN_TRANSFORMERS = {
    "WanPipeline": ("transformer_wan", "xFuserWanTransformer3DWrapper"),
    "HunyuanVideoPipeline": (
        "transformer_hunyuan_video",
        "xFuserHunyuanVideoTransformer3DWrapper",
    ),
}


_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables that name the network over which ranks talk, unless the stack sets them."""


@contextmanager
def parallel(job: Any, *, device: str) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Yield the job's pipeline and what to call, and leave the process group on leaving."""
    xfuser, distributed = import_module("xfuser"), import_module("xfuser.core.distributed")
    config = import_module("xfuser.config.args")
    parser = config.FlexibleArgumentParser()
    arguments = xfuser.xFuserArgs.add_cli_args(parser).parse_args(job["arguments"])
    _join(distributed, Path(job["store"]))
    engine_config, _ = xfuser.xFuserArgs.from_cli_args(arguments).create_config()
    yield _built(job, engine_config, device=device)
    # Not left, a process group keeps its threads, and the ranks hang at their end. After an
    # exception others still wait for this rank, so leaving would hang; they are killed.
    distributed.get_runtime_state().destroy_distributed_env()


def _join(distributed: Any, store: Path) -> None:
    """Join the other ranks through a file, and talk to them over loopback.

    torch's own store for that is a server that listens at every address of the machine.

    Raises:
        RuntimeError: The file's path cannot stand in a URL as torch reads them.
    """
    if {"?", "#"} & {*str(store)}:
        raise RuntimeError(
            f"{store}: torch takes what follows ? or # in the path of its ranks' file for "
            "something else. Run pytest in a folder without them."
        )
    for name in _INTERFACES:
        os.environ.setdefault(name, "lo")
    rank, size, local_rank = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    distributed.init_distributed_environment(
        world_size=size,
        rank=rank,
        local_rank=local_rank,
        distributed_init_method=f"file://{store}",  # torch does not unquote it
    )


def _built(job: Any, engine_config: Any, *, device: str) -> tuple[Any, Callable[..., Any]]:
    name = job["pipeline"]["name"]
    if name in _OWN_TRANSFORMERS:
        pipe = components.pipeline(job, device=device, transformer=_own(name))
        import_module("xfuser.core.distributed").initialize_runtime_state(pipe, engine_config)
        return pipe, pipe
    pipe = components.pipeline(job, device=device)
    register = import_module("xfuser.model_executor.pipelines.register")
    wrapper = register.xFuserPipelineWrapperRegister.get_class(pipe)
    return pipe, wrapper(pipeline=pipe, engine_config=engine_config)


def _own(name: str) -> Any:
    module, class_name = _OWN_TRANSFORMERS[name]
    home = "xfuser.model_executor.models.transformers"
    return getattr(import_module(f"{home}.{module}"), class_name)
