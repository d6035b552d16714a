"""When the engine is in steady state: one definition, here and nowhere else.

The window opens at the latest of three moments and closes at one:

1. the paper's rule: ``B`` requests have emitted their first token (section 2);
2. one mean request time later, when the initial burst, whose contexts all grew together,
   has been replaced by requests of mixed age (mean of those answered before it closes);
3. the truncation point of MSER-5 on work units per joule, where it matters (``assess``).

It closes when request ``N - B`` finishes: that completion admits the last queued request,
so the next one leaves a slot empty. The opening is rounded up to the next finished request
and stored as the number of requests finished by then; later runs cut at the same work.

Batch work (diffusion) opens when the batches that warmed up are done, and closes with the
last batch; finished images and videos count as requests.

Source: the opening event is the one of the ML.ENERGY Benchmark; it alone is necessary but
not steady, since all requests begin at context = prompt (DESIGN, section 7).
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

from pytest_joules.batches import require_warm_up
from pytest_joules.errors import NoSteadyState, is_expected
from pytest_joules.trace import (
    BatchLoad,
    BatchTrace,
    Load,
    LoadTrace,
    RequestTrace,
    ServerSample,
)

__tracebackhide__ = is_expected

_MSER_BATCH = 5


@dataclass(frozen=True, kw_only=True)
class Window:
    """Half-open span ``[start, end)`` of the monotonic clock whose energy counts."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not self.start_s < self.end_s:
            raise NoSteadyState(
                f"the steady state would end at {self.end_s:.3f} s, before it begins at "
                f"{self.start_s:.3f} s; offer more requests (num_requests)."
            )

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    def holds(self, time_s: float) -> bool:
        """Tell whether a moment is inside."""
        return self.start_s <= time_s < self.end_s


@dataclass(frozen=True, kw_only=True)
class Work:
    """A window as work: requests finished when it opens and when it closes."""

    start_index: int
    end_index: int


def finish_times(load: Load) -> tuple[float, ...]:
    """Return when the requests ended, ascending; a failed one gives back its slot, too."""
    if isinstance(load, BatchLoad):
        return tuple(b.finish_s for b in load.batches for _ in range(load.batch_size))
    return tuple(sorted(request.finish_s for request in load.requests))


def first_full_batch_s(load: LoadTrace) -> float:
    """Return when ``B`` requests had emitted their first token, as the server counts them.

    Raises:
        NoSteadyState: They never had.
    """
    before = load.server[0].first_tokens if load.server else 0.0
    for sample in load.server:
        if sample.first_tokens - before >= load.max_concurrency:
            return sample.time_s
    _require_answers(load)  # which would explain it
    raise NoSteadyState(
        f"the server never had {load.max_concurrency} requests decoding: it counted "
        f"{_counted(load.server)} first tokens. Its batch is smaller than asked (KV cache, "
        "max_num_seqs), or the load ended early; see the server's log."
    )


def _counted(server: Sequence[ServerSample]) -> float:
    return server[-1].first_tokens - server[0].first_tokens if server else 0.0


def last_full_batch_s(load: LoadTrace) -> float:
    """Return when request ``N - B`` finished: until then every slot is kept busy.

    Raises:
        NoSteadyState: No more requests were offered than fit at once.
    """
    finished = finish_times(load)
    position = len(finished) - load.max_concurrency
    if position < 1:
        raise NoSteadyState(
            f"{len(finished)} requests cannot keep {load.max_concurrency} in flight; offer "
            f"at least {3 * load.max_concurrency} (num_requests)."
        )
    return finished[position - 1]


def mean_request_s(load: LoadTrace) -> float:
    """Return the mean time from sending a request to its answer, while all slots were busy.

    The last ``B`` requests do not count: they are the longest of those in flight, and whoever
    offers the load cannot know them when deciding that it was long enough.

    Raises:
        NoSteadyState: None was answered, or no more were offered than fit at once.
    """
    _require_answers(load)
    end_s = last_full_batch_s(load)
    answered = [
        r.finish_s - r.sent_s for r in load.requests if r.error is None and r.finish_s <= end_s
    ]
    if not answered:
        raise NoSteadyState(
            f"no request was answered while all {load.max_concurrency} slots were busy; offer "
            "more requests (num_requests)."
        )
    return sum(answered) / len(answered)


def _require_answers(load: LoadTrace) -> None:
    if any(request.error is None for request in load.requests):
        return
    first = load.requests[0].error if load.requests else "none was offered"
    raise NoSteadyState(
        f"none of {len(load.requests)} requests was answered; the first: {first}. See the "
        "server's log."
    )


class LoadSoFar:
    """Whether a load has lasted long enough, asked as often as one likes while it lasts.

    ``B - 1`` requests are in flight when a slot becomes free, so request ``N - B`` was the last
    but one to end. The window opens with a request's end, one mean request after the first was
    sent; it must be as long as asked, and longer than the ramp-up. Counting from the ``B``-th
    end instead leaves nothing where one request is much longer than the others.
    """

    def __init__(self, min_window_s: float) -> None:
        self._min_window_s = min_window_s
        self._latest: RequestTrace | None = None
        self._ends_s: list[float] = []  # of all but the latest, as everything below
        self._began_s = inf
        self._lasted_s = 0.0

    def take(self, answered: RequestTrace) -> None:
        """Remember a request that ended, be it a little out of order."""
        if self._latest is None:
            self._latest = answered
            return
        pair = (self._latest, answered)
        earlier, self._latest = sorted(pair, key=lambda request: request.finish_s)
        insort(self._ends_s, earlier.finish_s)
        self._began_s = min(self._began_s, earlier.sent_s)
        self._lasted_s += earlier.finish_s - earlier.sent_s

    @property
    def is_long_enough(self) -> bool:
        """Whether the window is long if nothing more is sent."""
        if not self._ends_s:
            return False
        mean_s = self._lasted_s / len(self._ends_s)
        position = bisect_left(self._ends_s, self._began_s + mean_s)
        if position == len(self._ends_s):
            return False
        opened_s = self._ends_s[position]
        least_s = max(self._min_window_s, opened_s - self._began_s)
        return self._ends_s[-1] - opened_s >= least_s


