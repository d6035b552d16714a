"""What comes back of one completion: its tokens, and when they came."""

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from pytest_joules.errors import is_expected
from pytest_joules.hiding import told
from pytest_joules.load.http_answer import BadAnswer, HttpAnswer

__tracebackhide__ = is_expected

Event = dict[str, Any]
"""One event of a stream."""

_EXCERPT: Final = 300
_DONE: Final = b"[DONE]"
_MIDWAY: Final = b"}\n\n\r\n"
"""How a block ends that ends with a whole event, within a whole chunk of HTTP."""

_HELD: Final = 32
"""Blocks of a stream that are read together; each was stamped when it came."""


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

    def take_block(self, events: list[Event], now_s: float) -> None:
        """Take what came at once; its new tokens share the time since the block before.

        Raises:
            BadAnswer: As ``take``.
        """
        before = self.output_tokens
        for event in events:
            usage = event.get("usage")
            if usage is not None or not self.counts_at_end:
                self.take(usage)
        new = self.output_tokens - before
        if self.first_token_s is None:
            # Of further tokens in the first block nobody can tell the latency.
            if new or (self.counts_at_end and any(map(_has_text, events))):
                self.first_token_s = self.last_token_s = now_s
        elif before and new:  # else they came before and are counted only now
            self.itl_s += [(now_s - self.last_token_s) / new] * new
            self.last_token_s = now_s


class Whole:
    """A reply that is read once all of it has come."""

    def __init__(self, http: HttpAnswer, answer: Answer) -> None:
        self._http, self._answer = http, answer

    def take(self, block: bytes, now_s: float) -> float | None:
        """Take what came; tell when the reply ended, once it has.

        Raises:
            ConnectionError: The server hung up too early.
            BadAnswer: It is no sound reply; or ValueError.
        """
        self._http.take(block)
        if not self._http.is_whole:
            return None
        _require_ok(self._http)
        values = json.loads(self._http.body())
        self._answer.take(values.get("usage") if isinstance(values, dict) else None)
        return now_s

    def settle(self) -> float | None:
        """Nothing is held."""


class Stream:
    """A reply that is cut into its events, some blocks at a time.

    A block that ends with a whole event is held; every other, such as the last, is read at
    once. At first fewer are held, by the stream's number: else thousands that begin together
    would all be read together.
    """

    def __init__(self, http: HttpAnswer, answer: Answer, number: int) -> None:
        self._http, self._answer = http, answer
        self._rest = b""
        self._held: list[tuple[bytes, float]] = []
        self._room = 1 + number % _HELD

    def take(self, block: bytes, now_s: float) -> float | None:
        """Take what came; tell when the reply ended, once it has.

        Raises:
            ConnectionError: The server hung up too early.
            BadAnswer: It is no sound stream; or ValueError.
        """
        self._held.append((block, now_s))
        if len(self._held) < self._room and block.endswith(_MIDWAY):
            return None
        return self.settle()

    def settle(self) -> float | None:
        """Read what is held; raises as ``take``."""
        held, self._held, self._room = self._held, [], _HELD
        for block, now_s in held:
            if self._ends_with(block, now_s):
                return now_s
        return None

    def _ends_with(self, block: bytes, now_s: float) -> bool:
        self._http.take(block)
        is_done = self._http.status == HTTPStatus.OK and self._read(self._http.body(), now_s)
        if self._http.is_whole:
            _require_ok(self._http)
            if not is_done:
                raise BadAnswer("the stream ended without [DONE]")
        return is_done

    def _read(self, body: bytes, now_s: float) -> bool:
        *lines, self._rest = (self._rest + body).split(b"\n")
        texts = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        self._answer.take_block([_event(data) for data in texts if data != _DONE], now_s)
        return _DONE in texts


def _require_ok(http: HttpAnswer) -> None:
    if http.status != HTTPStatus.OK:
        text = http.body().decode(errors="replace")
        raise BadAnswer(f"status {http.status}: {told(text)[:_EXCERPT]}")


def _event(data: bytes) -> Event:
    values = json.loads(data.decode())
    if not isinstance(values, dict) or "error" in values:
        raise BadAnswer(f"the stream holds {told(data.decode(errors='replace'))[:_EXCERPT]}")
    return values


def _has_text(event: Event) -> bool:
    return any(map(_text, event.get("choices") or ()))


def _text(choice: dict[str, Any]) -> str:
    # A chat's first event names the role only, and a model that reasons says so elsewhere.
    delta = choice.get("delta") or {}
    names = ("content", "reasoning_content", "reasoning")
    return choice.get("text") or next(filter(None, map(delta.get, names)), "")
