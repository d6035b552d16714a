import ast
import inspect
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from pytest_joules import contract, counter
from pytest_joules.assess import validity
from pytest_joules.assess.energy import WindowEnergy
from pytest_joules.assess.validity import (
    answer_reasons,
    load_notes,
    load_reasons,
    mean_batch_size,
    time_weighted_mean,
)
from pytest_joules.contract import (
    COUNTER_NOTES,
    COUNTER_RULES,
    LOAD_NOTES,
    LOAD_RULES,
    NOTES,
    POINT_NOTES,
    RULES,
)
from pytest_joules.counter import circumstances
from pytest_joules.latent.plausibility import IMPLAUSIBLE
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.steady_state import Window, full_batch_window
from pytest_joules.trace import Load, LoadTrace
from tests.fakes.traces import batch_load, closed_loop

# Four slots, 40 requests of 8 s, staggered by 2 s: 4,000 tokens; full from 0.5 s to 72 s.
GOOD = closed_loop([2, 4, 6, *[8] * 37], slots=4)
WINDOW = Window(start_s=20.0, end_s=60.0)
PROCEDURE = Procedure()


def codes(
    load: Load = GOOD,
    window: Window = WINDOW,
    procedure: Procedure = PROCEDURE,
    *,
    num_ticks: int = 400,
) -> list[str]:
    reasons = load_reasons(load, window, procedure, num_ticks=num_ticks)
    assert all(reason.text for reason in reasons)
    return [reason.code for reason in reasons]


def with_samples(**changes: Any) -> LoadTrace:
    """Change the samples: a number replaces the counter, a function maps it."""
    return replace(
        GOOD,
        server=tuple(
            replace(
                sample,
                **{
                    name: change(getattr(sample, name)) if callable(change) else change
                    for name, change in changes.items()
                },
            )
            for sample in GOOD.server
        ),
    )


def with_failures(number: int) -> LoadTrace:
    broken = [replace(r, error="HTTP 500: out of memory") for r in GOOD.requests[:number]]
    return replace(GOOD, requests=(*broken, *GOOD.requests[number:]))


def test_a_good_load_breaks_no_rule() -> None:
    full = full_batch_window(GOOD)
    assert (full.start_s, full.end_s) == (0.5, 72.0)
    assert codes() == []


def slow_at(moment_s: float, took_s: float) -> LoadTrace:
    """One sample in the middle of the window took long."""
    server = tuple(
        replace(s, took_s=took_s) if s.time_s == moment_s else s for s in GOOD.server
    )
    return replace(GOOD, server=server)


def without(start_s: float, end_s: float) -> LoadTrace:
    """Samples between two moments are missing."""
    return replace(GOOD, server=tuple(s for s in GOOD.server if not start_s < s.time_s < end_s))


def crowded(more: int, seconds: float) -> LoadTrace:
    """Somebody else's requests run beside ours for a while."""
    server = tuple(
        replace(s, running=s.running + more * (30 <= s.time_s < 30 + seconds))
        for s in GOOD.server
    )
    return replace(GOOD, server=server)


def late(from_s: float, until_s: float) -> LoadTrace:
    """Samples of a while say what the first of them said."""
    (held,) = (s for s in GOOD.server if s.time_s == from_s)
    server = tuple(
        replace(held, time_s=s.time_s) if from_s <= s.time_s < until_s else s
        for s in GOOD.server
    )
    return replace(GOOD, server=server)


def test_answers_that_the_server_never_counts_do_not_make_its_counters_old() -> None:
    """All tokens are there, and so is each other answer at once."""
    assert codes(with_samples(finished=lambda number: max(0, number - 3))) == []


