"""Streams that are read some blocks at a time: the same as if each was read as it came."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_joules.load.http_answer import BadAnswer, HttpAnswer
from pytest_joules.load.stream import Answer, Stream

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(number: int, text: str = "w") -> bytes:
    usage = {"prompt_tokens": 4, "completion_tokens": number}
    told = json.dumps({"choices": [{"text": text}], "usage": usage}, ensure_ascii=False)
    return f"data: {told}\n\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream(number: int) -> tuple[Stream, Answer]:
    answer = Answer()
    return Stream(HttpAnswer(), answer, number), answer


def test_one_token_at_a_time_gives_one_latency_less_than_tokens() -> None:
    """Worked by hand: blocks at 1.0, 1.5 and 2.1 s, with 1, 2 and 3 tokens more."""
    answer = Answer()
    for now_s, so_far in ((1.0, [1]), (1.5, [2, 3]), (1.7, [3]), (2.1, [6])):
        usages = [{"prompt_tokens": 4, "completion_tokens": n} for n in so_far]
        answer.take_block([{"usage": usage} for usage in usages], now_s)

    assert answer.first_token_s == 1.0
    assert answer.itl_s == pytest.approx([0.25, 0.25, 0.2, 0.2, 0.2])
    assert (answer.prompt_tokens, answer.output_tokens) == (4, 6)


@pytest.mark.parametrize("number", [0, 1, 31])
@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE]\r\n\r\n"])
def test_blocks_keep_their_times_however_late_they_are_read(number: int, end: bytes) -> None:
    """80 tokens, one each half second; the text of one claims to be the end, which is cut."""
    reply, answer = stream(number)
    assert reply.take(HEAD, 10.0) is None
    for token in range(1, 81):
        text = "[DONE]" if token == 40 else "w"
        assert reply.take(chunk(event(token, text)), 10 + token / 2) is None
    wire = chunk(end)
    last = wire.index(b"\n", wire.index(b"[DONE]"))
    assert not any(reply.take(wire[at : at + 1], 60.0) for at in range(last))
    assert reply.take(wire[last : last + 1], 61.0) == 61.0

    assert answer.output_tokens == 80
    assert answer.first_token_s == 10.5
    assert answer.itl_s == pytest.approx([0.5] * 79)


def test_what_is_held_of_a_broken_stream_is_read_at_its_end() -> None:
    reply, answer = stream(31)
    assert reply.take(HEAD + chunk(event(1)), 1.0) is None
    assert reply.take(chunk(b"data: {no json}\n\n"), 2.0) is None
    assert answer.first_token_s is None

    with pytest.raises(ValueError, match="property name"):
        reply.settle()
    assert answer.first_token_s == 1.0


def test_a_stream_whose_chunks_end_without_done_is_an_error() -> None:
    reply, _ = stream(31)
    assert reply.take(HEAD + chunk(event(1)), 1.0) is None

    with pytest.raises(BadAnswer, match=r"ended without \[DONE\]"):
        reply.take(END, 2.0)


def test_the_reason_of_a_refused_stream_is_told_when_it_is_whole() -> None:
    reply, _ = stream(31)
    assert reply.take(b"HTTP/1.1 500 No\r\nContent-Length: 8\r\n\r\nno ", 1.0) is None

    with pytest.raises(BadAnswer, match="status 500: no more"):
        reply.take(b"more!", 2.0)


@dataclass(frozen=True)
class Outcome:
    """What a stream came to, and after how many blocks that was known."""

    end: float | str
    first_token_s: float | None
    last_token_s: float
    itl_s: tuple[float, ...]
    tokens: tuple[int, int]


def read(blocks: Sequence[bytes], number: int, *, at_once: bool) -> tuple[Outcome, int]:
    """Give a stream its blocks, one a second; at last the server hangs up."""
    reply, answer = stream(number)
    end: float | str | None = None
    known = 0
    for known, block in enumerate([*blocks, b""]):
        try:
            end = reply.take(block, float(known))
            end = reply.settle() if at_once and end is None else end
        except (OSError, ValueError, BadAnswer) as error:
            end = f"{type(error).__name__}: {error}"
        if end is not None:
            break
    assert end is not None
    tokens = (answer.prompt_tokens, answer.output_tokens)
    times = (answer.first_token_s, answer.last_token_s, tuple(answer.itl_s))
    return Outcome(end, *times, tokens), known


COUNTS = st.lists(st.integers(0, 3), min_size=1, max_size=50)
TEXTS = st.sampled_from(["w", "", "[DONE]", "}\n\n\r\n", "data: [DONE]\n", "é🙂", 'a"}'])


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a good stream; its chunks are cut anywhere, or end with events."""
    total, events = 0, []
    for more in draw(COUNTS):
        total += more
        events.append(event(total, draw(TEXTS)))
    events += [event(total), DONE]
    if draw(st.booleans()):
        return HEAD + b"".join(map(chunk, events)) + END
    body = b"".join(events)
    return HEAD + b"".join(map(chunk, pieces(body, draw(PLACES)))) + END


