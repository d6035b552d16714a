"""One page of a server, asked for again and again over a kept socket.

A sampler asks ten times a second beside the load it measures: httptools parses, as for the
load itself, and no socket is opened for each answer.
"""

import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.hiding import told
from pytest_joules.load.http_answer import BadAnswer, HttpAnswer

__tracebackhide__ = is_expected

_BLOCK_BYTES: Final = 1 << 16
"""Larger ones are mapped and unmapped by the kernel each time."""


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
        text = answer.body().decode(errors="replace")
        if answer.status != HTTPStatus.OK:
            raise LoadError(f"{self._path} answered {answer.status}: {told(text)[:300]}")
        return text

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self) -> HttpAnswer:
        is_kept = self._socket is not None
        if self._socket is None:
            self._socket = socket.create_connection(self._place, timeout=self._timeout_s)
        answer = HttpAnswer()
        try:
            with suppress(ConnectionError):  # reading tells it, too
                self._socket.sendall(self._ask)
            _read(self._socket, answer, is_kept=is_kept)
        finally:
            if not answer.is_kept:
                self.close()
        return answer


def _read(sock: socket.socket, answer: HttpAnswer, *, is_kept: bool) -> None:
    may_be_stale = is_kept
    while not answer.is_whole:
        try:
            block = sock.recv(_BLOCK_BYTES)
        except ConnectionError:
            block = b""
        if may_be_stale and not block:
            raise _Stale
        may_be_stale = False
        try:
            answer.take(block)
        except BadAnswer as error:
            raise ConnectionError(str(error)) from None
