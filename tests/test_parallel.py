"""Which tests stay together among workers."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.point import Point
from pytest_joules.run.collection import Joined, server_groups
from pytest_joules.run.scheduling import ServerScheduling, scopes

ONE, TWO = Point(model="a/one", batch_size=8), Point(model="a/two", batch_size=8)


def test_tests_of_one_server_are_one_group():
    groups = server_groups({"a": [ONE], "b": [TWO], "c": [ONE.but(batch_size=64)]})

    assert groups["a"] == groups["c"] != groups["b"]


def test_a_test_of_two_servers_joins_the_tests_of_both():
    groups = server_groups({"a": [ONE], "b": [TWO], "both": [TWO, ONE]})

    assert len(set(groups.values())) == 1


def test_a_point_with_a_server_of_its_own_stays_apart():
    alone = ONE.but(shared_server=False)
    groups = server_groups({"a": [alone], "b": [alone.but(batch_size=16)]})

    assert groups["a"] != groups["b"]


def test_tests_without_a_server_are_handed_out_one_by_one():
    made = scopes(["a", "b", "c"], {"a": "0", "c": "0"})

    assert made["a"] == made["c"]
    assert len(set(made.values())) == 2


def test_another_reason_to_stay_together_is_heeded_as_well():
    made = scopes(["x::a", "x::b", "y::c", "z::d"], {"x::a": "0", "y::c": "0"},
                  lambda test: test[0])  # fmt: skip

    assert made["x::a"] == made["x::b"] == made["y::c"] != made["z::d"]


@given(pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_joined_is_the_least_equivalence(pairs):
    joined = Joined()
    for one, other in pairs:
        joined.join(one, other)

    reach = {n: {n} for n in range(10)}  # by another method: grow sets until nothing changes
    for _ in range(10):
        for one, other in pairs:
            both = reach[one] | reach[other]
            for each in both:
                reach[each] = both
    for one in range(10):
        for other in range(10):
            assert (joined.root(one) == joined.root(other)) == (other in reach[one])


@pytest.mark.parametrize("number", [1, 24])
def test_a_sweep_is_one_scope_however_long(number):
    tests = {f"t[{n}]": [ONE.but(batch_size=n + 1)] for n in range(number)}

    assert len(set(scopes(list(tests), server_groups(tests)).values())) == 1


class Worker:
    """As xdist's: it begins a test when it knows the next one, or that there is none."""

    def __init__(self, number):
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.told = []
        self.shutting_down = False

    def send_runtest_some(self, indices):
        assert not self.shutting_down
        self.told += indices

    def shutdown(self):
        self.shutting_down = True

    @property
    def may_begin(self):
        return len(self.told) > 1 or (self.told and self.shutting_down)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    number=st.integers(1, 4),
    data=st.data(),
)
def test_every_test_is_run_once_whichever_workers_die(sizes, number, data):
    """A test that killed its worker is not run again; no other is left out or waited for."""
    tests = [f"{group}-{n}" for group, size in enumerate(sizes) for n in range(size)]
    groups = {test: test.partition("-")[0] for test in tests}
    run, workers = [], []
    made = scheduling_of(groups, number)
    workers.extend(joined(made, each, tests) for each in range(number))
    made.schedule()
    while workers:
        ready = [worker for worker in workers if worker.may_begin]
        over = [worker for worker in workers if worker.shutting_down and not worker.told]
        assert ready or over, "everybody waits for somebody"
        worker = data.draw(st.sampled_from(ready or over))
        if worker in over:
            workers.remove(worker)
            assert made.remove_node(worker) is None if worker in made.nodes else True
            continue
        index = worker.told.pop(0)
        run.append(tests[index])
        if data.draw(st.booleans()):
            made.mark_test_complete(worker, index)
            continue
        workers.remove(worker)
        assert made.remove_node(worker) == tests[index]
        workers.append(joined(made, len(run) + number, tests))
        made.schedule()

    assert sorted(run) == tests


def joined(made, number, tests):
    worker = Worker(number)
    made.add_node(worker)
    made.add_node_collection(worker, tests)
    return worker


def scheduling_of(groups, number):
    config = SimpleNamespace(
        option=SimpleNamespace(dist="load", loadscopereorder=True),
        getvalue={"tx": ["popen"] * number}.get,
    )
    log = SimpleNamespace(loadscopesched=lambda *_: None)
    return ServerScheduling(config, log, lambda: groups)
