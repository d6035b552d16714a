"""Continuous batching on a virtual clock: which requests run together, step by step.

A closed loop keeps requests in flight; each passes the host's input feed, waits until a slot
and memory are free, is read (one step with its prompt) and then gets one token a step. When
contexts outgrow the memory, the newest request is put back. Between two such events all
steps are alike, so a span of steps is costed once.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol

from pytest_joules.errors import LoadError, is_expected
from pytest_joules.point import Request
from pytest_joules.steady_state import is_long_enough
from pytest_joules.trace import RequestTrace

__tracebackhide__ = is_expected

_ADMIT_BELOW = 0.99
"""Share of the memory up to which requests are admitted: vLLM keeps blocks back likewise."""

_CHECK_GROWTH = 1.03
"""How much the finished requests grow between two looks whether the load was long enough."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One step of all GPUs together."""

    duration_s: float
    power_w: float
    clock_ratio: float = 1.0
    busy_share: float = 1.0
    is_capped: bool = False


class Costs(Protocol):
    """What the batching asks of a machine."""

    def step(self, batch: int, context_tokens: float, prefill_tokens: float) -> Cost:
        """Cost one step that decodes ``batch`` sequences and reads ``prefill_tokens``."""
        ...

    def memory_share(self, batch: int, context_tokens: float) -> float:
        """Return the share of the memory that so many sequences take."""
        ...


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What is asked of the server, and how."""

    requests: Iterator[Request]
    in_flight: int
    """Requests that the client waits for at once."""

    slots: int
    """Requests that the engine takes into a batch at most."""

    least_requests: int
    """Offered at least; where ``min_window_s`` is ``None``, exactly all are."""

    min_window_s: float | None
    deadline_s: float
    input_s: float = 0.0
    """Host time to prepare one request, one after the other."""

    seen_tokens: int = 0
    """Of images or video, read with every prompt and kept; the client does not count them."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive steps that are alike."""

    start_s: float
    end_s: float
    steps: int
    tokens: int
    prompt_tokens: float
    running: int
    waiting: int
    memory_share: float
    preemptions: int
    cost: Cost


@dataclass(slots=True)
class _Sequence:
    request: Request
    sent_s: float
    context: int
    left: int
    first_token_s: float | None = None
    start_step: int = 0
    end_step: int = 0
    is_running: bool = False


