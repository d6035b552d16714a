"""Sockets to the server, all watched by one epoll; nothing here ever waits for one of them.

No event loop, no transports, no tasks: each token wakes an idle processor with cold caches, so
what is called for it costs several times as much as in a loop without rests.
"""

import os
import socket
from dataclasses import dataclass
from errno import EINPROGRESS
from functools import cached_property
from select import EPOLLIN, EPOLLOUT, epoll
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from pytest_joules.errors import LoadError, is_expected

__tracebackhide__ = is_expected

Owner = TypeVar("Owner")
"""Whoever has a socket."""

_BLOCK_BYTES: Final = 1 << 16
_CONNECT_TRIES: Final = 5
"""The kernel asks again after 1, 2, 4, 8 and 16 s, and gives up after 63 s."""


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

    @cached_property
    def places(self) -> tuple[tuple[Any, ...], ...]:
        """What the host's name stands for, most preferred first.

        Raises:
            ConnectionError: It stands for nothing.
        """
        try:
            return tuple(socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM))
        except OSError as error:
            raise self.cannot_connect(str(error.strerror)) from None

    def cannot_connect(self, why: str) -> ConnectionError:
        """Say that nobody answers there."""
        return ConnectionError(f"Cannot connect to {self.host}:{self.port}: {why}")

    def request(self, body: bytes) -> bytes:
        """Return a whole request."""
        return b"%s%d\r\n\r\n%s" % (self.head, len(body), body)


class Sockets(Generic[Owner]):
    """All open sockets, and whose they are."""

    def __init__(self) -> None:
        self._epoll = epoll()
        self._owners: dict[int, Owner] = {}

    def __len__(self) -> int:
        """Tell how many are open."""
        return len(self._owners)

    def add(self, sock: socket.socket, owner: Owner) -> None:
        """Watch a socket that something is to be sent on."""
        self._epoll.register(sock, EPOLLIN | EPOLLOUT)
        self._owners[sock.fileno()] = owner

    def watch(self, sock: socket.socket, *, is_sending: bool) -> None:
        """Say whether there is more to send; what comes is watched for either way."""
        self._epoll.modify(sock, EPOLLIN | EPOLLOUT if is_sending else EPOLLIN)

    def close(self, sock: socket.socket) -> None:
        """Close a socket at once, whatever is under way."""
        self._owners.pop(sock.fileno(), None)
        sock.close()

    def ready(self, timeout_s: float) -> list[Owner]:
        """Wait until some are ready; return their owners."""
        return [self._owners[number] for number, _ in self._epoll.poll(timeout_s)]


class Connection(Generic[Owner]):
    """One socket: requests are sent, what comes is read."""

    def __init__(self, address: Address, sockets: Sockets[Owner], owner: Owner) -> None:
        """Begin to connect.

        Raises:
            OSError: Nobody listens.
        """
        self._address, self._sockets, self._owner = address, sockets, owner
        self._places = iter(address.places)
        self._unsent = b""
        self._is_connected = False
        self._connect()

    def post(self, body: bytes) -> None:
        """Send a request, now or as soon as the socket takes it.

        Raises:
            OSError: The connection broke.
        """
        self._unsent = self._address.request(body)
        if self._is_connected:
            self._send()
            if self._unsent:
                self._sockets.watch(self._socket, is_sending=True)

    def react(self) -> bytes | None:
        """Return what came, nothing at its end; ``None`` where there is nothing yet.

        Raises:
            OSError: The connection broke, or nobody listens.
        """
        if self._unsent and not self._goes_on():
            return None
        try:
            return self._socket.recv(_BLOCK_BYTES)
        except BlockingIOError:
            return None

    def is_quiet(self) -> bool:
        """Tell whether the server has not hung up, and says nothing that it was not asked."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the socket at once, whatever is under way."""
        self._sockets.close(self._socket)

    def _connect(self, error: int = 0) -> None:
        for family, kind, protocol, _, place in self._places:
            self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _CONNECT_TRIES)
            error = self._socket.connect_ex(place)
            if error in {0, EINPROGRESS}:
                self._sockets.add(self._socket, self._owner)
                return
            self._socket.close()
        raise self._address.cannot_connect(os.strerror(error))

    def _goes_on(self) -> bool:
        """Connect if that is not done, and send; tell whether it is connected."""
        if not self._is_connected:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.close()
                self._connect(error)
                return False
            self._is_connected = True
        self._send()
        self._sockets.watch(self._socket, is_sending=bool(self._unsent))
        return True

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        self._unsent = self._unsent[sent:]
