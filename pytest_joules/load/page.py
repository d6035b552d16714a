"""One page of a server, asked for again and again over a kept socket.

A sampler asks ten times a second beside the load it measures: httptools parses, as for the
load itself, and no socket is opened for each answer.
"""

import socket
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import httptools

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.hiding import told

__tracebackhide__ = is_expected

_BLOCK_BYTES: Final = 1 << 18


@dataclass
class _Answer:
    """What has come back so far."""

    pieces: list[bytes] = field(default_factory=list)
    is_whole: bool = False
    has_length: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        del value
        self.has_length |= name.lower() in {b"content-length", b"transfer-encoding"}

    def on_body(self, piece: bytes) -> None:
        """httptools: a piece of the body."""
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """httptools: the end of the answer."""
        self.is_whole = True


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
            status, body = self._exchange()
        except _Stale:
            status, body = self._exchange()
        text = body.decode(errors="replace")
        if status != HTTPStatus.OK:
            raise LoadError(f"{self._path} answered {status}: {told(text)[:300]}")
        return text

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self) -> tuple[int, bytes]:
        is_kept = self._socket is not None
        if self._socket is None:
            self._socket = socket.create_connection(self._place, timeout=self._timeout_s)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        keeps = False
        try:
            self._read(self._socket, parser, answer, is_kept=is_kept)
            keeps = answer.is_whole and parser.should_keep_alive()
            return parser.get_status_code(), b"".join(answer.pieces)
        except httptools.HttpParserError as error:
            raise ConnectionError(f"what came is no HTTP: {error}") from None
        finally:
            if not keeps:
                self.close()

    def _read(
        self,
        sock: socket.socket,
        parser: httptools.HttpResponseParser,
        answer: _Answer,
        *,
        is_kept: bool,
    ) -> None:
        with suppress(ConnectionError):  # what reading tells, too
            sock.sendall(self._ask)
        has_begun = False
        while not answer.is_whole:
            try:
                block = sock.recv(_BLOCK_BYTES)
            except ConnectionError:
                block = b""
            if block:
                has_begun = True
                parser.feed_data(block)
            elif is_kept and not has_begun:
                raise _Stale
            elif has_begun and parser.get_status_code() and not answer.has_length:
                return  # its end is told by hanging up
            else:
                raise ConnectionError("the server closed the connection midway")
