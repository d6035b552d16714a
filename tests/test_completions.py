"""A client that stamps what comes at once and reads it later."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from pytest_joules.load import generator
from pytest_joules.load.completions import Ask, Client
from pytest_joules.load.connection import Address, Sockets
from pytest_joules.load.generator import _Slots
from pytest_joules.trace import RequestTrace

ASK = Ask(index=0, body=b"{}", streamed=False, prompt_tokens=3, output_tokens=2)
COUNTS = b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(COUNTS), COUNTS)
PATIENCE_S = 30.0


class Peer:
    """A client's server, which says what the test tells it to."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.sockets: Sockets[Client] = Sockets()
        port = listener.getsockname()[1]
        self.client = Client(Address.of(f"http://127.0.0.1:{port}/v1/x", ""), self.sockets)

    def asked(self) -> socket.socket:
        """Let the client connect and ask; return the server's end."""
        assert self.client.send(ASK) is None
        sock, _ = self._listener.accept()
        sock.settimeout(PATIENCE_S)
        while not self.sockets.ready(0.0):
            pass
        assert not self.client.hear()  # it sends
        assert sock.recv(1 << 16).endswith(ASK.body)
        return sock

    def hears(self) -> bool:
        assert self.sockets.ready(PATIENCE_S) == [self.client]
        return self.client.hear()


@contextmanager
def _peer() -> Iterator[Peer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        peer = Peer(listener)
        yield peer
        peer.client.close()


def test_an_answer_has_the_time_at_which_it_was_heard_not_read() -> None:
    with _peer() as peer, peer.asked() as sock:
        sock.sendall(ANSWER[:50])
        assert peer.hears()
        sock.sendall(ANSWER[50:])
        assert not peer.hears(), "it is to be read already"
        heard_s = monotonic()

        answered = peer.client.read()

    assert answered
    assert answered.error is None
    assert (answered.prompt_tokens, answered.output_tokens) == (3, 2)
    assert answered.sent_s < answered.finish_s <= heard_s


def test_what_nobody_asked_for_is_not_taken_for_the_next_answer() -> None:
    with _peer() as peer, peer.asked() as first:
        first.sendall(ANSWER)
        assert peer.hears()
        first.sendall(ANSWER)
        assert not peer.hears()
        assert peer.client.read()

        with peer.asked() as second:
            assert first.recv(1) == b"", "it went on with the same connection"
            assert peer.client.read() is None
            second.sendall(ANSWER)
            assert peer.hears()
            answered = peer.client.read()

    assert answered
    assert answered.error is None


def test_a_connection_that_is_cut_is_heard_once() -> None:
    with _peer() as peer:
        with peer.asked() as sock:
            sock.sendall(ANSWER[:50])
            assert peer.hears()
        assert not peer.hears()
        assert not peer.hears()
        assert len(peer.client._heard) == 2  # noqa: SLF001 nothing else grows
        answered = peer.client.read()

    assert answered
    assert answered.error == "ConnectionError: the server closed the connection midway"


class Scripted:
    """A client whose answers are whole when they are heard; what it does is noted."""

    def __init__(self, name: str, noted: list[str], clock: list[float]) -> None:
        self._name, self._noted, self._clock = name, noted, clock

    def _note(self, what: str, lasts_s: float) -> None:
        self._noted.append(f"{what} {self._name}")
        self._clock[0] += lasts_s

    def hear(self) -> bool:
        self._note("hear", 0.0)
        return True

    def read(self) -> RequestTrace | None:
        self._note("read", 0.0001)
        return RequestTrace(
            index=0,
            sent_s=0.0,
            finish_s=self._clock[0],
            prompt_tokens=1,
            output_tokens=1,
            first_token_s=None,
            itl_s=(),
            error=None,
        )

    def send(self, ask: Ask) -> None:
        del ask
        self._note("send", 0.001)


class Loop:
    """There is always another request."""

    has_answers = True

    def next(self) -> Ask:
        return ASK

    def take(self, answered: RequestTrace) -> None:
        del answered


def test_what_comes_while_requests_are_sent_is_stamped_between_two_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[str] = []
    clock = [100.0]
    monkeypatch.setattr(generator, "monotonic", lambda: clock[0])
    slots = _Slots(Loop(), Address.of("http://127.0.0.1:1/v1/x", ""), 0)  # type: ignore[arg-type]
    a, b, c = (Scripted(name, noted, clock) for name in "abc")
    coming: list[list[Any]] = [[a, b], [c], []]
    monkeypatch.setattr(slots._sockets, "ready", lambda _: coming.pop(0))  # noqa: SLF001

    looked_s = slots.turn()
    assert noted == ["hear a", "hear b", "read a", "send a", "hear c", "read b", "send b"]
    assert looked_s == clock[0]
    assert slots.lag_s == pytest.approx(0.0011), "one request is answered and another is sent"
    assert slots.are_busy, "one that was heard is not read yet, and may have no socket any more"

    del noted[:]
    coming += [[], []]
    slots.turn()
    assert noted == ["read c", "send c"], "what was heard is not waited for again"
    assert not slots.are_busy
