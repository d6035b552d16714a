"""Diffusion on one GPU with the ``diffusers`` library."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_joules.engines.folders import KEEP, LAUNCHES, new_folder
from pytest_joules.engines.pipeline_server import Command, PipelineServer, started
from pytest_joules.errors import is_expected
from pytest_joules.plan import Launch, Stack
from pytest_joules.stack import interpreter, probe

__tracebackhide__ = is_expected

DISTRIBUTIONS: Final = ("torch", "diffusers", "transformers", "accelerate")


@dataclass(frozen=True, kw_only=True)
class DiffusersEngine:
    """Builds pipelines with a stack's own interpreter."""

    name: str = "diffusers"
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
        """Build the launch's pipeline in a worker; end it on leaving.

        Raises:
            MissingDependency: The stack has no interpreter or lacks a library.
            LaunchError: It did not become ready; the message holds the end of its log.
        """
        command = Command(argv=interpreter(launch.stack), job={"engine": self.name})
        with started(
            launch,
            command,
            gpu_uuids=gpu_uuids,
            folder=new_folder(self.folder, launch, keep=self.keep),
            distributions=DISTRIBUTIONS,
        ) as server:
            yield server
