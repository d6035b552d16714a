"""The gate: worked by hand, every case with a defined answer, and its exact properties."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from pytest_joules.gate import Decision, judge, next_launch
from pytest_joules.gate.decision import Sums, decide, estimate
from pytest_joules.gate.design import Design, looks
from pytest_joules.gate.launch_value import LaunchValue, PooledNoise
from pytest_joules.gate.launches import Launches
from pytest_joules.verdict import Verdict

HERE, THERE = ("GPU-here",), ("GPU-there",)
DESIGN = Design()

unhurried = settings(deadline=None)  # the first look at a design integrates its boundaries


def values(*logs, board=HERE, **more):
    return tuple(LaunchValue(log_energy=y, gpu_uuids=board, **more) for y in logs)


def spread_out(count, sd, mean=0.0):
    """Values with exactly this mean and sample standard deviation."""
    raw = np.arange(count) - (count - 1) / 2
    return values(*(mean + sd * raw / raw.std(ddof=1)))


STEADY = spread_out(8, 0.005)


def test_an_estimate_worked_by_hand():
    """nu = 1 + 3 + 1 = 5; s2 = (1 + 8 + 2)e-4 / 5 = 2.2e-4; V = 1.1e-4 + 8e-5."""
    sums = Sums(
        num_baseline=4,
        num_old=0,
        num_new=2,
        mean_new=0.04,
        squares_baseline=8e-4,
        squares_new=2e-4,
    )

    seen = estimate(sums, Design(prior_sd=0.01, prior_df=1.0, session_sd=0.005))

    assert seen.df == 5
    assert seen.launch_variance == pytest.approx(2.2e-4)
    assert seen.change == pytest.approx(0.04)
    assert seen.variance == pytest.approx(1.9e-4)
    assert seen.cautious_variance == seen.variance


def test_an_old_stack_beside_the_baseline_worked_by_hand():
    """s2 = 13e-4 / 6; weights 1 / (s2/4 + 2.5e-5) = 12631.58 and 2 / s2 = 9230.77."""
    sums = Sums(
        num_baseline=4,
        num_old=2,
        num_new=2,
        mean_old=0.02,
        mean_new=0.04,
        squares_baseline=8e-4,
        squares_old=2e-4,
        squares_new=2e-4,
    )

    seen = estimate(sums, Design(prior_sd=0.01, prior_df=1.0, session_sd=0.005))

    assert seen.df == 6
    assert seen.change == pytest.approx(0.04 - 9230.77 * 0.02 / 21862.35, rel=1e-6)
    assert seen.variance == pytest.approx(13e-4 / 12 + 1 / 21862.35, rel=1e-6)


def test_noise_that_grew_between_launches_must_be_overcome_by_a_change():
    """Own variance 18e-4 on one df against a pool of (1e-4 + 8e-4 + 18e-4) / 5."""
    sums = Sums(num_baseline=4, num_old=0, num_new=2, squares_baseline=8e-4, squares_new=18e-4)
    design = Design(prior_sd=0.01, prior_df=1.0, session_sd=0.005)

    seen = estimate(sums, design)

    assert seen.launch_variance == pytest.approx(5.4e-4)
    assert seen.cautious_variance == pytest.approx(9e-4 + 18e-4 / 4 + 2.5e-5)


def test_noise_of_other_points_of_the_session_counts_for_growth():
    quiet = Sums(num_baseline=4, num_old=0, num_new=1, squares_baseline=8e-4)
    design = Design(prior_sd=0.01, prior_df=1.0)

    calm = estimate(quiet, design)
    loud = estimate(replace(quiet, squares_elsewhere=1e-2, df_elsewhere=5.0), design)

    assert loud.variance == calm.variance
    assert loud.cautious_variance > 4 * calm.cautious_variance


def test_a_spread_twice_as_wide_doubles_the_noise():
    sums = Sums(num_baseline=4, num_old=0, num_new=1, squares_baseline=8e-4)

    before = estimate(sums, DESIGN)
    after = estimate(replace(sums, spread_ratio=2.0), DESIGN)

    assert after.launch_variance == pytest.approx(4 * before.launch_variance)


def test_a_first_launch_decides_by_the_t_quantile():
    """One launch, baseline of 8: the bound on the change is delta - t sqrt(V)."""
    look = looks(DESIGN, 8, has_old=True)[0]
    sums = Sums(num_baseline=8, num_old=0, num_new=1, squares_baseline=7 * 2.5e-5)
    seen = estimate(sums, DESIGN)
    bound = DESIGN.delta - student.isf(look.p_unchanged, seen.df) * math.sqrt(seen.variance)

    below, above = (
        judge(Launches(baseline=STEADY, new=values(bound + d), has_old=True), DESIGN)
        for d in (-1e-9, 1e-9)
    )

    assert below.verdict is Verdict.UNCHANGED
    assert below.high == pytest.approx(DESIGN.tolerance, abs=1e-8)
    assert above.verdict is None
    assert above.next_stack == "B"


assert DESIGN.max_launches == 24, "the cases below spend exactly this budget"
SURE = values(0.10, 0.101)
DEFINED = [
    pytest.param({"baseline": STEADY, "new": values(0.0)}, Verdict.UNCHANGED, None, id="same"),
    pytest.param({"baseline": STEADY, "new": SURE}, Verdict.REGRESSION, None, id="rise"),
    pytest.param(
        {"baseline": STEADY, "new": values(-0.10, -0.101)},
        Verdict.IMPROVEMENT,
        None,
        id="fall",
    ),
    pytest.param({"baseline": STEADY, "new": values(0.10)}, None, "B", id="red-needs-a-second"),
    pytest.param({"baseline": STEADY, "new": values(-0.10)}, None, "B", id="so-does-a-fall"),
    pytest.param({"baseline": STEADY}, None, "B", id="nothing-launched"),
    pytest.param({"has_old": True}, None, "A", id="side-by-side-starts-old"),
    pytest.param({}, Verdict.INCONCLUSIVE, None, id="nothing-to-compare-with"),
    pytest.param({"new": SURE}, Verdict.INCONCLUSIVE, None, id="no-reference"),
    pytest.param(
        {"baseline": values(0.0), "new": values(0.0), "has_old": True},
        None,
        "A",
        id="baseline-of-one-launch",
    ),
    pytest.param(
        {"baseline": values(0.0), "new": values(*[0.012, 0.018] * 12)},
        Verdict.INCONCLUSIVE,
        None,
        id="baseline-of-one-launch-and-no-old-stack",
    ),
    pytest.param(
        {"baseline": values(*[0.0] * 8), "new": values(0.0)},
        Verdict.UNCHANGED,
        None,
        id="zero-variance",
    ),
    pytest.param(
        {"baseline": values(*[0.0] * 8), "new": values(0.1, 0.1)},
        Verdict.REGRESSION,
        None,
        id="zero-variance-and-a-rise",
    ),
    pytest.param(
        {"baseline": STEADY, "new": values(math.nan)}, Verdict.INVALID, None, id="nan"
    ),
    pytest.param(
        {"baseline": STEADY, "new": values(math.inf)}, Verdict.INVALID, None, id="infinite"
    ),
    pytest.param(
        {"baseline": values(math.nan), "new": values(0.0)},
        Verdict.INVALID,
        None,
        id="nan-in-the-baseline",
    ),
    pytest.param(
        {"baseline": STEADY, "new": values(0.0, is_valid=False)},
        Verdict.INVALID,
        None,
        id="contract-broken",
    ),
    pytest.param(
        {"baseline": STEADY, "new": (*values(0.0), *values(0.0, board=THERE))},
        Verdict.INVALID,
        None,
        id="split-over-boards",
    ),
    pytest.param(
        {"baseline": STEADY, "new": values(0.0, board=THERE)},
        Verdict.INCONCLUSIVE,
        None,
        id="other-gpu-and-no-old-stack",
    ),
    pytest.param(
        {"baseline": STEADY, "new": values(0.0, board=THERE), "has_old": True},
        None,
        "A",
        id="other-gpu",
    ),
    pytest.param(
        {"baseline": STEADY, "has_old": True, "gpu_uuids": THERE},
        None,
        "A",
        id="other-gpu-known-before",
    ),
    pytest.param(
        {"baseline": STEADY, "new": values(0.0, clipped_share=0.3)},
        None,
        "B",
        id="disturbed-is-repeated",
    ),
    pytest.param(
        {"baseline": STEADY, "new": values(*[0.0] * 5, clipped_share=0.3)},
        Verdict.INCONCLUSIVE,
        None,
        id="disturbed-again-and-again",
    ),
    pytest.param(
        {"baseline": spread_out(8, 0.05), "new": spread_out(24, 0.05, 0.015)},
        Verdict.INCONCLUSIVE,
        None,
        id="budget-spent",
    ),
]


@pytest.mark.parametrize(("given_launches", "verdict", "following"), DEFINED)
def test_every_case_has_its_answer(given_launches, verdict, following):
    decision = judge(Launches(**given_launches), DESIGN)

    assert (decision.verdict, decision.next_stack) == (verdict, following)


@pytest.mark.parametrize(
    ("given_launches", "code"),
    [
        ({"baseline": STEADY, "new": values(0.0, board=THERE), "has_old": True}, "other-gpu"),
        ({"baseline": values(0.0), "new": values(0.0)}, "small-baseline"),
        ({"baseline": STEADY, "new": values(0.0, from_mean=True)}, "from-mean"),
        ({}, "nothing-to-compare"),
        ({"new": values(math.nan)}, "launch-unusable"),
        ({"new": (*SURE, *values(0.0, board=THERE))}, "boards-differ"),
        (
            {"old": values(0.0, power_limit_w=700.0), "new": values(0.0, power_limit_w=500.0)},
            "settings-differ",
        ),
        ({"baseline": values(0.0, mig=False), "new": values(0.0, mig=True)}, "settings-differ"),
        ({"baseline": STEADY, "new": values(*[0.0] * 5, clipped_share=0.3)}, "too-disturbed"),
        (
            {
                "baseline": tuple(replace(v, spread=0.01) for v in STEADY),
                "new": values(0.0, spread=0.02),
            },
            "noise-grown",
        ),
    ],
)
def test_what_a_reader_must_know_is_noted(given_launches, code):
    assert code in [note.code for note in judge(Launches(**given_launches), DESIGN).notes]


def test_the_note_on_a_small_baseline_says_how_many_are_needed():
    """From three stored launches on, new ones come first: with two, the old stack is asked."""
    two, three = (
        judge(Launches(baseline=values(*[0.0] * n), new=values(0.0), has_old=True), DESIGN)
        for n in (2, 3)
    )

    assert (two.next_stack, three.next_stack) == ("A", "B")
    (note,) = two.notes
    assert note.text == (
        "the baseline holds 2 launch(es) of this GPU; more than 2 are needed to start from "
        "it, better 8."
    )
    assert three.notes == ()


def test_a_rise_must_overcome_the_noise_of_the_whole_session():
    """+5 % is red, unless the session's other points vary by 5 % from launch to launch."""
    seen = Launches(baseline=STEADY, new=values(0.05, 0.051), has_old=True)
    loud = PooledNoise(sum_squares=10 * 0.05**2, df=10.0)

    assert judge(seen, DESIGN).verdict is Verdict.REGRESSION
    assert judge(replace(seen, elsewhere=loud), DESIGN).verdict is None


