"""Scheduling of a fleet: worked by hand, and its promises against any jobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.fleet.schedule import Job, Room, lower_bound_s, schedule, starts


def job(name, num_gpus, duration_s=60.0, *, gpu="h200", only=None):
    return Job(name=name, gpu=gpu, num_gpus=num_gpus, duration_s=duration_s, only=only)


def room(node, free, *, gpu="h200", num_gpus=8):
    return Room(node=node, gpu=gpu, num_gpus=num_gpus, free=free)


def test_worked_by_hand():
    """Four GPUs, 100 s of one, 60 s of four and 40 s of two: 100 s busy, then the wide one.

    The longest takes one GPU, the wide job waits for the node and keeps it, so the 40 s wait
    as well and run after it: 100 + 60 + 40 = 200 s. Work is 100 + 240 + 80 = 420 GPU seconds
    on 4 GPUs: 105 s.
    """
    jobs = [job("long", 1, 100.0), job("wide", 4, 60.0), job("short", 2, 40.0)]

    made = schedule(jobs, {"a": ("h200", 4)})

    assert {each.job.name: each.start_s for each in made.placed} == {
        "long": 0.0,
        "wide": 100.0,
        "short": 160.0,
    }
    assert made.makespan_s == 200.0
    assert made.bound_s == 105.0


@pytest.mark.parametrize(
    ("jobs", "rooms", "expected"),
    [
        pytest.param([job("a", 1), job("b", 1, 90.0)], [room("n", 1)], ["b@n"], id="longest"),
        pytest.param([job("a", 1), job("b", 2)], [room("n", 2)], ["b@n"], id="then-widest"),
        pytest.param(
            [job("a", 2)], [room("m", 8), room("n", 2), room("o", 1)], ["a@n"], id="tightest"
        ),
        pytest.param([job("a", 1, gpu="b200")], [room("n", 8)], [], id="other-type"),
        pytest.param(
            [job("a", 1, only=frozenset("n"))], [room("m", 1), room("n", 8)], ["a@n"], id="only"
        ),
        pytest.param(
            [job("w", 8, 90.0), job("s", 1)],
            [room("m", 7), room("n", 4)],
            ["s@n"],
            id="a-wide-job-keeps-the-node-that-is-nearest",
        ),
        pytest.param([job("w", 8, 90.0), job("s", 1)], [room("m", 7)], [], id="and-waits"),
        pytest.param([job("w", 9, 90.0), job("s", 1)], [room("m", 7)], ["s@m"], id="never"),
        pytest.param([], [room("m", 7)], [], id="nothing"),
    ],
)
def test_what_starts_now(jobs, rooms, expected):
    assert [f"{started.name}@{node}" for started, node in starts(jobs, rooms)] == expected


@pytest.mark.parametrize(
    ("jobs", "bound_s"),
    [
        pytest.param([job(n, 8, 10.0) for n in "abc"], 15.0, id="work"),
        pytest.param([job("a", 1, 10.0)], 10.0, id="longest"),
        pytest.param([job("a", 8, 10.0), job("b", 4, 12.0, gpu="b200")], 12.0, id="types"),
        pytest.param([], 0.0, id="none"),
    ],
)
def test_lower_bound(jobs, bound_s):
    nodes = {"m": ("h200", 8), "n": ("h200", 8), "o": ("b200", 4)}

    assert lower_bound_s(jobs, nodes) == bound_s


def test_a_job_that_fits_no_node_is_refused():
    with pytest.raises(ValueError, match="no node fits wide"):
        schedule([job("wide", 8)], {"a": ("h200", 4), "b": ("b200", 8)})


NODES = st.lists(
    st.tuples(st.sampled_from(["h200", "b200"]), st.sampled_from([1, 2, 4, 8])),
    min_size=1,
    max_size=5,
).map(lambda listed: {f"n{i}": node for i, node in enumerate(listed)})


@st.composite
def fleets(draw):
    nodes = draw(NODES)
    shapes = st.tuples(
        st.sampled_from(sorted(nodes)), st.integers(1, 8), st.floats(1.0, 1000.0)
    )
    jobs = []
    for i, (node, width, duration_s) in enumerate(draw(st.lists(shapes, max_size=40))):
        gpu, count = nodes[node]
        jobs.append(job(f"j{i}", min(width, count), duration_s, gpu=gpu))
    return jobs, nodes


@given(fleets())
def test_every_job_runs_once_on_its_type_and_no_gpu_is_shared(fleet):
    jobs, nodes = fleet

    placed = schedule(jobs, nodes).placed

    assert sorted(each.job.name for each in placed) == sorted(each.name for each in jobs)
    for each in placed:
        gpu, count = nodes[each.node]
        assert each.job.gpu == gpu
        assert len({*each.gpus}) == each.job.num_gpus
        assert {*each.gpus} <= {*range(count)}
    for one in placed:
        for other in placed:
            if one is not other and one.node == other.node and {*one.gpus} & {*other.gpus}:
                assert one.end_s <= other.start_s or other.end_s <= one.start_s


@given(fleets())
def test_the_bound_holds_and_no_schedule_is_worse_than_one_after_the_other(fleet):
    jobs, nodes = fleet

    made = schedule(jobs, nodes)

    assert made.makespan_s >= made.bound_s * (1 - 1e-9)
    assert made.makespan_s <= sum(each.duration_s for each in jobs) * (1 + 1e-9)
    if jobs:
        assert made.bound_s >= max(each.duration_s for each in jobs) * (1 - 1e-9)