LONG = Window(start_s=20.0, end_s=50.0)
LAST_48_S = Window(start_s=6.0, end_s=54.0)
HALF = 0.5 + 71.5 / 2
BOUNDARIES = [
    ("window-short", {"window": LONG}, {"window": replace(LONG, end_s=49.99)}),
    ("window-short", {"num_ticks": 300}, {"num_ticks": 299}),
    (
        "window-late",
        {"window": Window(start_s=HALF - 0.01, end_s=72.0)},
        {"window": Window(start_s=HALF, end_s=72.0)},
    ),
    (
        "batch-starved",
        {"load": with_samples(running=3.401)},
        {"load": with_samples(running=3.399)},
    ),
    ("request-failed", {"load": with_failures(0)}, {"load": with_failures(1)}),
    (
        "tokens-disagree",
        {"load": with_samples(output_tokens=lambda n: n * 1.005)},
        {"load": with_samples(output_tokens=lambda n: n * 1.006)},
    ),
    (
        "tokens-disagree",
        {"load": with_samples(output_tokens=lambda n: n * 0.995)},
        {"load": with_samples(output_tokens=lambda n: n * 0.994)},
    ),
    (
        "client-lagged",
        {"load": replace(GOOD, client_lag_s=0.5)},
        {"load": replace(GOOD, client_lag_s=0.51)},
    ),
    (
        "client-busy",
        {"load": replace(GOOD, client_cpu_s=80.0)},
        {"load": replace(GOOD, client_cpu_s=80.1)},
    ),
    ("client-busy", {}, {"load": replace(GOOD, ended_s=GOOD.started_s)}),
    ("scrape-slow", {"load": with_samples(took_s=1.0)}, {"load": with_samples(took_s=1.01)}),
    ("scrape-slow", {"load": slow_at(40.0, 2.0)}, {"load": slow_at(40.0, 2.01)}),
    ("scrape-slow", {"load": without(39.0, 40.9)}, {"load": without(39.0, 41.01)}),
    # A request ends every 2 s: what is left out is that of 40 s, or that of 18 s.
    ("scrape-slow", {"load": late(39.0, 42.125)}, {"load": late(39.0, 42.25)}),
    (
        "scrape-slow",
        {"load": late(17.0, 19.125), "window": Window(start_s=19.0, end_s=60.0)},
        {"load": late(17.0, 19.25), "window": Window(start_s=19.125, end_s=60.0)},
    ),
    # 16 of 320 samples are 2 s of the 40: two more of 4 on average 0.1, 2 % are 0.08.
    ("foreign-requests", {"load": crowded(2, 1.4)}, {"load": crowded(2, 1.8)}),
    ("foreign-requests", {"load": with_samples(running=4.079)}, {"load": crowded(1, 30)}),
    (
        "foreign-requests",
        {"load": with_samples(first_tokens=lambda n: n * 1.005)},
        {"load": with_samples(first_tokens=lambda n: n * 1.03)},
    ),
    (
        "batches-few",
        {"load": batch_load([6.0] * 9), "window": LAST_48_S},
        {"load": batch_load([6.0] * 9), "window": replace(LAST_48_S, start_s=9.1)},
    ),
    (
        "batches-apart",
        {"load": batch_load([5.9] * 9, pause_s=0.1), "window": LAST_48_S},
        {"load": batch_load([5.85] * 9, pause_s=0.15), "window": LAST_48_S},
    ),
]


@pytest.mark.parametrize(
    ("code", "inside", "outside"),
    [pytest.param(*row, id=f"{row[0]}-{number}") for number, row in enumerate(BOUNDARIES)],
)
def test_a_rule_holds_up_to_its_threshold(
    code: str, inside: dict[str, Any], outside: dict[str, Any]
) -> None:
    if code == "client-busy":
        assert GOOD.ended_s == 80.0
    assert code not in codes(**inside)
    assert code in codes(**outside)


@pytest.mark.parametrize(
    ("code", "load"),
    [
        ("batch-starved", with_samples(running=math.nan)),
        ("tokens-disagree", with_samples(output_tokens=math.nan)),
        ("scrape-slow", with_samples(took_s=math.nan)),
        ("client-lagged", replace(GOOD, client_lag_s=math.nan)),
        ("client-busy", replace(GOOD, client_cpu_s=math.nan)),
    ],
)
def test_what_is_no_number_keeps_no_limit(code: str, load: LoadTrace) -> None:
    assert code in codes(load)


