"""xDiT (``xfuser``) around a pipeline: the transformer's sequence is split over the ranks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
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


@contextmanager
def parallel(job: Any, *, device: str) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Yield the job's pipeline and what to call, and leave the process group on leaving."""
    xfuser, distributed = import_module("xfuser"), import_module("xfuser.core.distributed")
    config = import_module("xfuser.config.args")
    parser = config.FlexibleArgumentParser()
    arguments = xfuser.xFuserArgs.add_cli_args(parser).parse_args(job["arguments"])
    distributed.init_distributed_environment()
    engine_config, _ = xfuser.xFuserArgs.from_cli_args(arguments).create_config()
    yield _built(job, engine_config, device=device)
    # Not left, a process group keeps its threads, and the ranks hang at their end. After an
    # exception others still wait for this rank, so leaving would hang; they are killed.
    distributed.get_runtime_state().destroy_distributed_env()


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