def test_noise_beyond_all_numbers_leaves_the_interval_open():
    """As of a series in which one reading is 1e31 J: such a file was found by fuzzing."""
    calm = tuple(replace(value, spread=0.01) for value in STEADY)

    decision = judge(Launches(baseline=calm, new=values(0.05, spread=1e6)), DESIGN)

    assert decision.verdict not in {Verdict.REGRESSION, Verdict.IMPROVEMENT, Verdict.UNCHANGED}
    assert (decision.low, decision.high) == (-1.0, math.inf)
    assert decision.change == pytest.approx(math.expm1(0.05))


def test_drift_cancels_in_pairs():
    """A launch 0.2 % dearer than the one before, in the order ABBA: no change at all."""
    y = [0.002 * i for i in range(8)]
    seen = Launches(old=values(y[0], y[3], y[4], y[7]), new=values(y[1], y[2], y[5], y[6]))

    assert judge(seen, DESIGN).change == pytest.approx(0.0, abs=1e-15)


def test_the_launches_follow_the_order_one_by_one():
    design = Design(max_launches=8)
    seen, taken = Launches(baseline=STEADY, has_old=True), ""
    while stack := next_launch(seen, design):
        taken += stack
        name = {"A": "old", "B": "new"}[stack]
        seen = replace(seen, **{name: (*getattr(seen, name), *values(0.0))})

    assert taken == "BBBBABAB"