def test_every_rule_has_a_boundary() -> None:
    assert {code for code, _, _ in BOUNDARIES} | {"answers-differ"} == set(LOAD_RULES)


FIXED = Point(model="m", batch_size=2, num_requests=6, seed=5)


def answered(point: Point = FIXED) -> LoadTrace:
    """Answers that are exactly what the point asks for."""
    requests = [
        replace(GOOD.requests[0], **vars(request), error=None) for request in point.requests()
    ]
    return replace(GOOD, requests=tuple(requests))


def altered(load: LoadTrace, **changes: Any) -> LoadTrace:
    """Change the third answer."""
    first, second, third, *rest = load.requests
    return replace(load, requests=(first, second, replace(third, **changes), *rest))


def test_answers_are_those_of_the_point() -> None:
    failed = altered(answered(), error="HTTP 500", output_tokens=0)

    assert answer_reasons(answered(), FIXED) == ()
    assert answer_reasons(failed, FIXED) == ()  # a reason of its own


@pytest.mark.parametrize(
    "load",
    [
        altered(answered(), output_tokens=answered().requests[2].output_tokens + 1),
        altered(answered(), output_tokens=2 * answered().requests[2].output_tokens),
        altered(answered(), prompt_tokens=answered().requests[2].prompt_tokens - 1),
        altered(answered(), index=3),
        replace(answered(), requests=answered().requests[:5]),
        replace(answered(), requests=(*answered().requests, answered().requests[0])),
        replace(answered(), requests=answered().requests[::-1]),
    ],
)
def test_answers_of_other_requests_are_a_reason(load: LoadTrace) -> None:
    assert [reason.code for reason in answer_reasons(load, FIXED)] == ["answers-differ"]


def test_tokens_that_client_and_server_double_alike_are_a_reason() -> None:
    double = replace(
        answered(),
        requests=tuple(
            replace(r, output_tokens=2 * r.output_tokens) for r in answered().requests
        ),
    )

    (reason,) = answer_reasons(double, FIXED)

    first = answered().requests[0]
    assert f"{2 * first.output_tokens} output tokens" in reason.text
    assert f"{first.prompt_tokens} and {first.output_tokens}." in reason.text


def test_natural_answers_end_where_the_model_ends_them() -> None:
    natural = FIXED.but(mode="natural")
    load = altered(answered(natural), output_tokens=1)

    assert answer_reasons(load, natural) == ()
    assert answer_reasons(altered(load, prompt_tokens=1), natural) != ()


def test_images_add_tokens_to_a_prompt_and_never_take_any() -> None:
    shows = FIXED.but(task="image-chat")
    prompt_tokens = answered(shows).requests[2].prompt_tokens

    more = altered(answered(shows), prompt_tokens=prompt_tokens + 256)
    fewer = altered(answered(shows), prompt_tokens=prompt_tokens - 1)

    assert answer_reasons(more, shows) == ()
    assert [reason.code for reason in answer_reasons(fewer, shows)] == ["answers-differ"]


@pytest.mark.parametrize(("edge", "num_reasons"), [("start_s", 1), ("end_s", 1)])
def test_a_window_edge_without_a_sample_near_is_a_reason(edge: str, num_reasons: int) -> None:
    at_s = getattr(WINDOW, edge)
    sparse = replace(GOOD, server=tuple(s for s in GOOD.server if abs(s.time_s - at_s) > 1.05))

    assert codes(sparse).count("scrape-slow") == num_reasons


