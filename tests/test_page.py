"""A page over a kept socket, against a peer that says what the test tells it to."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from pytest_joules.errors import LoadError
from pytest_joules.load.page import Page

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


class Peer:
    """Answers on one connection after the other, and hangs up after each one's last answer."""

    def __init__(self, connections: Sequence[Sequence[bytes]]) -> None:
        self._connections = connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard: list[tuple[int, bytes]] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener:
            for number, answers in enumerate(self._connections):
                sock, _ = self._listener.accept()
                with sock:
                    self._talk(sock, number, answers)

    def _talk(self, sock: socket.socket, number: int, answers: Sequence[bytes]) -> None:
        for answer in answers:
            heard = b""
            while not heard.endswith(b"\r\n\r\n"):
                more = sock.recv(1 << 16)
                if not more:
                    return
                heard += more
            self.heard.append((number, heard))
            sock.sendall(answer)

    def join(self) -> None:
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


@contextmanager
def asked(*connections: Sequence[bytes]) -> Iterator[tuple[Page, Peer]]:
    peer = Peer(connections)
    page = Page("127.0.0.1", peer.port, "/metrics", api_key="key", timeout_s=30.0)
    try:
        yield page, peer
    finally:
        page.close()
        peer.join()


def test_a_page_is_asked_for_as_the_standard_says_and_over_one_socket() -> None:
    with asked([OK, CHUNKS, OK]) as (page, peer):
        assert [page.get() for _ in range(3)] == ["ab"] * 3

    assert [number for number, _ in peer.heard] == [0, 0, 0]
    line, *headers = peer.heard[0][1].decode().strip().split("\r\n")
    assert line == "GET /metrics HTTP/1.1"
    found = dict(header.split(": ", 1) for header in headers)
    assert found["Host"] == f"127.0.0.1:{peer.port}"
    assert found["Authorization"] == "Bearer key"


@pytest.mark.parametrize("first", [OK, LAST], ids=["hung-up", "said-to-close"])
def test_a_socket_that_the_server_has_closed_is_opened_again(first: bytes) -> None:
    with asked([first], [OK]) as (page, peer):
        assert [page.get(), page.get()] == ["ab", "ab"]

    assert [number for number, _ in peer.heard] == [0, 1]


def test_an_answer_may_end_by_hanging_up() -> None:
    with asked([b"HTTP/1.1 200 OK\r\n\r\nab"]) as (page, _):
        assert page.get() == "ab"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="no-answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="in-the-head"),
        pytest.param(OK[:-1], id="in-the-body"),
        pytest.param(CHUNKS[:-8], id="between-chunks"),
        pytest.param(b"SSH-2.0\r\n\r\n", id="no-http"),
    ],
)
def test_a_broken_answer_is_an_error_and_is_not_asked_for_again(answer: bytes) -> None:
    """The next connection is used by the next call only."""
    with asked([answer], [OK]) as (page, peer):
        with pytest.raises(ConnectionError):
            page.get()
        assert [number for number, _ in peer.heard] == [0]
        assert page.get() == "ab"


def test_a_kept_socket_that_breaks_midway_is_an_error_too() -> None:
    with asked([OK, OK[:-1]], [OK]) as (page, peer):
        assert page.get() == "ab"
        with pytest.raises(ConnectionError, match="midway"):
            page.get()
        assert page.get() == "ab"

    assert [number for number, _ in peer.heard] == [0, 0, 1]


def test_another_status_tells_what_the_server_said() -> None:
    with (
        asked([b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nwhy"]) as (page, _),
        pytest.raises(LoadError, match="/metrics answered 503: why"),
    ):
        page.get()


def test_no_server_is_an_error() -> None:
    with pytest.raises(OSError, match="refused"):
        Page("127.0.0.1", 1, "/metrics", api_key="", timeout_s=5.0).get()
