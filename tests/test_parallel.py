"""Which tests stay together among workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.collection import Joined, server_groups
from pytest_joules.point import Point
from pytest_joules.scheduling import scopes

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