PLACES = st.lists(st.floats(0, 1), max_size=40)


def pieces(whole: bytes, places: Sequence[float]) -> list[bytes]:
    edges = sorted({0, len(whole), *(round(place * len(whole)) for place in places)})
    return [whole[a:b] for a, b in pairwise(edges)]


def blocks_of(wire: bytes, places: Sequence[float], *, by_chunk: bool) -> list[bytes]:
    """Cut anywhere, and where ``by_chunk`` also behind each event that ends its chunk."""
    parts = wire.split(b"}\n\n\r\n") if by_chunk else [wire]
    ended = [part + b"}\n\n\r\n" for part in parts[:-1]] + parts[-1:]
    near = [round(place * len(ended)) for place in places]
    return [
        block
        for at, part in enumerate(ended)
        for block in (pieces(part, places) if not by_chunk or at in near else [part])
    ]


@st.composite
def cut_wires(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    wire = draw(wires())
    return wire, blocks_of(wire, draw(PLACES), by_chunk=draw(st.booleans()))


@settings(max_examples=60)
@given(cut=cut_wires(), number=st.integers(0, 40))
def test_a_stream_is_the_same_as_if_read_at_once(
    cut: tuple[bytes, list[bytes]], number: int
) -> None:
    wire, blocks = cut
    assert b"".join(blocks) == wire

    outcome, known = read(blocks, number, at_once=False)

    assert (outcome, known) == read(blocks, number, at_once=True)
    assert outcome == worked_out(wire, blocks)


def worked_out(wire: bytes, blocks: Sequence[bytes]) -> Outcome:
    """Tell the same from the whole: which event ended in which block."""
    came: list[tuple[int, dict[str, Any] | None]] = []
    body, places = _body_with_places(wire)
    ends = list(accumulate(map(len, blocks)))
    start = 0
    while (end := body.find(b"\n", start)) >= 0:
        line, at = body[start:end], places[end]
        if line.startswith(b"data:"):
            block = bisect_right(ends, at)
            came.append((block, None if line == DONE.strip() else json.loads(line[5:])))
        start = end + 1
    counted: dict[int, int] = {}
    for block, told in came:
        if told is not None:
            counted[block] = told["usage"]["completion_tokens"]
    first, last, before, itl = None, 0.0, 0, []
    for block, total in counted.items():
        if total > before:
            if first is None:
                first = float(block)
            else:
                itl += [(block - last) / (total - before)] * (total - before)
            last = float(block)
        before = total
    return Outcome(float(came[-1][0]), first, last, tuple(itl), (4, before))


def _body_with_places(wire: bytes) -> tuple[bytes, list[int]]:
    """Take the chunks apart; of each byte of the body, where it stood."""
    body, places, at = b"", [], len(HEAD)
    while True:
        line = wire.index(b"\r\n", at)
        size = int(wire[at:line], 16)
        if not size:
            return body, places
        start = line + 2
        body += wire[start : start + size]
        places += range(start, start + size)
        at = start + size + 2


SPOILS = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=2)), max_size=3)


@st.composite
def spoiled_blocks(draw: st.DrawFn) -> list[bytes]:
    """Draw the blocks of a stream that breaks off somewhere and holds wrong bytes."""
    whole = draw(wires())
    wire = whole[: round(draw(st.floats(0.2, 1)) * len(whole))]
    for where, instead in draw(SPOILS):
        at = round(where * len(wire))
        wire = wire[:at] + instead + wire[at + 1 :]
    return blocks_of(wire, draw(PLACES), by_chunk=True)


@settings(max_examples=60)
@given(blocks=spoiled_blocks(), number=st.integers(0, 40))
def test_a_spoiled_stream_fails_as_if_read_at_once(blocks: list[bytes], number: int) -> None:
    assert read(blocks, number, at_once=False)[0] == read(blocks, number, at_once=True)[0]
