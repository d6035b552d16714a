"""One kept socket, against a peer that says byte by byte what the test tells it to."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from pytest_joules.errors import LoadError
from pytest_joules.load.connection import Address, BadAnswer, Connection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    b"c\r\n2\r\nde\r\n",
    b"0\r\n\r\n",
)


class Peer:
    """Answers each request with the next of its answers; ``None`` hangs up."""

    def __init__(self, answers: Sequence[Sequence[bytes | None]]) -> None:
        self._answers = list(answers)
        self.heard: list[bytes] = []
        self.tasks: list[asyncio.Task[None] | None] = []
        self.has_lost = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.has_lost.set()
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in self._answers:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heard.append(head + await reader.readexactly(length(head)))
            for piece in answer:
                if piece is None:
                    return
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        await reader.readexactly(1)  # waits until the other side hangs up


def length(head: bytes) -> int:
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def talk(
    answers: Sequence[Sequence[bytes | None]],
    using: Callable[[Address, Peer], Awaitable[Any]],
) -> tuple[Any, Peer]:
    async def main() -> tuple[Any, Peer]:
        peer = Peer(answers)
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await using(Address.of(f"http://127.0.0.1:{port}/v1/x", "key"), peer), peer
        finally:
            server.close()
            await asyncio.gather(*filter(None, peer.tasks))

    return asyncio.run(main())


async def one(address: Address, peer: Peer) -> tuple[int, bytes]:
    del peer
    connection = await Connection.to(address)
    try:
        status, body, _ = await connection.post(address, b"[1]")
        return status, body
    finally:
        connection.close()


def test_a_request_is_what_the_standard_says() -> None:
    answer, peer = talk([[OK]], one)

    assert answer == (200, b"{}")
    head, _, body = peer.heard[0].partition(b"\r\n\r\n")
    assert body == b"[1]"
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /v1/x HTTP/1.1"
    found = dict(header.split(": ", 1) for header in headers)
    assert found["Host"].startswith("127.0.0.1:")
    assert found["Authorization"] == "Bearer key"
    assert found["Content-Length"] == "3"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([OK], (200, b"{}"), id="length"),
        pytest.param([bytes([b]) for b in OK], (200, b"{}"), id="byte-by-byte"),
        pytest.param(CHUNKS, (200, b"abcde"), id="chunks-cut-anywhere"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\n\r\nab", b"c", None], (200, b"abc"), id="ends-by-hanging-up"
        ),
        pytest.param(
            [b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nwhy"], (500, b"why"), id="refused"
        ),
    ],
)
def test_an_answer_is_whole_however_it_is_cut(
    pieces: Sequence[bytes | None], expected: tuple[int, bytes]
) -> None:
    assert talk([pieces], one)[0] == expected


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        pytest.param([None], ConnectionError, id="no-answer"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nContent-Le", None], ConnectionError, id="in-the-head"
        ),
        pytest.param([OK[:-1], None], ConnectionError, id="in-the-body"),
        pytest.param([*CHUNKS[:2], None], ConnectionError, id="between-chunks"),
        pytest.param([b"SSH-2.0\r\n\r\n"], BadAnswer, id="no-http"),
        pytest.param([*CHUNKS[:2], b"zz\r\n"], BadAnswer, id="bad-chunk"),
    ],
)
def test_a_broken_answer_is_an_error(
    pieces: Sequence[bytes | None], error: type[Exception]
) -> None:
    with pytest.raises(error):
        talk([pieces], one)


def test_a_stream_is_handed_on_as_it_comes_and_ends_when_it_is_told_so() -> None:
    blocks: list[bytes] = []

    def take(block: bytes, now_s: float) -> bool:
        assert now_s > 0
        blocks.append(block)
        return b"".join(blocks).endswith(b"de")

    async def streamed(address: Address, peer: Peer) -> tuple[int, bytes, bool]:
        del peer
        connection = await Connection.to(address)
        status, body, _ = await connection.post(address, b"", take)
        is_usable = connection.is_usable
        connection.close()
        return status, body, is_usable

    # The end of the stream never comes, so no second request may follow on this socket.
    assert talk([CHUNKS[:2]], streamed)[0] == (200, b"", False)
    assert b"".join(blocks) == b"abcde"


@pytest.mark.parametrize(
    ("first", "is_usable"),
    [
        pytest.param([OK], True, id="kept"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"],
            False,
            id="said-to-close",
        ),
        pytest.param([OK, OK], False, id="speaks-unasked"),
        pytest.param([OK, None], False, id="closed"),
    ],
)
def test_a_socket_is_used_again_only_while_it_is_sound(
    first: Sequence[bytes | None],
    is_usable: bool,  # noqa: FBT001  pytest passes parameters by name
) -> None:
    async def twice(address: Address, peer: Peer) -> bool:
        del peer
        connection = await Connection.to(address)
        await connection.post(address, b"")
        for _ in range(20):
            await asyncio.sleep(0.001)  # lets what follows the answer arrive
        usable = connection.is_usable
        if usable:
            await connection.post(address, b"")
        connection.close()
        return usable

    said, peer = talk([first, [OK]], twice)

    assert said is is_usable
    assert len(peer.heard) == 1 + is_usable


def test_an_idle_socket_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("pytest_joules.load.connection.monotonic", lambda: clock[0])

    async def idle(address: Address, peer: Peer) -> list[bool]:
        del peer
        connection = await Connection.to(address)
        await connection.post(address, b"")
        said = []
        for now_s in (101.9, 102.1):
            clock[0] = now_s
            said.append(connection.is_usable)
        connection.close()
        return said

    assert talk([[OK]], idle)[0] == [True, False]


def test_closing_a_socket_in_the_middle_reaches_the_server() -> None:
    async def cancelled(address: Address, peer: Peer) -> None:
        connection = await Connection.to(address)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.post(address, b"")
        connection.close()
        async with asyncio.timeout(10):
            await peer.has_lost.wait()

    talk([CHUNKS[:2]], cancelled)


def test_nobody_listening_is_an_error_that_names_the_place() -> None:
    address = Address.of("http://127.0.0.1:1/x", "")
    with pytest.raises(ConnectionError, match=r"Cannot connect to 127\.0\.0\.1:1"):
        asyncio.run(Connection.to(address))


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        pytest.param("https://h/x", "", "no address of the form", id="not-plain-http"),
        pytest.param("http://h:1/x", "a\r\nX: y", "API key holds", id="a-key-with-a-header"),
        pytest.param("http://h:1/x", "clé", "API key holds", id="a-key-beyond-ascii"),
    ],
)
def test_an_address_that_cannot_be_sent_is_refused(url: str, key: str, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        Address.of(url, key)