def is_long_enough(answered: Collection[RequestTrace], *, min_window_s: float) -> bool:
    """Tell the same of requests that are known together, in any order."""
    load = LoadSoFar(min_window_s)
    for request in sorted(answered, key=lambda request: request.finish_s):
        load.take(request)
    return load.is_long_enough


def mser5(series: Sequence[float]) -> int:
    """Return how many leading values to cut so that the rest looks stationary.

    Values are averaged in batches of five; the cut ``d`` minimises the squared standard
    error of the remaining batch means, ``sum (z_i - mean)^2 / (n - d)^2``, and is searched
    in the first half.

    Source:
        K. P. White, "An effective truncation heuristic for bias reduction in simulation
        output", Simulation 69(6), 1997; in batches of five: K. P. White, M. J. Cobb and
        S. C. Spratt, "A comparison of five steady-state truncation heuristics for
        simulation", Winter Simulation Conference 2000.
    """
    batches = [
        sum(series[i : i + _MSER_BATCH]) / _MSER_BATCH
        for i in range(0, len(series) - _MSER_BATCH + 1, _MSER_BATCH)
    ]
    cuts = range(len(batches) // 2 + 1)
    if not batches:
        return 0
    return _MSER_BATCH * min(cuts, key=lambda cut: _squared_error(batches[cut:]))


def _squared_error(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values) ** 2


def full_batch_window(load: Load) -> Window:
    """Return the paper's window: ``B`` decoding, and the queue not yet empty.

    Of batch work it is all that the pipeline did after it warmed up.

    Raises:
        NoSteadyState: There is no such span.
    """
    if isinstance(load, BatchLoad):
        warm_up = require_warm_up(load)
        return Window(
            start_s=load.batches[warm_up - 1].finish_s, end_s=load.batches[-1].finish_s
        )
    return Window(start_s=first_full_batch_s(load), end_s=last_full_batch_s(load))


def steady_work(load: Load, *, settled_s: float) -> Work:
    """Find the steady state as work, once, when a baseline is made.

    Args:
        load: The recorded load.
        settled_s: Where MSER-5 cut the series (see the module's docstring).

    Raises:
        NoSteadyState: There is none.
    """
    full = full_batch_window(load)
    finished = finish_times(load)
    if isinstance(load, BatchLoad):
        batch = bisect_left([b.finish_s for b in load.batches], max(full.start_s, settled_s))
        return Work(start_index=(batch + 1) * load.batch_size, end_index=len(finished))
    start_s = max(full.start_s + mean_request_s(load), settled_s)
    start_index = bisect_left(finished, start_s) + 1
    # Not by time: where requests N - B and N - B + 1 end together, the later one must not
    # count, for in the next run it ends after the window.
    end_index = len(finished) - load.max_concurrency
    if start_index >= end_index:
        raise NoSteadyState(
            f"after the ramp-up only {max(0, end_index - start_index)} requests finished with "
            f"all {load.max_concurrency} slots busy; offer more requests (num_requests) or a "
            "longer window (--joules-window)."
        )
    return Work(start_index=start_index, end_index=end_index)


def work_window(load: Load, work: Work) -> Window:
    """Place a window of work in time: between its two completions.

    Raises:
        NoSteadyState: The load finished fewer requests, or its slots were not all busy.
    """
    finished = finish_times(load)
    full = full_batch_window(load)
    if not 1 <= work.start_index < work.end_index:
        raise NoSteadyState(
            f"requests {work.start_index} to {work.end_index} are no window: it opens and "
            "closes with a request, and closes later; delete the baseline and record "
            "a new one (--joules-record)."
        )
    if work.end_index > len(finished):
        raise NoSteadyState(
            f"the window closes at request {work.end_index}, but only {len(finished)} finished."
        )
    window = Window(start_s=finished[work.start_index - 1], end_s=finished[work.end_index - 1])
    if window.start_s < full.start_s or window.end_s > full.end_s:
        raise NoSteadyState(
            f"requests {work.start_index} to {work.end_index} do not fall into the time with "
            "every slot busy; this stack needs its own window: delete the baseline and record "
            "a new one (--joules-record)."
        )
    return window


def window_batches(load: BatchLoad, window: Window) -> tuple[BatchTrace, ...]:
    """Return the batches of a window; one whose edge was moved to a tick still belongs."""
    return tuple(b for b in load.batches if window.holds((b.started_s + b.finish_s) / 2))


def sub_window_ends(load: Load, window: Window) -> tuple[float, ...]:
    """Return the moments at which alone a sub-window may end; none where any may."""
    if not isinstance(load, BatchLoad):
        return ()
    ends = sorted({batch.finish_s for batch in load.batches})
    return tuple(end for end in ends if window.start_s <= end <= window.end_s)