def test_a_change_proven_small_is_unchanged_however_sure():
    """+1 % seen without doubt is no regression at a tolerance of 3 %."""
    design = Design(prior_sd=1e-4, prior_df=100.0, session_sd=1e-4)
    seen = Launches(baseline=values(*[0.0] * 8), new=values(0.01, 0.01))

    decision = judge(seen, design)

    assert decision.verdict is Verdict.UNCHANGED
    assert decision.low > 0


logs = st.floats(-0.2, 0.2)
groups = st.lists(logs, min_size=0, max_size=10)


@unhurried
@given(st.tuples(groups, groups, st.lists(logs, min_size=1, max_size=12)), st.floats(-3.0, 3.0))
def test_scaling_every_launch_leaves_the_change(drawn, shift):
    baseline, old, new = drawn

    def at(offset):
        return judge(
            Launches(
                baseline=values(*(y + offset for y in baseline)),
                old=values(*(y + offset for y in old)),
                new=values(*(y + offset for y in new)),
            ),
            DESIGN,
        )

    here, there = at(0.0), at(shift)

    assert there.change == pytest.approx(here.change, abs=1e-9, nan_ok=True)
    assert there.high == pytest.approx(here.high, abs=1e-9, nan_ok=True)
    assert (there.num_old, there.num_new) == (here.num_old, here.num_new)


