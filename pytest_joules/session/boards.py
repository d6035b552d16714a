"""On which of a machine's GPUs a launch should run.

Boards of one model differ by several percent, so only runs of one board are compared: a
server stays where its first launch was, and first looks for the board of its baseline.
"""

from collections import Counter
from collections.abc import Sequence

from pytest_joules.plan import Boards
from pytest_joules.result import Result


def boards(used: tuple[str, ...], stored: Sequence[Result], *, waits: bool) -> Boards:
    """Return the boards of a launch.

    Args:
        used: Where its server's launches of this session ran; empty for the first.
        stored: The baseline's runs of its points.
        waits: Whether there is no answer on any other board than the baseline's.
    """
    if used:
        return Boards(fixed=used)
    known = Counter(run.provenance.context.gpu_uuids for run in stored)
    known.pop((), None)  # runs of before UUIDs were kept
    best = tuple(board for board, _ in known.most_common())
    return Boards(preferred=best, waits=waits and bool(best))
