"""One HTTP answer, however it is cut: no sockets."""

import gc
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.load.http_answer import BadAnswer, HttpAnswer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nabc"


def cut(whole: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut into pieces that are not empty."""
    edges = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[a:b] for a, b in pairwise(edges)]


def told(pieces: Sequence[bytes]) -> tuple[int, bytes, bool]:
    answer = HttpAnswer()
    for piece in pieces[:-1]:
        answer.take(piece)
        assert not answer.is_whole
    answer.take(pieces[-1])
    assert answer.is_whole
    return answer.status, answer.body(), answer.is_kept


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        pytest.param(OK, (200, b"{}", True), id="length"),
        pytest.param(LAST, (200, b"{}", False), id="says-that-it-closes"),
        pytest.param(CHUNKS, (200, b"abcde", True), id="chunks"),
        pytest.param(
            b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nwhy",
            (500, b"why", True),
            id="refused",
        ),
    ],
)
@given(places=st.lists(st.integers(0, 200), max_size=20))
def test_an_answer_is_the_same_however_it_is_cut(
    whole: bytes, expected: tuple[int, bytes, bool], places: list[int]
) -> None:
    assert told(cut(whole, places)) == expected


def test_an_answer_without_a_length_ends_by_hanging_up_and_its_socket_is_not_kept() -> None:
    assert told([UNTIL_CLOSED, b""]) == (200, b"abc", False)


def test_a_body_is_told_once() -> None:
    answer = HttpAnswer()
    answer.take(CHUNKS[:-12])
    assert answer.body() == b"abc"
    answer.take(CHUNKS[-12:])
    assert answer.body() == b"de"
    assert answer.body() == b""


@pytest.mark.parametrize("place", [0, 20, len(OK) - 1])
def test_hanging_up_before_the_end_is_an_error(place: int) -> None:
    answer = HttpAnswer()
    if place:
        answer.take(OK[:place])
    with pytest.raises(ConnectionError, match="closed the connection midway"):
        answer.take(b"")
    assert not answer.is_kept


@pytest.mark.parametrize("wrong", [b"SSH-2.0\r\n\r\n", CHUNKS[:-5] + b"zz\r\n"])
def test_what_is_no_http_is_an_error(wrong: bytes) -> None:
    answer = HttpAnswer()
    with pytest.raises(BadAnswer, match="no HTTP"):
        answer.take(wrong)
    assert not answer.is_kept


@pytest.mark.parametrize("blocks", [[OK + OK], [OK, OK]], ids=["together", "one-by-one"])
def test_a_second_answer_is_nobodys(blocks: list[bytes]) -> None:
    answer = HttpAnswer()
    for block in blocks:
        answer.take(block)

    assert (answer.status, answer.body()) == (200, b"{}")
    assert not answer.is_kept


def test_one_answer_follows_the_other() -> None:
    answer = HttpAnswer()
    for whole, expected in ((OK, b"{}"), (CHUNKS, b"abcde"), (OK, b"{}")):
        answer.begin()
        assert (answer.status, answer.is_whole) == (0, False)
        answer.take(whole)
        assert (answer.body(), answer.is_kept) == (expected, True)


def test_nothing_is_left_of_answers_where_no_garbage_is_collected() -> None:
    """As in the load generator, which would stand still for each collection."""
    answer = HttpAnswer()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            answer.connect()
            answer.take(OK)
            with pytest.raises(BadAnswer):
                answer.take(b"no HTTP")
        assert gc.collect() == 0
    finally:
        gc.enable()
