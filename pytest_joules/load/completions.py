"""One completion request: sent, answered, checked. The loader's only HTTP."""

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

from pytest_joules.errors import is_expected
from pytest_joules.hiding import told
from pytest_joules.load.connection import Address, BadAnswer, Connection
from pytest_joules.trace import RequestTrace

__tracebackhide__ = is_expected

_EXCERPT: Final = 300
_DONE: Final = b"[DONE]"
_TAIL_BYTES: Final = 16
_HELD: Final = 32
"""Blocks of a stream that are read together; each was stamped when it came."""


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


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One event of a stream."""

    usage: dict[str, Any] | None
    has_text: bool = True


@dataclass(kw_only=True)
class Answer:
    """What has come back so far."""

    counts_at_end: bool = False

    prompt_tokens: int = 0
    output_tokens: int = 0
    first_token_s: float | None = None
    last_token_s: float = 0.0
    itl_s: list[float] = field(default_factory=list)

    def take(self, usage: dict[str, Any] | None) -> None:
        """Take the server's count of tokens so far.

        Raises:
            BadAnswer: It is missing or runs backwards.
        """
        try:
            assert usage is not None
            prompt, output = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise BadAnswer(f"no token counts in usage {usage!r}") from error
        if output < self.output_tokens:
            raise BadAnswer(f"usage fell from {self.output_tokens} to {output} tokens")
        self.prompt_tokens, self.output_tokens = prompt, output

    def take_block(self, chunks: list[Chunk], now_s: float) -> None:
        """Take what came at once; its new tokens share the time since the block before."""
        before = self.output_tokens
        for chunk in chunks:
            if chunk.usage is not None or not self.counts_at_end:
                self.take(chunk.usage)
        new = self.output_tokens - before
        if self.first_token_s is None:
            # Of further tokens in the first block nobody can tell the latency.
            if new or (self.counts_at_end and any(chunk.has_text for chunk in chunks)):
                self.first_token_s = self.last_token_s = now_s
        elif before and new:  # else they came before and are counted only now
            self.itl_s += [(now_s - self.last_token_s) / new] * new
            self.last_token_s = now_s


class Client:
    """Sends one request after the other; a failed one is reported, never repeated."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None

    async def send(self, ask: Ask) -> RequestTrace:
        """Send one request and wait for its whole answer."""
        answer, error = Answer(counts_at_end=ask.counts_at_end), None
        sent_s = finish_s = monotonic()
        try:
            finish_s = await self._exchange(ask, answer)
            _require_asked(ask, answer)
        except (OSError, ValueError, BadAnswer) as reason:
            error, finish_s = f"{type(reason).__name__}: {reason}", monotonic()
        return RequestTrace(
            index=ask.index,
            sent_s=sent_s,
            finish_s=finish_s,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=0 if error else answer.output_tokens,
            first_token_s=answer.first_token_s,
            itl_s=tuple(answer.itl_s),
            error=error,
        )

    async def _exchange(self, ask: Ask, answer: Answer) -> float:
        """Return when the last of the answer came."""
        if self._connection is None or not self._connection.is_usable:
            self.close()
            self._connection = await Connection.to(self._address)
        stream = _Stream(answer, ask.index) if ask.streamed else None
        try:
            status, body, finish_s = await self._connection.post(
                self._address, ask.body, stream.take if stream else None
            )
        finally:
            if stream is not None:
                stream.settle()
        if status != HTTPStatus.OK:
            text = body.decode(errors="replace")
            raise BadAnswer(f"status {status}: {told(text)[:_EXCERPT]}")
        if stream is None:
            values = json.loads(body)
            answer.take(values.get("usage") if isinstance(values, dict) else None)
        elif not stream.is_done:
            raise BadAnswer("the stream ended without [DONE]")
        return finish_s

    def close(self) -> None:
        """Close its socket at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Stream:
    """Cuts what comes of a stream into its events, some blocks at a time.

    The first time after fewer, by its number: else thousands that begin together would hold up
    the event loop together.
    """

    def __init__(self, answer: Answer, number: int) -> None:
        self._answer = answer
        self._rest = b""
        self._held: list[tuple[bytes, float]] = []
        self._room = 1 + number % _HELD
        self._tail = b""
        self.is_done = False

    def take(self, block: bytes, now_s: float) -> bool:
        self._held.append((block, now_s))
        # A token's text may say so, too: settling tells.
        recent = self._tail + block
        self._tail = recent[-_TAIL_BYTES:]
        if _DONE in recent or len(self._held) >= self._room:
            self.settle()
        return self.is_done

    def settle(self) -> None:
        """Read what is held.

        Raises:
            BadAnswer: It is no sound stream; or ValueError.
        """
        held, self._held, self._room = self._held, [], _HELD
        for block, now_s in held:
            self._read(block, now_s)

    def _read(self, block: bytes, now_s: float) -> None:
        *lines, self._rest = (self._rest + block).split(b"\n")
        events = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        needs_text = self._answer.counts_at_end
        chunks = [_chunk(data, needs_text=needs_text) for data in events if data != _DONE]
        self._answer.take_block(chunks, now_s)
        self.is_done |= _DONE in events


def _chunk(data: bytes, *, needs_text: bool) -> Chunk:
    values = json.loads(data.decode())
    if not isinstance(values, dict) or "error" in values:
        raise BadAnswer(f"the stream holds {told(data.decode(errors='replace'))[:_EXCERPT]}")
    usage: dict[str, Any] | None = values.get("usage")
    has_text = needs_text and any(map(_text, values.get("choices") or ()))
    return Chunk(usage=usage, has_text=has_text)


def _text(choice: dict[str, Any]) -> str:
    # A chat's first event names the role only, and a model that reasons says so elsewhere.
    delta = choice.get("delta") or {}
    names = ("content", "reasoning_content", "reasoning")
    return choice.get("text") or next(filter(None, map(delta.get, names)), "")


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
