"""Leases of whole GPUs among all processes of a machine, by UUID, through kernel locks.

A launch that wants GPUs queues (``queue``) and takes all that it needs, or none
(``allocation``). A lease is a lock on one file a GPU (``files``), so it ends with its
process, however that ends; what its engine still holds on the GPU then,
``gpus.holding.require_drained`` waits for.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_joules.errors import LeaseError, is_expected
from pytest_joules.leases.allocation import Board, Request
from pytest_joules.leases.files import Folder, Held, opened
from pytest_joules.leases.queue import queued

__tracebackhide__ = is_expected

__all__ = ["Leases"]


@dataclass(frozen=True, kw_only=True)
class Leases:
    """The GPUs of this machine, one launch at a time each."""

    folder: Path
    """Where all processes of the machine look; ``--joules-lease-folder``."""

    wait_s: float
    """Seconds after which waiting is an error; ``--joules-lease-wait``."""

    poll_s: float = 1.0
    """Between two looks at the queue: the machine is being measured."""

    @contextmanager
    def held(
        self, request: Request, tell: Callable[[str], None], *, what: str
    ) -> Iterator[Board]:
        """Hold GPUs inside the block, and nobody else.

        Args:
            request: How many, and which.
            tell: Hears what is waited for, each time that changes.
            what: What they are for, for people.

        Raises:
            LeaseError: Others held them for longer than ``wait_s``; or the folder is not safe.
        """
        with opened(self.folder) as folder, ExitStack() as stack:
            locks = self._waited(folder, request, tell, what=what)
            for lock in locks.values():
                stack.callback(lock.close)
            yield tuple(locks)

    def _waited(
        self, folder: Folder, request: Request, tell: Callable[[str], None], *, what: str
    ) -> dict[str, Held]:
        told = ""
        with queued(folder, request, what=what, wait_s=self.wait_s) as ticket:
            while isinstance(found := ticket.turn(), str):
                left_s = ticket.deadline_s - time.monotonic()
                if left_s <= 0:
                    raise LeaseError(_late(what, found, self.wait_s))
                if found != told:
                    tell(found)
                    told = found
                time.sleep(min(self.poll_s, left_s))
            return found


def _late(what: str, state: str, wait_s: float) -> str:
    return (
        f"{what}: waited {wait_s:g} s for GPUs and got none: {state}. They are never shared. "
        "End what holds them, wait longer (--joules-lease-wait=SECONDS), or make other GPUs "
        "visible (CUDA_VISIBLE_DEVICES)."
    )
