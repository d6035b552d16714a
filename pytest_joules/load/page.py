"""One page of a server, asked for again and again over a kept socket.

A sampler asks ten times a second beside the load it measures: httptools parses, as for the
load itself, and no socket is opened for each answer.
"""

import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import httptools

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.hiding import told

__tracebackhide__ = is_expected

_BLOCK_BYTES: Final = 1 << 18


class _Answer:
    """What has come back so far."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._has_length = False
        self.status = 0
        self.is_whole = False
        self.is_kept = False

    @property
    def may_end_here(self) -> bool:
        """Whether the server may tell the end by hanging up."""
        return self.status != 0 and not self._has_length

    @property
    def body(self) -> bytes:
        """What has come of its body."""
        return b"".join(self._pieces)

    def take(self, block: bytes) -> None:
        """Take what came.

        Raises:
            ConnectionError: It is no HTTP.
        """
        try:
            self._parser.feed_data(block)
        except httptools.HttpParserError as error:
            raise ConnectionError(f"what came is no HTTP: {error}") from None

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        del value
        self._has_length |= name.lower() in {b"content-length", b"transfer-encoding"}

    def on_headers_complete(self) -> None:
        """httptools: all headers."""
        self.status = self._parser.get_status_code()
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """httptools: a piece of the body."""
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """httptools: the end of the answer."""
        self.is_whole = True
        self.is_kept = self._keeps


class _Stale(ConnectionError):
    """A kept socket was closed before it was used again."""


class Page:
    """A page that is asked for with a key."""

    def __init__(
        self, host: str, port: int, path: str, *, api_key: str, timeout_s: float
    ) -> None:
        self._place, self._path, self._timeout_s = (host, port), path, timeout_s
        self._ask = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\n"
            f"Authorization: Bearer {api_key}\r\n\r\n"
        ).encode()
        self._socket: socket.socket | None = None

    def get(self) -> str:
        """Ask once; a kept socket that the server has closed is opened again.

        Raises:
            OSError: No connection, or no whole answer in time.
            LoadError: The answer is not what it should be.
        """
        try:
            answer = self._exchange()
        except _Stale:
            answer = self._exchange()
        text = answer.body.decode(errors="replace")
        if answer.status != HTTPStatus.OK:
            raise LoadError(f"{self._path} answered {answer.status}: {told(text)[:300]}")
        return text

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self) -> _Answer:
        is_kept = self._socket is not None
        if self._socket is None:
            self._socket = socket.create_connection(self._place, timeout=self._timeout_s)
        answer = _Answer()
        try:
            with suppress(ConnectionError):  # reading tells it, too
                self._socket.sendall(self._ask)
            _read(self._socket, answer, is_kept=is_kept)
        finally:
            if not answer.is_kept:
                self.close()
        return answer


def _read(sock: socket.socket, answer: _Answer, *, is_kept: bool) -> None:
    has_begun = False
    while not answer.is_whole:
        try:
            block = sock.recv(_BLOCK_BYTES)
        except ConnectionError:
            block = b""
        if block:
            has_begun = True
            answer.take(block)
        elif is_kept and not has_begun:
            raise _Stale
        elif answer.may_end_here:
            return
        else:
            raise ConnectionError("the server closed the connection midway")
