"""Which waiting work starts on which node of a fleet; pure, whole GPUs only.

Longest first, then widest: short jobs fill the end. Narrow jobs may pass a wide one that does
not fit yet, but not on the node that it waits for.

Source:
    List scheduling by falling duration: Graham, Bounds on Multiprocessing Timing Anomalies
    (SIAM J. Appl. Math. 17, 1969).
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work that needs GPUs of one type, all on one node, for as long as it lasts."""

    name: str
    gpu: str
    """Type of GPU, as ``--gpu`` names it."""

    num_gpus: int
    duration_s: float
    """Estimate; only the order rests on it."""

    only: frozenset[str] | None = None
    """Nodes that it may run on; ``None``: any of its type."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What is free on a node now."""

    node: str
    gpu: str
    num_gpus: int
    """GPUs that it has in all."""

    free: int
    """Of them, those that nothing is placed on."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A job on GPUs of a node, from start to end."""

    job: Job
    node: str
    gpus: tuple[int, ...]
    """Positions on the node."""

    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.job.duration_s


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Every job, placed."""

    placed: tuple[Placed, ...]
    bound_s: float
    """No schedule can be shorter; see ``lower_bound_s``."""

    @property
    def makespan_s(self) -> float:
        """Return when the last job ends, from the start."""
        return max((each.end_s for each in self.placed), default=0.0)


def fits(job: Job, room: Room) -> bool:
    """Tell whether a node could ever run the job."""
    is_allowed = job.only is None or room.node in job.only
    return is_allowed and job.gpu == room.gpu and job.num_gpus <= room.num_gpus


def starts(waiting: Iterable[Job], rooms: Iterable[Room]) -> list[tuple[Job, str]]:
    """Choose which waiting jobs start now, and on which nodes.

    The first job of a type that does not fit now keeps the node that is nearest to fitting
    it: nothing starts there before it, so that it is never starved.
    """
    by_type: dict[str, dict[str, Room]] = {}
    for room in rooms:
        by_type.setdefault(room.gpu, {})[room.node] = room
    ordered: dict[str, list[Job]] = {}
    for job in sorted(waiting, key=_order):
        ordered.setdefault(job.gpu, []).append(job)
    return [
        started
        for gpu, jobs in ordered.items()
        for started in _starts(jobs, by_type.get(gpu, {}))
    ]


def _starts(ordered: Sequence[Job], free: dict[str, Room]) -> Iterator[tuple[Job, str]]:
    is_kept = False
    largest = _largest(free)
    for job in ordered:
        if not largest:
            return
        if job.num_gpus > largest and is_kept:
            continue
        candidates = [room for room in free.values() if fits(job, room)]
        now = [room for room in candidates if room.free >= job.num_gpus]
        if now:
            # The tightest: large holes stay for wide jobs.
            best = min(now, key=lambda room: (room.free, room.node))
            free[best.node] = replace(best, free=best.free - job.num_gpus)
            yield job, best.node
        elif candidates and not is_kept:
            del free[max(candidates, key=lambda room: (room.free, room.node)).node]
            is_kept = True
        else:
            continue
        largest = _largest(free)


def _largest(free: Mapping[str, Room]) -> int:
    return max((room.free for room in free.values()), default=0)


def _order(job: Job) -> tuple[float, int, str]:
    return (-job.duration_s, -job.num_gpus, job.name)


def impossible(jobs: Iterable[Job], rooms: Sequence[Room]) -> list[Job]:
    """Return the jobs that no node could ever run."""
    return [job for job in jobs if not any(fits(job, room) for room in rooms)]


def schedule(jobs: Sequence[Job], nodes: Mapping[str, tuple[str, int]]) -> Schedule:
    """Let ``starts`` place every job on idle nodes, as if each lasted as estimated.

    Args:
        jobs: What to run.
        nodes: GPU type and number of GPUs by node.

    Raises:
        ValueError: A job fits no node, even alone.
    """
    idle = [Room(node=n, gpu=gpu, num_gpus=k, free=k) for n, (gpu, k) in nodes.items()]
    if lost := impossible(jobs, idle):
        raise ValueError(f"no node fits {lost[0].name}")
    placed = tuple(_run(jobs, nodes))
    return Schedule(placed=placed, bound_s=lower_bound_s(jobs, nodes))


def _run(jobs: Sequence[Job], nodes: Mapping[str, tuple[str, int]]) -> Iterator[Placed]:
    free = {node: list(range(count)) for node, (_, count) in nodes.items()}
    running: list[tuple[float, int, Placed]] = []
    waiting = {id(job): job for job in jobs}
    now_s = 0.0
    while waiting:
        rooms = [
            Room(node=node, gpu=nodes[node][0], num_gpus=nodes[node][1], free=len(gpus))
            for node, gpus in free.items()
        ]
        for job, node in starts(waiting.values(), rooms):
            taken = tuple(free[node][: job.num_gpus])
            free[node] = free[node][job.num_gpus :]
            started = Placed(job=job, node=node, gpus=taken, start_s=now_s)
            heapq.heappush(running, (started.end_s, id(job), started))
            del waiting[id(job)]
            yield started
        now_s = running[0][0] if running else now_s
        while running and running[0][0] <= now_s:
            ended = heapq.heappop(running)[2]
            free[ended.node] = sorted([*free[ended.node], *ended.gpus])


def lower_bound_s(jobs: Iterable[Job], nodes: Mapping[str, tuple[str, int]]) -> float:
    """Return what no schedule can beat.

    Of each GPU type, the larger of all GPU seconds over all its GPUs, and its longest job;
    of all types the largest, for they run side by side.
    """
    listed = list(jobs)
    return max((_bound_s(listed, nodes, gpu) for gpu in {j.gpu for j in listed}), default=0.0)


def _bound_s(jobs: Sequence[Job], nodes: Mapping[str, tuple[str, int]], gpu: str) -> float:
    ours = [job for job in jobs if job.gpu == gpu]
    capacity = sum(count for kind, count in nodes.values() if kind == gpu)
    work_s = sum(job.duration_s * job.num_gpus for job in ours)
    longest_s = max(job.duration_s for job in ours)
    return max(work_s / capacity, longest_s)