@dataclass(kw_only=True)
class Batching:
    """One load from its first request to its last answer."""

    costs: Costs
    demand: Demand
    now_s: float
    idle: Cost
    spans: list[Span] = field(default_factory=list)
    answered: list[RequestTrace] = field(default_factory=list)
    _steps: int = 0
    _issued: int = 0
    _in_flight: int = 0
    _context: int = 0
    _preempted: int = 0
    _checked: float = 0.0
    _fed_s: float = 0.0
    _is_over: bool = False
    _preparing: deque[tuple[float, _Sequence]] = field(default_factory=deque)
    _waiting: deque[_Sequence] = field(default_factory=deque)
    _running: list[tuple[int, int, _Sequence]] = field(default_factory=list)
    _admitted: list[_Sequence] = field(default_factory=list)

    def run(self) -> None:
        """Serve everything.

        Raises:
            LoadError: The deadline passed, or a request can never fit.
        """
        started_s = self.now_s
        while True:
            self._send()
            self._receive()
            prompt_tokens = self._admit()
            if self._running:
                self._advance(prompt_tokens)
            elif self._preparing:
                self._idle_until(self._preparing[0][0])
            elif self._waiting:
                raise LoadError("a request is longer than the memory holds.")
            else:
                return
            if self.now_s - started_s > self.demand.deadline_s:
                raise LoadError(
                    f"the load was not finished after {self.demand.deadline_s:g} s: "
                    f"{len(self.answered)} of {self._issued} requests sent were answered. "
                    "Raise --joules-point-deadline, or ask for less (--joules-window)."
                )

    def _send(self) -> None:
        while self._in_flight < self.demand.in_flight and not self._is_enough():
            request = next(self.demand.requests, None)
            if request is None:
                self._is_over = True
                return
            self._issued += 1
            self._in_flight += 1
            self._fed_s = max(self._fed_s, self.now_s) + self.demand.input_s
            prompt = request.prompt_tokens + self.demand.seen_tokens
            made = _Sequence(request, self.now_s, prompt, request.output_tokens)
            self._preparing.append((self._fed_s, made))

    def _is_enough(self) -> bool:
        window_s = self.demand.min_window_s
        if self._is_over or window_s is None or self._issued < self.demand.least_requests:
            return self._is_over
        lasted_s = self.now_s - self.spans[0].start_s if self.spans else 0.0
        if lasted_s > window_s and len(self.answered) >= self._checked * _CHECK_GROWTH:
            self._checked = len(self.answered)
            self._is_over = is_long_enough(self.answered, min_window_s=window_s)
        return self._is_over

    def _receive(self) -> None:
        while self._preparing and self._preparing[0][0] <= self.now_s + 1e-9:
            self._waiting.append(self._preparing.popleft()[1])

    def _admit(self) -> int:
        """Put what fits into the batch; return the tokens to read."""
        tokens = 0
        while self._waiting and len(self._running) < self.demand.slots:
            sequence, number = self._waiting[0], len(self._running) + 1
            context = (self._context + sequence.context) / number
            if self.costs.memory_share(number, context) > _ADMIT_BELOW:
                break
            self._waiting.popleft()
            sequence.is_running = True
            sequence.start_step = self._steps
            sequence.end_step = self._steps + sequence.left
            heapq.heappush(self._running, (sequence.end_step, sequence.request.index, sequence))
            self._admitted.append(sequence)
            self._context += sequence.context
            tokens += sequence.context
        return tokens

    def _advance(self, prompt_tokens: int) -> None:
        batch = len(self._running)
        room = 1 if prompt_tokens else self._steps_until_full(batch)
        if room < 1:
            self._preempt()
            return
        steps = 1 if prompt_tokens else min(room, self._running[0][0] - self._steps)
        context = self._context / batch + (steps - 1) / 2
        cost = self.costs.step(batch, context, prompt_tokens)
        steps = min(steps, self._steps_until_ready(cost.duration_s))
        self._record(steps, steps * cost.duration_s, cost, prompt_tokens=prompt_tokens)
        self._context += batch * steps
        self._steps += steps
        self._finish(prompt_tokens > 0)

    def _steps_until_full(self, batch: int) -> int:
        context = self._context / batch
        share = self.costs.memory_share(batch, context)
        growth = self.costs.memory_share(batch, context + 1) - share
        if batch == 1 or growth <= 0:
            return int(1e9)
        return int((1 - share) / growth)

    def _steps_until_ready(self, step_s: float) -> int:
        if not self._preparing:
            return int(1e9)
        return max(1, ceil((self._preparing[0][0] - self.now_s) / step_s))

    def _preempt(self) -> None:
        """Put the newest request back, to be read again with all that it has so far."""
        newest = self._admitted.pop()
        while not newest.is_running:
            newest = self._admitted.pop()
        made = self._steps - newest.start_step
        self._context -= newest.context + made
        newest.context, newest.left = newest.context + made, newest.left - made
        newest.is_running = False
        self._running = [each for each in self._running if each[2] is not newest]
        heapq.heapify(self._running)
        self._waiting.appendleft(newest)
        self._preempted += 1

    def _record(
        self, steps: int, duration_s: float, cost: Cost, *, prompt_tokens: int = 0
    ) -> None:
        batch = len(self._running)
        share = self.costs.memory_share(batch, self._context / batch) if batch else 0.0
        self.spans.append(
            Span(
                start_s=self.now_s,
                end_s=self.now_s + duration_s,
                steps=steps,
                tokens=steps * batch,
                prompt_tokens=prompt_tokens,
                running=batch,
                waiting=len(self._waiting),
                memory_share=share,
                preemptions=self._preempted,
                cost=cost,
            )
        )
        self.now_s += duration_s

    def _idle_until(self, time_s: float) -> None:
        self._record(0, max(time_s - self.now_s, 0.0), self.idle)

    def _finish(self, has_read: bool) -> None:  # noqa: FBT001  private
        if has_read:
            for sequence in reversed(self._admitted):
                if sequence.start_step != self._steps - 1:
                    break
                sequence.first_token_s = sequence.first_token_s or self.now_s
        while self._running and self._running[0][0] <= self._steps:
            sequence = heapq.heappop(self._running)[2]
            sequence.is_running = False
            request = sequence.request
            self._context -= sequence.context + sequence.left
            self._in_flight -= 1
            self.answered.append(
                RequestTrace(
                    index=request.index,
                    sent_s=sequence.sent_s,
                    first_token_s=sequence.first_token_s,
                    finish_s=self.now_s,
                    prompt_tokens=request.prompt_tokens,
                    output_tokens=request.output_tokens,
                )
            )
