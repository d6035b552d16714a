"""The published plan on 64 simulated nodes: how long it takes beside what no plan can beat.

    JOULES_MLENERGY_DATA=.../public/data python tests/perf/fleet_schedule.py

Every published configuration is a point; points are grouped into launches as a session does
it, once as published (a server for each batch size) and once with shared servers, and
placed by ``fleet.schedule`` on nodes of 8 GPUs, divided over the GPU types by their work.
The bound of a type is the larger of all its GPU seconds over its GPUs, and its longest
launch; durations are the plan's own estimates. Exits with 1 where a makespan is over 1.25 of
its bound, or a rule is broken.
"""

import os
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pytest_joules.budget import expected_costs
from pytest_joules.fleet.schedule import lower_bound_s, schedule
from pytest_joules.plan import Stack, plan
from pytest_joules.report.fleet_plan import jobs_of
from pytest_joules.report.waiting import clock
from pytest_joules.sources.mlenergy import read_leaderboard

NUM_NODES, GPUS_A_NODE, LIMIT = 64, 8, 1.25


def points(results, gpu, *, shared):
    for result in results:
        if result.gpu == gpu:
            is_text = result.point.work_unit == "token"
            # The published rows are of natural lengths, which have no meaning for images.
            changes = {"shared_server": shared} if is_text else {"mode": "fixed"}
            yield result.point.but(**changes)


def nodes_for(work_s):
    """Divide the nodes over the types by their work, at least one each."""
    total = sum(work_s.values())
    names = sorted(work_s, key=work_s.get)
    counts = {gpu: max(1, round(NUM_NODES * work_s[gpu] / total)) for gpu in names[:-1]}
    counts[names[-1]] = NUM_NODES - sum(counts.values())
    kinds = [gpu for gpu in names for _ in range(counts[gpu])]
    return {f"node-{i:02}": (gpu, GPUS_A_NODE) for i, gpu in enumerate(kinds)}


def require_sound(made, jobs, nodes):
    """Check each rule once more, without the code that made the schedule."""
    assert Counter(p.job.name for p in made.placed) == Counter(job.name for job in jobs)
    for placed in made.placed:
        assert nodes[placed.node][0] == placed.job.gpu
        assert len({*placed.gpus}) == placed.job.num_gpus
    by_gpu = {}
    for placed in sorted(made.placed, key=lambda each: each.start_s):
        for index in placed.gpus:
            by_gpu.setdefault((placed.node, index), []).append(placed)
    for runs in by_gpu.values():
        assert all(one.end_s <= two.start_s for one, two in pairwise(runs))


def row(name, jobs, nodes, *, made):
    gpus = sorted({job.gpu for job in jobs})
    types = []
    for gpu in gpus:
        ours = [job for job in jobs if job.gpu == gpu]
        makespan_s = max(p.end_s for p in made.placed if p.job.gpu == gpu)
        ratio = makespan_s / lower_bound_s(ours, nodes)
        count = sum(kind == gpu for kind, _ in nodes.values())
        types.append(f"{gpu}: {count} nodes, {len(ours)} launches, {ratio:.3f}")
    ratio = made.makespan_s / made.bound_s
    print(
        f"{name}: {len(jobs)} launches, makespan {clock(made.makespan_s)}, bound "
        f"{clock(made.bound_s)}, ratio {ratio:.3f}  ({'; '.join(types)})"
    )
    return ratio


def experiment(name, results, *, shared, shortest=False):
    begun_s = time.monotonic()
    jobs = []
    for gpu in sorted({result.gpu for result in results}):
        made = plan(list(points(results, gpu, shared=shared)), stack=Stack(), gpu=gpu)
        jobs += jobs_of(replace(made, costs=expected_costs(60.0)))
    work_s = {
        gpu: sum(job.duration_s * job.num_gpus for job in jobs if job.gpu == gpu)
        for gpu in {job.gpu for job in jobs}
    }
    nodes = nodes_for(work_s)
    jobs = [job for job in jobs if not shortest or job.duration_s <= 3600]
    made = schedule(jobs, nodes)
    took_s = time.monotonic() - begun_s
    require_sound(made, jobs, nodes)
    ratio = row(name, jobs, nodes, made=made)
    print(f"    planned and scheduled in {took_s:.1f} s")
    return ratio


def main():
    folder = os.environ.get("JOULES_MLENERGY_DATA")
    if not folder:
        sys.exit("JOULES_MLENERGY_DATA names no folder with the leaderboard's public/data")
    results = read_leaderboard(Path(folder)).results
    print(f"{len(results)} published points on {NUM_NODES} nodes of {GPUS_A_NODE} GPUs")
    ratios = [
        experiment("a server for each batch size", results, shared=False),
        experiment("shared servers", results, shared=True),
        experiment("as published, none over an hour", results, shared=False, shortest=True),
        experiment("shared servers, none over an hour", results, shared=True, shortest=True),
    ]
    if max(ratios) > LIMIT:
        sys.exit(f"a makespan is over {LIMIT} of its bound")


if __name__ == "__main__":
    main()
