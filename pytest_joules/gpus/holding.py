"""Holds a launch's GPUs for it alone, and waits until nothing else is on them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

from pytest_joules.engines import Server
from pytest_joules.errors import MeterError, is_expected
from pytest_joules.gpus.choice import gpus_of
from pytest_joules.leases.allocation import Board, Request
from pytest_joules.plan import Launch
from pytest_joules.progress import LeaseEnds, LeaseWaits
from pytest_joules.rig import Rig
from pytest_joules.trace import GpuIdentity, MeterTrace

__tracebackhide__ = is_expected


@contextmanager
def held(rig: Rig, launch: Launch, request: Request) -> Iterator[Board]:
    """Hold GPUs inside the block, and say who is waited for.

    Raises:
        LeaseError: Others keep them.
    """
    assert rig.leases is not None
    said: list[str] = []
    began_s = rig.clock()

    def tell(text: str) -> None:
        said.append(text)
        rig.say(LeaseWaits(launch=launch, text=text, at_s=rig.clock()))

    with ExitStack() as stack:
        lease = rig.leases.held(request, tell, what=launch.largest.id)
        try:
            board = stack.enter_context(lease)
        finally:
            rig.waiting.seconds += rig.clock() - began_s
            if said:
                rig.say(LeaseEnds(at_s=rig.clock()))
        yield board


@contextmanager
def held_by_server(
    server: Server, launch: Launch, rig: Rig
) -> Iterator[tuple[GpuIdentity, ...]]:
    """Find and hold the GPUs that a running server uses: two loads would be mixed.

    Raises:
        LeaseError: Others keep them.
        MeterError: Nobody can tell which they are, or they are not those of the point.
    """
    gpus = gpus_of(server.process_ids, launch, rig.meter)
    board = tuple(gpu.uuid for gpu in gpus)
    exactly = Request(count=len(board), gpus=board, boards=(board,), only_boards=True)
    with held(rig, launch, exactly) if rig.leases else nullcontext():
        yield gpus


def require_drained(gpus: Sequence[GpuIdentity], rig: Rig) -> None:
    """Wait until nothing holds memory on the GPUs.

    Raises:
        MeterError: Memory is still held after ``Procedure.drain_deadline_s``.
    """
    uuids = [gpu.uuid for gpu in gpus]
    deadline_s = rig.clock() + rig.procedure.drain_deadline_s
    while True:
        with rig.meter.recording(uuids) as recording:
            pass
        used = _used(recording.trace(), rig.procedure.drained_memory_bytes)
        if not used:
            return
        if rig.clock() > deadline_s:
            raise MeterError(
                f"{used} before the launch, at most "
                f"{rig.procedure.drained_memory_bytes / 2**30:.0f} GiB may be. End that "
                "process, or choose other GPUs (CUDA_VISIBLE_DEVICES)."
            )


def _used(trace: MeterTrace, limit_bytes: int) -> str:
    """Say which GPU has more memory in use, and by whom; empty: none."""
    for gpu in trace.gpus:
        used = [r.memory_used_bytes for r in gpu.readings if r.memory_used_bytes is not None]
        if used and used[-1] > limit_bytes:
            pids = next((r.process_ids for r in reversed(gpu.readings) if r.process_ids), ())
            owner = f" by process {', '.join(map(str, pids))}" if pids else ""
            return f"{gpu.gpu.uuid}: {used[-1] / 2**30:.1f} GiB of memory are in use{owner}"
    return ""