@unhurried
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(*[st.lists(logs, min_size=n, max_size=n)] * 2)
    )
)
def test_a_against_b_is_b_against_a_reversed(pairs):
    a, b = (values(*ys) for ys in pairs)

    there, back = judge(Launches(old=a, new=b), DESIGN), judge(Launches(old=b, new=a), DESIGN)

    assert 1 + back.change == pytest.approx(1 / (1 + there.change))
    assert 1 + back.low == pytest.approx(1 / (1 + there.high))
    assert 1 + back.high == pytest.approx(1 / (1 + there.low))
    mirrored = {
        Verdict.REGRESSION: Verdict.IMPROVEMENT,
        Verdict.IMPROVEMENT: Verdict.REGRESSION,
    }
    if there.verdict in mirrored:
        assert back.verdict is mirrored[there.verdict]
    else:
        assert back.verdict not in mirrored


_RANK = {Verdict.IMPROVEMENT: 0, Verdict.UNCHANGED: 1, Verdict.REGRESSION: 2}


calm = st.floats(-0.01, 0.01)


@unhurried
@given(
    st.tuples(
        st.lists(calm, min_size=3, max_size=10),
        st.lists(calm, max_size=4),
        st.lists(calm, min_size=2, max_size=12),
    ),
    st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
)
def test_more_energy_never_makes_the_verdict_better(drawn, changes):
    baseline, old, new = drawn

    def verdict(change):
        seen = Launches(
            baseline=values(*baseline),
            old=values(*old),
            new=values(*(y + change for y in new)),
        )
        return judge(seen, DESIGN).verdict

    before, after = (verdict(change) for change in sorted(changes))

    if before in _RANK and after in _RANK:
        assert _RANK[after] >= _RANK[before]