def test_a_shorter_window_is_accepted_where_the_user_asks_for_one() -> None:
    short = Window(start_s=20, end_s=30)

    assert codes(window=short, num_ticks=100) == ["window-short"]
    assert codes(window=short, procedure=Procedure(min_window_s=20), num_ticks=100) == []
    for asked_s, num_ticks in ((20.2, 101), (20, 99)):
        procedure = Procedure(min_window_s=asked_s)
        assert codes(window=short, procedure=procedure, num_ticks=num_ticks) == ["window-short"]


@pytest.mark.parametrize(
    ("min_window_s", "least_s", "least_ticks"),
    [(60, 30, 300), (30, 30, 300), (29, 14.5, 145), (15, 7.5, 75), (0.1, 0.05, 2)],
)
def test_least_window(min_window_s: float, least_s: float, least_ticks: int) -> None:
    procedure = Procedure(min_window_s=min_window_s)

    assert procedure.least_window_s == least_s
    assert procedure.least_ticks == least_ticks


def test_the_first_failure_is_told() -> None:
    reasons = load_reasons(with_failures(2), WINDOW, PROCEDURE, num_ticks=400)

    assert reasons[0].text.startswith("2 of 40 requests failed; the first, number 0: HTTP 500")


def test_the_batch_is_weighted_by_time() -> None:
    # 4 running at 0 s and 10 s, 2 at 11 s and 12 s; an unweighted mean would be 3.
    samples = [
        replace(GOOD.server[0], time_s=time_s, running=running)
        for time_s, running in [(0, 4), (10, 4), (11, 2), (12, 2)]
    ]

    # (10 x 4 + 1 x 3 + 1 x 2) / 12
    assert mean_batch_size(samples, Window(start_s=0, end_s=20)) == pytest.approx(45 / 12)


def test_the_kv_cache_is_weighted_by_time_where_it_was_read() -> None:
    """0.9 for 10 s, then falling to 0.1 within 1 s and staying for 1 s; one did not tell it."""
    samples = [
        replace(GOOD.server[0], time_s=time_s, kv_cache_usage=usage)
        for time_s, usage in [(0, 0.9), (5, None), (10, 0.9), (11, 0.1), (12, 0.1)]
    ]

    # (10 x 0.9 + 1 x 0.5 + 1 x 0.1) / 12; an unweighted mean would be 0.5.
    found = time_weighted_mean(samples, Window(start_s=0, end_s=20), "kv_cache_usage")
    assert found == pytest.approx(9.6 / 12)


@pytest.mark.parametrize("number", [0, 1])
def test_a_window_without_two_samples_has_no_batch(number: int) -> None:
    few = replace(GOOD, server=tuple(s for s in GOOD.server if not WINDOW.holds(s.time_s)))
    inside = replace(GOOD.server[0], time_s=30.0)

    assert mean_batch_size((*few.server, *[inside] * number), WINDOW) is None
    assert mean_batch_size((inside, inside), WINDOW) is None
    reasons = load_reasons(few, WINDOW, PROCEDURE, num_ticks=400)
    assert "nothing was sampled" in next(r.text for r in reasons if r.code == "batch-starved")


def measured(joules: list[float], units: list[float]) -> WindowEnergy:
    return WindowEnergy(
        window=WINDOW,
        gpu_energy_j=(sum(joules),),
        work_units=sum(units),
        series_energy_j=tuple(joules),
        series_work_units=tuple(units),
    )


STEADY = measured([100.0] * 40, [50.0] * 40)


def quarters(*joules: float) -> WindowEnergy:
    return measured([each for each in joules for _ in range(10)], [50.0] * 40)


def notes(
    energy: WindowEnergy = STEADY, load: LoadTrace = GOOD, procedure: Procedure = PROCEDURE
) -> list[str]:
    return [note.code for note in load_notes(load, energy, procedure)]


