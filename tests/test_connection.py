"""Sockets that never wait, against a peer that does what the test tells it to."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from pytest_joules.errors import LoadError
from pytest_joules.load.connection import Address, Connection, Sockets

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
PATIENCE_S = 30.0

Talk = Callable[[socket.socket], None]


def heard(sock: socket.socket) -> bytes:
    """Read one request."""
    whole = bytearray()
    while (more := sock.recv(1 << 20)) != b"":
        whole += more
        head, is_whole, _ = whole.partition(b"\r\n\r\n")
        if is_whole and len(whole) == len(head) + 4 + length(bytes(head)):
            return bytes(whole)
    raise AssertionError("the request broke off")


def length(head: bytes) -> int:
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


@contextmanager
def peer(talk: Talk) -> Iterator[Address]:
    """Talk to whoever connects first, in a thread; what that raises is raised here."""
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(PATIENCE_S)
                talk(sock)
        except BaseException as error:  # noqa: BLE001  the test's own thread raises it
            failed.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address.of(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/x", "key")
        finally:
            thread.join()
    for error in failed:
        raise error


def next_block(connection: Connection[str], sockets: Sockets[str]) -> bytes:
    """Wait for what comes next."""
    until_s = monotonic() + PATIENCE_S
    while monotonic() < until_s:
        for owner in sockets.ready(1.0):
            assert owner == "owner"
            block = connection.react()
            if block is not None:
                return block
    raise AssertionError("nothing came")


def answer(connection: Connection[str], sockets: Sockets[str]) -> bytes:
    whole = b""
    while len(whole) < len(OK):
        whole += next_block(connection, sockets)
    return whole


def test_a_request_is_what_the_standard_says() -> None:
    requests = []

    def talk(sock: socket.socket) -> None:
        for _ in range(2):
            requests.append(heard(sock))
            sock.sendall(OK)
        assert sock.recv(1) == b""

    with peer(talk) as address:
        sockets: Sockets[str] = Sockets()
        connection = Connection(address, sockets, "owner")
        for body in (b"[1]", b"[1, 2]"):
            connection.post(body)
            assert answer(connection, sockets) == OK
            assert connection.is_quiet()
        assert len(sockets) == 1
        connection.close()
        assert len(sockets) == 0

    first, second = requests
    head, _, body = first.partition(b"\r\n\r\n")
    assert body == b"[1]"
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /v1/x HTTP/1.1"
    found = dict(header.split(": ", 1) for header in headers)
    assert found["Host"].startswith("127.0.0.1:")
    assert found["Authorization"] == "Bearer key"
    assert found["Content-Length"] == "3"
    assert second.endswith(b"[1, 2]")


@pytest.mark.parametrize("size", [1, 1 << 23])
def test_a_request_larger_than_the_sockets_buffers_arrives_whole(size: int) -> None:
    """8 MiB, of images for instance, are more than a socket takes at once."""
    bodies = []

    def talk(sock: socket.socket) -> None:
        for _ in range(2):
            bodies.append(heard(sock).partition(b"\r\n\r\n")[2])
            sock.sendall(OK)

    with peer(talk) as address:
        sockets: Sockets[str] = Sockets()
        connection = Connection(address, sockets, "owner")
        for number in (b"1", b"2"):
            connection.post(number * size)
            assert answer(connection, sockets) == OK
        connection.close()

    assert bodies == [b"1" * size, b"2" * size]


def test_the_end_of_a_connection_is_told() -> None:
    def talk(sock: socket.socket) -> None:
        heard(sock)
        sock.sendall(OK)

    with peer(talk) as address:
        sockets: Sockets[str] = Sockets()
        connection = Connection(address, sockets, "owner")
        connection.post(b"")
        assert answer(connection, sockets) == OK
        assert next_block(connection, sockets) == b""
        assert not connection.is_quiet()
        connection.close()


def test_a_socket_on_which_the_server_speaks_unasked_is_not_quiet() -> None:
    def talk(sock: socket.socket) -> None:
        heard(sock)
        sock.sendall(OK)
        heard(sock)
        sock.sendall(OK)
        assert sock.recv(1) == b""

    with peer(talk) as address:
        sockets: Sockets[str] = Sockets()
        connection = Connection(address, sockets, "owner")
        connection.post(b"")
        answer(connection, sockets)
        assert connection.is_quiet()
        connection.post(b"")
        sockets.ready(PATIENCE_S)
        assert not connection.is_quiet()
        assert answer(connection, sockets) == OK  # looking took nothing away
        connection.close()


def test_closing_a_socket_in_the_middle_reaches_the_server() -> None:
    def talk(sock: socket.socket) -> None:
        heard(sock)
        sock.sendall(OK[:-1])
        assert sock.recv(1) == b""

    with peer(talk) as address:
        sockets: Sockets[str] = Sockets()
        connection = Connection(address, sockets, "owner")
        connection.post(b"")
        next_block(connection, sockets)
        connection.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_nobody_listening_is_an_error_that_names_the_place() -> None:
    address = Address.of(f"http://127.0.0.1:{closed_port()}/x", "")
    sockets: Sockets[str] = Sockets()

    def connect() -> None:
        connection = Connection(address, sockets, "owner")  # may know it only later
        connection.post(b"")
        next_block(connection, sockets)

    with pytest.raises(ConnectionError, match=r"Cannot connect to 127\.0\.0\.1:\d+: .*refused"):
        connect()
    assert len(sockets) == 0


def test_a_name_that_stands_for_nothing_is_an_error_that_names_it() -> None:
    address = Address.of("http://no.such.host.invalid:80/x", "")

    with pytest.raises(ConnectionError, match=r"Cannot connect to no\.such\.host\.invalid:80"):
        Connection(address, Sockets(), "owner")


def test_where_nobody_listens_at_the_first_place_of_a_name_the_next_is_tried() -> None:
    """As with localhost, which is ::1 first, of a server that listens on 127.0.0.1 only."""

    def talk(sock: socket.socket) -> None:
        assert heard(sock).endswith(b"[1]")
        sock.sendall(OK)

    with peer(talk) as address:
        (place,) = address.places
        nobody = (*place[:4], ("127.0.0.1", closed_port()))
        address.__dict__["places"] = (nobody, nobody, place)
        sockets: Sockets[str] = Sockets()
        connection = Connection(address, sockets, "owner")
        connection.post(b"[1]")
        assert answer(connection, sockets) == OK
        connection.close()
    assert len(sockets) == 0


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
