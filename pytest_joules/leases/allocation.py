"""Which GPUs a request gets: first come, first served, all or none; pure.

Requests stand in a queue. One that can be served takes its GPUs; one that cannot keeps every
GPU that it could use from those behind it. So no GPU stands idle that only the first could
not use, and a request for four is never overtaken by requests for one of the same GPUs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Board = tuple[str, ...]
"""UUIDs of the GPUs that one launch runs on, in NVML's order."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one launch asks for."""

    count: int
    gpus: Board
    """Every GPU that would do, in NVML's order."""

    boards: tuple[Board, ...] = ()
    """Those that are preferred where they are free, the best first."""

    only_boards: bool = False
    """Whether nothing but one of ``boards`` will do."""

    @property
    def usable(self) -> frozenset[str]:
        """The GPUs that it might run on."""
        if self.only_boards:
            return frozenset(gpu for board in self.boards for gpu in board)
        return frozenset(self.gpus)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Request":
        """Read what ``as_json`` wrote.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is of another kind.
        """
        return cls(
            count=int(values["count"]),
            gpus=tuple(map(str, values["gpus"])),
            boards=tuple(tuple(map(str, board)) for board in values["boards"]),
            only_boards=bool(values["only_boards"]),
        )


def allocate(ahead: Sequence[Request], mine: Request, free: Iterable[str]) -> Board | None:
    """Return the GPUs that a request gets now; ``None``: it has to wait.

    Args:
        ahead: Those that came before and wait as well, the first first.
        mine: The request.
        free: GPUs that nobody holds.
    """
    left = set(free)
    for request in ahead:
        taken = _choice(request, left)
        left -= request.usable if taken is None else set(taken)
    return _choice(mine, left)


def _choice(request: Request, free: set[str]) -> Board | None:
    for board in request.boards:
        if free.issuperset(board):
            return board
    if request.only_boards:
        return None
    fitting = tuple(gpu for gpu in request.gpus if gpu in free)[: request.count]
    return fitting if len(fitting) == request.count else None
