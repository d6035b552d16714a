"""One completion request: sent, answered, checked. The loader's only HTTP."""

from collections import deque
from dataclasses import dataclass
from time import monotonic

from pytest_joules.errors import is_expected
from pytest_joules.load.connection import Address, Connection, Sockets
from pytest_joules.load.http_answer import BadAnswer, HttpAnswer
from pytest_joules.load.stream import Answer, Stream, Whole
from pytest_joules.trace import RequestTrace

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is sent, and what must come back."""

    index: int
    body: bytes
    streamed: bool
    prompt_tokens: int
    counts_exactly: bool = True
    """Whether the server must count as many prompt tokens; a chat's template and images add
    to them."""

    counts_at_end: bool = False
    """Whether a stream may tell its tokens at its end only."""

    output_tokens: int | None
    """``None`` where the model ends its own output."""


class Client:
    """Sends one request after the other; a failed one is reported, never repeated."""

    def __init__(self, address: Address, sockets: "Sockets[Client]") -> None:
        self._address, self._sockets = address, sockets
        self._connection: Connection[Client] | None = None
        self._http = HttpAnswer()
        self._heard: deque[tuple[bytes | OSError, float]] = deque()
        self._is_cut = False

    def send(self, ask: Ask) -> RequestTrace | None:
        """Send a request; tell how it ended where it did at once."""
        self._ask, self._sent_s = ask, monotonic()
        self._answer = Answer(counts_at_end=ask.counts_at_end)
        try:
            connection = self._usable()
            self._reply = (
                Stream(self._http, self._answer, ask.index)
                if ask.streamed
                else Whole(self._http, self._answer)
            )
            connection.post(ask.body)
        except OSError as reason:
            return self._trace(monotonic(), reason)
        return None

    def hear(self) -> bool:
        """Take what its socket has, and when; tell whether that is the first to be read."""
        assert self._connection
        if self._is_cut:
            return False
        what: bytes | OSError | None
        try:
            what = self._connection.react()
        except OSError as reason:
            what = reason
        if what is None:
            return False
        self._is_cut = not isinstance(what, bytes) or not what
        self._heard.append((what, monotonic()))
        return len(self._heard) == 1

    def read(self) -> RequestTrace | None:
        """Read all that was heard; tell how the request ended once it has."""
        while self._heard:
            what, heard_s = self._heard.popleft()
            try:
                finish_s = self._taken(what, heard_s)
            except (OSError, ValueError, BadAnswer) as reason:
                return self._trace(heard_s, self._earliest(reason))
            if finish_s is not None:
                return self._trace(finish_s)
        return None

    def _taken(self, what: bytes | OSError, heard_s: float) -> float | None:
        if isinstance(what, OSError):
            raise what
        finish_s = self._reply.take(what, heard_s)
        if finish_s is not None:
            _require_asked(self._ask, self._answer)
        return finish_s

    def close(self) -> None:
        """Close its socket at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._heard.clear()
        self._is_cut = False

    def _usable(self) -> "Connection[Client]":
        is_quiet = self._http.is_kept and not self._heard
        if self._connection and is_quiet and self._connection.is_quiet():
            self._http.begin()
            return self._connection
        self.close()
        self._http.connect()
        self._connection = Connection(self._address, self._sockets, self)
        return self._connection

    def _earliest(self, reason: Exception) -> Exception:
        """Read what is held of a broken stream, which may tell an earlier reason."""
        try:
            self._reply.settle()
        except (OSError, ValueError, BadAnswer) as earlier:
            return earlier
        return reason

    def _trace(self, finish_s: float, error: Exception | None = None) -> RequestTrace:
        answer = self._answer
        return RequestTrace(
            index=self._ask.index,
            sent_s=self._sent_s,
            finish_s=finish_s,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens if error is None else 0,
            first_token_s=answer.first_token_s,
            itl_s=tuple(answer.itl_s),
            error=None if error is None else f"{type(error).__name__}: {error}",
        )


def _require_asked(ask: Ask, answer: Answer) -> None:
    fits = answer.prompt_tokens == ask.prompt_tokens
    if not (fits if ask.counts_exactly else answer.prompt_tokens > 0):
        raise BadAnswer(
            f"usage says {answer.prompt_tokens} prompt tokens, {ask.prompt_tokens} were sent"
        )
    if ask.output_tokens is not None and answer.output_tokens != ask.output_tokens:
        raise BadAnswer(
            f"usage says {answer.output_tokens} output tokens, {ask.output_tokens} were asked"
        )
    if answer.output_tokens < 1:
        raise BadAnswer("usage says that no token was made")
