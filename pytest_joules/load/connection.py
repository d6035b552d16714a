"""HTTP/1.1 over one kept socket: one request at a time, its answer as it comes.

httptools parses. An answer is handed on from where the event loop delivers it, without a task
in between: that is what a load of thousands of requests costs least and is stamped first.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import ClassVar, Final, cast
from urllib.parse import urlsplit

import httptools

from pytest_joules.errors import LoadError, is_expected

__tracebackhide__ = is_expected

_BLOCK_BYTES: Final = 1 << 18
_CONNECT_S: Final = 60.0
_IDLE_S: Final = 2.0
"""A server drops idle connections after 5 s, so we must drop them before."""

Take = Callable[[bytes, float], bool]
"""Takes what came and when; tells whether nothing more is needed."""


class BadAnswer(Exception):
    """The server answered, but not as it should."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where requests go, and with which headers."""

    host: str
    port: int
    head: bytes
    """All of a request but the length of its body and the body."""

    @classmethod
    def of(cls, url: str, api_key: str) -> "Address":
        """Take a URL such as ``http://127.0.0.1:8000/v1/completions``.

        Raises:
            LoadError: It is not plain HTTP, or a header could not hold the key.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise LoadError(f"{url} is no address of the form http://HOST:PORT/PATH.")
        if not (api_key.isascii() and api_key.isprintable()):
            raise LoadError("the API key holds characters that a header cannot; set another.")
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n"
            f"Authorization: Bearer {api_key}\r\nContent-Type: application/json\r\n"
            "Content-Length: "
        )
        return cls(host=parts.hostname, port=parts.port or 80, head=head.encode("ascii"))


class Connection(asyncio.BufferedProtocol):
    """A socket to the server; ``post`` is called again only when it has returned."""

    _received: ClassVar = memoryview(bytearray(_BLOCK_BYTES))
    """Of all connections: what came is handed on before the event loop reads another."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[tuple[int, bytes, float]] | None = None
        self._take: Take | None = None
        self._begin_answer()
        self._is_whole = True
        self._is_kept = True
        self._idle_from_s = monotonic()

    @classmethod
    async def to(cls, address: Address) -> "Connection":
        """Connect.

        Raises:
            OSError: Nobody listens, or does not answer in time.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, made = await asyncio.get_running_loop().create_connection(
                    cls, address.host, address.port
                )
        except OSError as error:
            place = f"{address.host}:{address.port}"
            raise ConnectionError(f"Cannot connect to {place}: {error}") from None
        return made

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent on it."""
        return (
            self._transport is not None
            and not self._transport.is_closing()
            and self._is_whole
            and self._is_kept
            and monotonic() < self._idle_from_s + _IDLE_S
        )

    async def post(
        self, address: Address, body: bytes, take: Take | None = None
    ) -> tuple[int, bytes, float]:
        """Send a request and wait for its answer.

        Args:
            address: As it was connected to.
            body: What is sent.
            take: Gets a good answer as it comes; without it the answer is returned.

        Returns:
            Status, body (what ``take`` has not got), and when the last of it came.

        Raises:
            OSError: The connection broke.
            BadAnswer: What came is no HTTP; or as ``take`` raises, which may raise ValueError.
        """
        assert self._transport
        self._begin_answer()
        self._take = take
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(b"%s%d\r\n\r\n%s" % (address.head, len(body), body))
        try:
            return await self._answered
        finally:
            self._answered = None
            self._idle_from_s = monotonic()

    def close(self) -> None:
        """Close the socket at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _begin_answer(self) -> None:
        self._status = 0
        self._pieces: list[bytes] = []
        self._is_whole = False
        self._has_length = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is open."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to put what comes."""
        del sizehint
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: something came."""
        now_s = monotonic()
        try:
            self._parser.feed_data(self._received[:nbytes])
            self._hand_on(now_s)
        except httptools.HttpParserError as error:
            self._fail(BadAnswer(f"what came is no HTTP: {error}"))
        except (BadAnswer, ValueError) as error:
            self._fail(error)

    def _hand_on(self, now_s: float) -> None:
        if self._take is not None and self._status == HTTPStatus.OK:
            block, self._pieces = b"".join(self._pieces), []
            if block and self._take(block, now_s):
                self._end(now_s)
        if self._is_whole:
            self._end(now_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is closed, which may also be how an answer ends."""
        if exc is None and self._status and not self._has_length:
            self._end(monotonic())
        self._fail(exc or ConnectionError("the server closed the connection midway"))

    def _end(self, now_s: float) -> None:
        if self._answered is not None and not self._answered.done():
            self._take = None
            self._answered.set_result((self._status, b"".join(self._pieces), now_s))

    def _fail(self, error: Exception) -> None:
        self._is_kept = False
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)

    def on_message_begin(self) -> None:
        """httptools: an answer; a second one to the same request is nobody's."""
        self._is_kept = not self._is_whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        del value
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._has_length = True

    def on_headers_complete(self) -> None:
        """httptools: all headers."""
        if not self._is_whole:
            self._status = self._parser.get_status_code()
            self._is_kept = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """httptools: a piece of the body."""
        if not self._is_whole:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """httptools: the end of the answer."""
        self._is_whole = True