NOTE_BOUNDARIES = [
    (
        "window-user-short",
        {"energy": replace(STEADY, window=LONG)},
        {"energy": replace(STEADY, window=replace(LONG, end_s=49.99))},
    ),
    (
        "window-drift",
        {"energy": quarters(100, 150, 50, 102)},
        {"energy": quarters(100, 1, 1, 103)},
    ),
    ("window-drift", {"energy": quarters(100, 1, 1, 98)}, {"energy": quarters(100, 1, 1, 97)}),
    ("window-drift", {}, {"energy": measured([100.0] * 8, [50.0] * 6 + [0.0] * 2)}),
    ("window-drift", {}, {"energy": measured([100.0] * 8, [0.0] * 2 + [50.0] * 6)}),
    (
        "window-drift",
        {"energy": measured([1, 2, 3], [1, 1, 1])},
        {"energy": quarters(1, 2, 3, 4)},
    ),
    ("client-counted", {}, {"load": replace(GOOD, counted_by="client")}),
    ("client-counted", {}, {"load": replace(GOOD, counted_by="both")}),
    # Six batches in the window: an error of 0.1095 / sqrt(6) / 6 = 0.75 %, and of twice that.
    (
        "batches-uneven",
        {"load": batch_load([6.0, *[5.9, 6.1] * 10])},
        {"load": batch_load([6.0, *[5.8, 6.2] * 10])},
    ),
    (
        "preempted",
        {"load": with_samples(preemptions=7)},
        {"load": with_samples(preemptions=3, time_s=lambda t: t)},
    ),
]


@pytest.mark.parametrize(
    ("code", "inside", "outside"),
    [
        pytest.param(*row, id=f"{row[0]}-{number}")
        for number, row in enumerate(NOTE_BOUNDARIES)
        if row[0] != "preempted"
    ],
)
def test_a_note_is_made_above_its_threshold(
    code: str, inside: dict[str, Any], outside: dict[str, Any]
) -> None:
    assert code not in notes(**inside)
    assert code in notes(**outside)


def test_preemptions_count_in_the_window_only() -> None:
    def rising_at(moment_s: float) -> LoadTrace:
        return replace(
            GOOD,
            server=tuple(
                replace(s, preemptions=3 * (s.time_s >= moment_s)) for s in GOOD.server
            ),
        )

    assert notes(load=rising_at(10)) == notes(load=rising_at(70)) == []
    assert notes(load=rising_at(30)) == ["preempted"]
    assert notes(load=with_samples(preemptions=None)) == []


def test_notes_of_a_quiet_window_are_none() -> None:
    assert notes() == []
    covered = {code for code, _, _ in NOTE_BOUNDARIES}
    assert covered | {"revision-unknown"} == set(LOAD_NOTES)  # that one: test_assess


def test_every_reason_ends_with_the_remedy_of_the_table() -> None:
    made = contract.reason("mig-on", "MIG is on.")

    assert made.text == f"MIG is on. {RULES['mig-on'].remedy}"
    for rule in (*RULES.values(), *NOTES.values()):
        assert rule.when[0].islower() or rule.when.startswith(("NVML", "SM"))
        assert not rule.when.endswith(".")
        assert rule.remedy[0].isupper()
        assert rule.remedy.endswith(".")


def emitted_codes(module: Any) -> set[str]:
    """Collect what looks like a code in a module's functions: words with dashes."""
    functions = [
        node
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.FunctionDef)
    ]
    return {
        node.value
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (re.fullmatch(r"[a-z]+(-[a-z]+)+", node.value) or node.value == "preempted")
    }


def test_the_tables_list_exactly_the_codes_that_are_emitted() -> None:
    assert emitted_codes(validity) == {*LOAD_RULES, *LOAD_NOTES, *POINT_NOTES}
    emitted = emitted_codes(counter) | emitted_codes(circumstances)
    assert emitted | emitted_codes(validity) | {IMPLAUSIBLE, "planted", "taken-over"} == {
        *RULES,
        *NOTES,
    }
    assert not set(RULES) & set(NOTES)
    assert emitted == {*COUNTER_RULES, *COUNTER_NOTES}
