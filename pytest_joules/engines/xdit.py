"""Diffusion on one or more GPUs with xDiT: sequence parallelism, one rank a GPU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_joules import pipelines
from pytest_joules.engines.folders import KEEP, LAUNCHES, new_folder
from pytest_joules.engines.pipeline_server import Command, PipelineServer, started
from pytest_joules.errors import is_expected
from pytest_joules.plan import Launch, Stack
from pytest_joules.stack import interpreter, probe

__tracebackhide__ = is_expected

DISTRIBUTIONS: Final = ("torch", "diffusers", "transformers", "accelerate", "xfuser")
_NO_SERVER: Final = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Keeps torchrun from offering the ranks a store, which would listen at every address."""


@dataclass(frozen=True, kw_only=True)
class XditEngine:
    """Builds parallel pipelines with a stack's own interpreter and torchrun."""

    name: str = "xdit"
    attaches: bool = False
    folder: Path = LAUNCHES
    """Gets one sub-folder a launch, with its log."""

    keep: int = KEEP
    """Sub-folders that stay."""

    def versions(self, stack: Stack) -> dict[str, str]:
        """Ask the stack; raises as ``stack.probe``."""
        return probe(stack)

    @contextmanager
    def started(
        self, launch: Launch, *, gpu_uuids: Sequence[str] = ()
    ) -> Iterator[PipelineServer]:
        """Build the launch's pipeline in one worker a GPU; end them all on leaving.

        Raises:
            MissingDependency: The stack has no interpreter or lacks a library.
            LaunchError: It did not become ready; the message holds the end of its log.
        """
        point = launch.largest
        folder = new_folder(self.folder, launch, keep=self.keep)
        ulysses, ring = pipelines.degrees(point)
        command = Command(
            argv=(
                *(*interpreter(launch.stack), "-m", "torch.distributed.run"),
                *_rendezvous(folder),
                f"--nproc_per_node={point.num_gpus}",
            ),
            job={
                "engine": self.name,
                "store": str(folder.resolve() / "ranks"),
                "arguments": [
                    *("--model", point.model),
                    *("--ulysses_degree", str(ulysses), "--ring_degree", str(ring)),
                    *(*launch.stack.args, *point.engine_args),
                ],
            },
            env=_NO_SERVER,
            num_ranks=point.num_gpus,
        )
        with started(
            launch,
            command,
            gpu_uuids=gpu_uuids,
            folder=folder,
            distributions=DISTRIBUTIONS,
        ) as server:
            yield server


def _rendezvous(folder: Path) -> Iterator[str]:
    """Yield torchrun's options for a rendezvous in a file: its sockets listen everywhere."""
    yield from ("--nnodes=1", "--rdzv-backend=c10d", "--rdzv-conf=store_type=file")
    yield from (
        f"--rdzv-endpoint={folder.resolve() / 'rendezvous'}",
        f"--rdzv-id={folder.name}",
    )
    yield "--local-addr=127.0.0.1"
    yield f"--log-dir={folder.resolve() / 'torchrun'}"  # else one is left in TMPDIR