@unhurried
@given(groups, groups, st.lists(logs, min_size=1, max_size=12))
def test_the_verdict_is_a_function_of_what_is_stored(baseline, old, new):
    def once():
        return judge(
            Launches(baseline=values(*baseline), old=values(*old), new=values(*new)), DESIGN
        )

    assert repr(once()) == repr(once())


@unhurried
@given(groups, st.lists(logs, min_size=1, max_size=12))
def test_the_interval_agrees_with_the_verdict(baseline, new):
    decision = judge(Launches(baseline=values(*baseline), new=values(*new)), DESIGN)

    if math.isnan(decision.change):
        assert not baseline
        return
    assert decision.low <= decision.change <= decision.high
    if decision.verdict is Verdict.UNCHANGED:
        assert decision.high <= DESIGN.tolerance + 1e-12
    if decision.verdict is Verdict.REGRESSION:
        assert decision.low > 0
        assert decision.high > DESIGN.tolerance


def test_arrays_are_judged_as_single_comparisons_are():
    rng = np.random.default_rng(11)
    new = rng.normal(0.015, 0.02, (200, 3))
    sums = Sums(
        num_baseline=8,
        num_old=0,
        num_new=3,
        mean_new=new.mean(axis=1),
        squares_baseline=7 * 0.005**2,
        squares_new=new.var(axis=1) * 3,
    )
    claims = decide(estimate(sums, DESIGN), looks(DESIGN, 8, has_old=False)[2], DESIGN)

    one_by_one = [
        judge(Launches(baseline=STEADY, new=values(*row)), DESIGN).verdict for row in new
    ]

    assert [v is Verdict.REGRESSION for v in one_by_one] == claims.regression.tolist()
    assert [v is Verdict.UNCHANGED for v in one_by_one] == claims.unchanged.tolist()
    assert {Verdict.REGRESSION, Verdict.UNCHANGED, None} <= set(one_by_one)


def run(rng, change, sd=0.013):
    """Launch until the verdict, with normal noise between launches."""
    seen = Launches(
        baseline=values(*rng.normal(0.0, sd, 8)), has_old=True, elsewhere=PooledNoise()
    )
    while (decision := judge(seen, DESIGN)).verdict is None:
        is_new = decision.next_stack == "B"
        fresh = values(rng.normal(math.log1p(change) if is_new else 0.0, sd))
        seen = replace(
            seen,
            old=seen.old if is_new else (*seen.old, *fresh),
            new=(*seen.new, *fresh) if is_new else seen.new,
        )
    return decision


@pytest.mark.parametrize(
    ("change", "wrong"), [(0.0, Verdict.REGRESSION), (0.03, Verdict.UNCHANGED)]
)
def test_stated_errors_hold_at_the_moment_of_stopping(change, wrong):
    """Limits are the stated rates plus three standard errors of 250 trials."""
    trials = 250
    rng = np.random.default_rng(3)

    decisions: list[Decision] = [run(rng, change) for _ in range(trials)]

    allowed = DESIGN.alpha if wrong is Verdict.REGRESSION else DESIGN.beta
    limit = allowed + 3 * math.sqrt(allowed * (1 - allowed) / trials)
    assert sum(d.verdict is wrong for d in decisions) / trials <= limit
    outside = sum(not d.low <= change <= d.high for d in decisions) / trials
    assert outside <= 2 * DESIGN.beta + 3 * math.sqrt(2 * DESIGN.beta / trials)
