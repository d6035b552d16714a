"""The allocation rule: all or none, nobody shares, nobody is overtaken for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.leases.allocation import Request, allocate

GPUS = tuple(f"GPU-{number}" for number in range(8))


def asks(count, *, gpus=GPUS, boards=(), only_boards=False):
    return Request(count=count, gpus=gpus, boards=boards, only_boards=only_boards)


def named(*numbers):
    return tuple(f"GPU-{number}" for number in numbers)


ON_3 = asks(1, boards=(named(3),), only_boards=True)


@pytest.mark.parametrize(
    ("ahead", "mine", "free", "expected"),
    [
        pytest.param([], asks(1), named(5, 2), named(2), id="the-first-free"),
        pytest.param([], asks(4), named(7, 1, 2, 3), named(1, 2, 3, 7), id="four-at-once"),
        pytest.param([], asks(4), named(1, 2, 3), None, id="three-are-not-four"),
        pytest.param([asks(4)], asks(1), named(1, 2, 3), None, id="not-past-the-wide-one"),
        pytest.param([asks(4)], asks(1), named(1, 2, 3, 4, 5), named(5), id="beside-it"),
        pytest.param(
            [ON_3], asks(1), named(1, 2), named(1), id="past-one-that-waits-elsewhere"
        ),
        pytest.param([ON_3], asks(1), named(3), None, id="not-on-its-board"),
        pytest.param([], ON_3, named(1, 2), None, id="only-its-board"),
        pytest.param([], ON_3, named(1, 3), named(3), id="its-board"),
        pytest.param([], asks(1, boards=(named(6),)), named(1, 6), named(6), id="preferred"),
        pytest.param([], asks(1, boards=(named(6),)), named(1), named(1), id="or-another"),
        pytest.param(
            [asks(2, gpus=named(0, 1))], asks(1), named(0, 4), named(4), id="other-models"
        ),
    ],
)
def test_who_gets_what(ahead, mine, free, expected):  # noqa: PLR0917
    assert allocate(ahead, mine, free) == expected


@st.composite
def requests(draw):
    gpus = tuple(sorted(draw(st.sets(st.sampled_from(GPUS), min_size=1))))
    count = draw(st.integers(1, len(gpus)))
    sets = st.sets(st.sampled_from(gpus), min_size=count, max_size=count)
    boards = tuple(tuple(sorted(each)) for each in draw(st.lists(sets, max_size=2)))
    only = bool(boards) and draw(st.booleans())
    return asks(count, gpus=gpus, boards=boards, only_boards=only)


@given(
    ahead=st.lists(requests(), max_size=4), mine=requests(), free=st.sets(st.sampled_from(GPUS))
)
def test_all_or_none_of_what_is_free_and_would_do(ahead, mine, free):
    got = allocate(ahead, mine, free)

    assert got is None or (
        len(set(got)) == len(got) == mine.count and free.issuperset(got)
        and mine.usable.issuperset(got)
    )  # fmt: skip


@given(queue=st.lists(requests(), max_size=6), free=st.sets(st.sampled_from(GPUS)))
def test_all_that_are_served_at_once_are_on_different_gpus(queue, free):
    got = [allocate(queue[:place], each, free) for place, each in enumerate(queue)]

    taken = [gpu for board in got if board for gpu in board]
    assert len(taken) == len(set(taken))
    for place, board in enumerate(got):
        waiting = [each for each, b in zip(queue[:place], got[:place], strict=True) if not b]
        assert not board or not any(each.usable & set(board) for each in waiting)


@given(queue=st.lists(requests(), min_size=1, max_size=6), free=st.sets(st.sampled_from(GPUS)))
def test_nobody_idles_who_needs_nothing_of_those_before(queue, free):
    *ahead, mine = queue
    if not any(each.usable & mine.usable for each in ahead):
        assert allocate(ahead, mine, free) == allocate([], mine, free)


@given(
    first=requests(),
    narrow=st.lists(st.integers(1, 3), min_size=1, max_size=40),
)
def test_a_request_gets_its_turn_however_many_come_later(first, narrow):
    """Every GPU is busy; each turn one lease ends and one more narrow request arrives."""
    running = [(gpu,) for gpu in GPUS]
    later = [asks(1) for _ in narrow]
    turns = 0
    while (got := allocate([], first, _free(running))) is None:
        running.pop(0)
        turns += 1
        for request in later[:turns]:
            if board := allocate([first], request, _free(running)):
                running.append(board)

    assert turns <= len(GPUS)
    assert len(got) == first.count


def _free(running):
    return set(GPUS) - {gpu for board in running for gpu in board}
