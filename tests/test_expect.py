import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_joules import expect
from pytest_joules.errors import (
    Incomparable,
    Inconclusive,
    InvalidMeasurement,
    NoneQualifies,
    NotMeasured,
    OrderingFailed,
)
from pytest_joules.expect.terms import Given, Terms
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Reason, Result
from tests.fakes.results import make_evidence, make_result

BATCHES = (8, 16, 32, 64, 128)


def sweep(energies: Sequence[float], **changes: Any) -> list[Result]:
    """One result for each of the first batch sizes."""
    return [
        make_result(energy, batch_size=batch, source="recorded", **changes)
        for batch, energy in zip(BATCHES, energies, strict=False)
    ]


def launches(energies: Sequence[float], **changes: Any) -> list[Result]:
    """One result a launch, all of the same point."""
    return [
        make_result(energy, evidence=make_evidence(launch_id=f"{id(energies)}-{i}"), **changes)
        for i, energy in enumerate(energies)
    ]


def outcome(expectation: Any, *args: Any, **terms: Any) -> str:
    """Name what an expectation did."""
    try:
        expectation(*args, **terms)
    except OrderingFailed:
        return "fails"
    except Inconclusive:
        return "inconclusive"
    return "holds"


class TestLower:
    @pytest.mark.parametrize(
        ("a", "margin", "expected"),
        [
            pytest.param(0.99, 0.0, "holds", id="just-below"),
            pytest.param(1.0, 0.0, "fails", id="tie"),
            pytest.param(1.01, 0.0, "fails", id="above"),
            pytest.param(0.5, 0.5, "fails", id="by-exactly-the-margin"),
            pytest.param(0.49, 0.5, "holds", id="by-more-than-the-margin"),
            pytest.param(0.51, 0.5, "fails", id="by-less-than-the-margin"),
        ],
    )
    def test_one_pair(self, a: float, margin: float, expected: str) -> None:
        ours = make_result(a, source="recorded")
        theirs = make_result(1.0, source="recorded")

        assert outcome(expect.lower, ours, theirs, margin=margin) == expected

    @pytest.mark.parametrize(
        ("at_least", "expected"),
        [
            (None, "fails"),
            (5, "fails"),
            (4, "fails"),
            (3, "holds"),
            (1, "holds"),
            (0.6, "holds"),
            (0.61, "fails"),
            (1.0, "fails"),
        ],
    )
    def test_k_of_n_with_three_wins_of_five(self, at_least: float, expected: str) -> None:
        a, b = sweep([0.9, 0.9, 0.9, 1.1, 1.1]), sweep([1] * 5)

        assert outcome(expect.lower, a, b, at_least=at_least) == expected

    def test_the_ordering_holds_every_pair(self) -> None:
        found = expect.lower(sweep([0.8, 1.1]), sweep([1, 1]), at_least=1)

        assert (found.wins, found.losses, found.undecided, found.num) == (1, 1, 0, 2)
        assert [trial.key for trial in found.trials] == ["8", "16"]
        assert [trial.change for trial in found.trials] == pytest.approx([-0.2, 0.1])

    def test_an_ordering_that_holds_is_described_by_its_count(self) -> None:
        found = expect.lower(sweep([0.8, 0.9]), sweep([1, 1]), except_for=[8], margin=0.05)

        assert found.describe() == (
            "energy_per_work_unit_j of a lower than b (margin 0.05): "
            "1 of 1 hold, 1 needed, 1 excepted."
        )

    def test_a_failure_shows_the_offending_pairs_only(self) -> None:
        fp8 = sweep([0.290, 0.215, 0.160], precision="fp8")
        bf16 = sweep([0.250, 0.209, 0.180])

        with pytest.raises(OrderingFailed) as failure:
            expect.lower(fp8, bf16)

        assert str(failure.value).splitlines() == [
            "energy_per_work_unit_j of fp8 lower than bf16: 1 of 3 hold, 3 needed.",
            "  batch_size           fp8          bf16   change",
            "  8           290 mJ/token  250 mJ/token  +16.0 %  fails",
            "  16          215 mJ/token  209 mJ/token   +2.9 %  fails",
        ]
        assert failure.value.ordering.losses == 2

    def test_a_long_table_is_cut_and_says_so(self) -> None:
        a = {f"model {i}": make_result(2.0) for i in range(15)}
        b = {f"model {i}": make_result(1.0) for i in range(15)}

        with pytest.raises(OrderingFailed) as failure:
            expect.lower(a, b)

        lines = str(failure.value).splitlines()
        assert len(lines) == 1 + 1 + 12 + 1
        assert lines[-1] == "  ... and 3 more"

    def test_named_exceptions_do_not_count(self) -> None:
        found = expect.lower(sweep([1.3, 0.9, 0.9]), sweep([1, 1, 1]), except_for=[8])

        assert (found.wins, found.num, len(found.exceptions)) == (2, 2, 1)

    @pytest.mark.parametrize("named", ["Coder", ("Coder", 16)])
    def test_exceptions_of_a_population(self, named: object) -> None:
        a = {"Coder": sweep([0.9, 1.2]), "Qwen": sweep([0.9, 0.9])}
        b = {"Coder": sweep([1, 1]), "Qwen": sweep([1, 1])}

        assert outcome(expect.lower, a, b) == "fails"
        assert outcome(expect.lower, a, b, except_for=[named]) == "holds"

    def test_an_exception_that_names_nothing_is_an_error(self) -> None:
        with pytest.raises(Incomparable, match=r"except_for names 7, .* known are 16, 8\."):
            expect.lower(sweep([0.9, 0.9]), sweep([1, 1]), except_for=[7])

    def test_all_excepted_is_an_error_and_no_pass(self) -> None:
        with pytest.raises(Incomparable, match="at_least=None of 0"):
            expect.lower(sweep([0.9]), sweep([1]), except_for=[8])

    def test_populations_pool_their_pairs(self) -> None:
        a = {"x": sweep([0.9, 0.9]), "y": sweep([1.1])}
        b = {"x": sweep([1, 1]), "y": sweep([1])}

        assert outcome(expect.lower, a, b, at_least=2, of=3) == "holds"
        assert outcome(expect.lower, a, b, at_least=3) == "fails"

    def test_other_quantities_and_keys(self) -> None:
        a = [make_result(9, num_gpus=n, median_itl_s=0.01) for n in (1, 2)]
        b = [make_result(1, num_gpus=n, median_itl_s=0.02) for n in (1, 2)]

        assert outcome(expect.lower, a, b, by="num_gpus", quantity="median_itl_s") == "holds"

    def test_two_single_results_need_no_common_batch(self) -> None:
        largest, smallest = make_result(0.2, batch_size=256), make_result(1.0, batch_size=8)

        assert outcome(expect.lower, largest, smallest) == "holds"

    def test_sweeps_of_one_do_need_it(self) -> None:
        largest, smallest = make_result(0.2, batch_size=256), make_result(1.0, batch_size=8)

        with pytest.raises(Incomparable, match=r"batch_size=8; batch_size=256"):
            expect.lower([largest], [smallest])
        with pytest.raises(Incomparable, match=r"m: only one side holds"):
            expect.lower({"m": [largest]}, {"m": [smallest]})


class TestWhatCannotBeCompared:
    def test_nothing_is_an_error(self) -> None:
        for a, b in (([], []), ([], sweep([1])), ({}, {}), ({"m": []}, {"m": []})):
            with pytest.raises(Incomparable, match="nothing was measured"):
                expect.lower(a, b)

    def test_unmatched_pairs_are_named(self) -> None:
        with pytest.raises(Incomparable, match=r"only one side holds batch_size=32.*common"):
            expect.lower(sweep([1, 1, 1]), sweep([2, 2]))

    def test_unmatched_members_are_named(self) -> None:
        with pytest.raises(Incomparable, match="only one side is a mapping"):
            expect.lower({"x": sweep([1])}, sweep([1]))
        with pytest.raises(Incomparable, match=r"only one side holds 'y'"):
            expect.lower({"x": sweep([1])}, {"x": sweep([2]), "y": sweep([2])})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"gpu": "h100"}, "mix gpu b200, h100"),
            ({"task": "problem-solving"}, "mix task problem-solving, text-conversation"),
            ({"source": "live"}, "mix source live, recorded"),
        ],
    )
    def test_what_must_agree(self, change: dict[str, Any], message: str) -> None:
        name = next(iter(change))
        other = make_result(1.0, **{"batch_size": 16, "source": "recorded", **change})
        one = sweep([0.9])[0]

        with pytest.raises(Incomparable, match=f"{message}: compare one at a time"):
            expect.lower([one, other], sweep([1, 1]))
        with pytest.raises(Incomparable, match=f"{message}: pass across='{name}'"):
            expect.lower(one, other)
        assert outcome(expect.lower, one, other, across=name) == "holds"

    def test_equal_gpus_with_other_power_limits(self) -> None:
        def limited(power_limit_w: float | None) -> Provenance:
            identity = Identity(gpu_model="B200", num_gpus=1, power_limit_w=power_limit_w)
            return Provenance(identity=identity, context=Context())

        full, capped = (make_result(1.0, provenance=limited(w)) for w in (1000.0, 700.0))
        silent = make_result(2.0, provenance=limited(None))

        with pytest.raises(Incomparable, match=r"mix power_limit_w 1000.0, 700.0"):
            expect.lower(capped, full)
        assert outcome(expect.lower, capped, silent) == "holds"

    def test_different_points_under_one_key(self) -> None:
        mixed = [make_result(1.0, precision=p) for p in ("bf16", "fp8")]

        with pytest.raises(
            Incomparable, match=r"Point\(.*precision='fp8'\) share batch_size=1"
        ):
            expect.lower(mixed, mixed)
        swept = [r.but(energy_per_work_unit_j=2.0) for r in mixed]
        assert outcome(expect.lower, mixed, swept, by=("batch_size", "precision")) == "holds"

    @pytest.mark.parametrize(
        ("achieved", "verdict"),
        [(85.0, "holds"), (84.9, "refused"), (100.0, "holds"), (None, "refused")],
    )
    def test_the_achieved_batch(self, achieved: float | None, verdict: str) -> None:
        a = make_result(0.5, batch_size=100, mean_batch_size=achieved)
        b = make_result(1.0, batch_size=100)

        if verdict == "holds":
            assert outcome(expect.lower, a, b) == "holds"
            return
        for sides in ((a, b), (b, a)):
            with pytest.raises(InvalidMeasurement, match="asked were 100"):
                expect.lower(*sides)

    def test_diffusion_has_no_achieved_batch_to_ask_for(self) -> None:
        shape = {"model": "black-forest-labs/FLUX.1-dev", "task": "text-to-image"}
        a, b = (make_result(e, mean_batch_size=None, **shape) for e in (1, 2))

        assert outcome(expect.lower, a, b) == "holds"

    def test_a_broken_measurement_is_named_with_its_reason(self) -> None:
        broken = make_result(0.5).but(reasons=(Reason(code="frozen", text="stood still"),))

        with pytest.raises(InvalidMeasurement, match=r"is invalid.*stood still"):
            expect.lower(broken, make_result(1.0))

    @pytest.mark.parametrize("energy", [0.0, -1.0, math.nan, math.inf])
    def test_energies_without_a_ratio(self, energy: float) -> None:
        with pytest.raises(InvalidMeasurement, match="is no positive number"):
            expect.lower(make_result(energy), make_result(1.0))

    @pytest.mark.parametrize(
        ("terms", "message"),
        [
            ({"margin": -0.1}, "margin=-0.1"),
            ({"margin": 1.0}, "margin=1.0"),
            ({"noise": -1}, "noise=-1"),
            ({"at_least": 0}, "at_least=0 of 1"),
            ({"at_least": 2}, "at_least=2 of 1"),
            ({"at_least": True}, "at_least=True"),
            ({"of": 2}, r"1 were compared, expected were of=2"),
            ({"except_for": "8"}, "except_for='8'"),
            ({"quantity": "energy_per_tokens"}, "did you mean energy_per_token_j"),
            ({"quantity": "zzz"}, "no quantity 'zzz'; known are batch_latency_s, batch_size, "),
        ],
    )
    def test_terms_that_make_no_sense(self, terms: Given, message: str) -> None:
        with pytest.raises(Incomparable, match=message):
            expect.lower(make_result(0.5), make_result(1.0), **terms)

    def test_a_quantity_that_was_not_measured(self) -> None:
        with pytest.raises(NotMeasured, match="median_itl_s is not in this live result"):
            expect.lower(make_result(1), make_result(2), quantity="median_itl_s")

    def test_keywords_and_terms_are_the_same(self) -> None:
        assert set(Given.__annotations__) == set(Terms.__dataclass_fields__)


class TestNoise:
    """By hand: one launch each, assumed 1.5 % a launch, t(0.95; 4) = 2.132.

    Half-width of the ratio's logarithm: 2.132 x sqrt(2) x 0.015 = 0.04522.
    """

    @pytest.mark.parametrize(
        ("a", "expected"),
        [
            pytest.param(math.exp(-0.0453), "holds", id="beyond-the-noise"),
            pytest.param(math.exp(-0.0451), "inconclusive", id="within-below"),
            pytest.param(1.0, "inconclusive", id="equal"),
            pytest.param(math.exp(0.0451), "inconclusive", id="within-above"),
            pytest.param(math.exp(0.0453), "fails", id="above-the-noise"),
        ],
    )
    def test_single_launches(self, a: float, expected: str) -> None:
        assert outcome(expect.lower, launches([a]), launches([1.0])) == expected

    def test_published_results_are_decided_by_sign(self) -> None:
        a, b = (make_result(e, source="recorded") for e in (0.999, 1.0))

        assert outcome(expect.lower, a, b) == "holds"
        assert outcome(expect.lower, b, a) == "fails"

    @pytest.mark.parametrize(
        ("a", "expected"),
        # 1.645 x sqrt(2) x 0.01 = 0.02326
        [(math.exp(-0.0234), "holds"), (math.exp(-0.0231), "inconclusive")],
    )
    def test_noise_given_by_hand_holds_for_published_results_too(
        self, a: float, expected: str
    ) -> None:
        ours, theirs = (make_result(e, source="recorded") for e in (a, 1.0))

        assert outcome(expect.lower, ours, theirs, noise=0.01) == expected

    def test_quiet_launches_narrow_it(self) -> None:
        """Nine equal launches each: variance 4/20 of the assumed, t(0.95; 20) = 1.725.

        1.725 x sqrt(2/9) x 0.015 x sqrt(0.2) = 0.00545.
        """
        for log_ratio, expected in ((-0.0056, "holds"), (-0.0053, "inconclusive")):
            a, b = launches([math.exp(log_ratio)] * 9), launches([1.0] * 9)
            assert outcome(expect.lower, a, b) == expected

    def test_restless_launches_widen_it(self) -> None:
        restless = [0.8, 1.2] * 4
        assert outcome(expect.lower, launches([0.9] * 8), launches([1.0] * 8)) == "holds"
        assert outcome(expect.lower, launches([0.9] * 8), launches(restless)) == "inconclusive"

    def test_points_of_one_launch_are_no_second_launch(self) -> None:
        once = make_result(math.exp(-0.044), evidence=make_evidence(launch_id="same"))

        assert outcome(expect.lower, [once] * 50, launches([1.0])) == "inconclusive"

    def test_a_restless_window_widens_it(self) -> None:
        """Seven runs of seven seconds, 20 % up and down in turn.

        Their standard error is 21.4 % / sqrt(7) = 8.1 %, and 2.132 times it exceeds
        -ln(0.9) = 10.5 %. Taken as 49 independent seconds it would be 20 % / 7 = 2.9 %, and
        would not.
        """
        series = tuple(80.0 if i // 7 % 2 else 120.0 for i in range(49))
        restless = make_evidence(series_energy_j=series, series_work_units=(100.0,) * 49)
        a = make_result(0.9, evidence=restless)
        steady = make_result(0.9, evidence=make_evidence())

        assert outcome(expect.lower, steady, launches([1.0])) == "holds"
        assert outcome(expect.lower, a, launches([1.0])) == "inconclusive"

    def test_k_of_n_is_decided_as_soon_as_noise_no_longer_matters(self) -> None:
        def side(*energies: float) -> list[Result]:
            return [
                make_result(e, batch_size=b, evidence=make_evidence(launch_id=f"{e}{b}"))
                for e, b in zip(energies, BATCHES, strict=False)
            ]

        a, b = side(0.5, 0.5, 1.0), side(1.0, 1.0, 1.0)
        assert outcome(expect.lower, a, b, at_least=2) == "holds"
        assert outcome(expect.lower, a, b) == "inconclusive"
        assert outcome(expect.lower, side(2.0, 0.5, 1.0), b) == "fails"

    def test_an_inconclusive_answer_says_the_noise_and_what_to_do(self) -> None:
        with pytest.raises(Inconclusive) as unclear:
            expect.lower(launches([0.99]), launches([1.0]))

        text = str(unclear.value)
        assert "0 of 1 hold, 1 needed, 1 within noise." in text
        assert "+/- 4.6 %" in text  # exp(0.04522) - 1
        assert "Measure more launches" in text
        assert unclear.value.ordering.undecided == 1


def test_higher_is_lower_the_other_way_round() -> None:
    fast, slow = (
        make_result(1, throughput_work_units_per_s=t, source="recorded") for t in (110.0, 100.0)
    )
    quantity = "throughput_work_units_per_s"

    assert outcome(expect.higher, fast, slow, quantity=quantity) == "holds"
    assert outcome(expect.higher, slow, fast, quantity=quantity) == "fails"
    assert outcome(expect.higher, fast, fast, quantity=quantity) == "fails"
    assert outcome(expect.higher, fast, slow, quantity=quantity, margin=0.09) == "holds"
    assert outcome(expect.higher, fast, slow, quantity=quantity, margin=0.11) == "fails"


@pytest.mark.parametrize(
    ("a", "expected"),
    [(3.0, "holds"), (5.0, "holds"), (2.999, "fails"), (5.001, "fails"), (4.0, "holds")],
)
def test_ratio_includes_its_bounds(a: float, expected: str) -> None:
    sides = (make_result(e, source="recorded") for e in (a, 1.0))

    assert outcome(expect.ratio, *sides, low=3, high=5) == expected


def test_ratio_needs_room_for_the_noise() -> None:
    for energy, expected in ((4.0, "holds"), (3.05, "inconclusive"), (2.0, "fails")):
        sides = (launches([energy]), launches([1.0]))
        assert outcome(expect.ratio, *sides, low=3, high=5) == expected
    with pytest.raises(Incomparable, match="0 < low <= high"):
        expect.ratio(make_result(1), make_result(1), low=2, high=1)


class TestWinRate:
    def test_of_sides_and_of_pairs(self) -> None:
        a, b = sweep([0.9, 0.9, 1.1]), sweep([1, 1, 1])
        chosen = list(zip(a, b, strict=True))

        assert outcome(expect.win_rate, a, b, at_least=2, of=3) == "holds"
        assert outcome(expect.win_rate, chosen, at_least=2, of=3) == "holds"
        assert outcome(expect.win_rate, chosen, at_least=0.67, of=3) == "fails"

    def test_pairs_may_differ_in_batch_and_in_gpu_if_asked(self) -> None:
        pair = (make_result(1, batch_size=512), make_result(2, batch_size=64, gpu="h100"))

        assert outcome(expect.win_rate, [pair], at_least=1, of=1, across="gpu") == "holds"

    def test_a_comparison_that_went_missing_is_an_error(self) -> None:
        with pytest.raises(Incomparable, match="2 were compared, expected were of=3"):
            expect.win_rate(sweep([0.9, 0.9]), sweep([1, 1]), at_least=2, of=3)

    def test_a_comparison_too_many_is_an_error(self) -> None:
        with pytest.raises(Incomparable, match="2 were compared, expected were of=1"):
            expect.win_rate(sweep([0.9, 0.9]), sweep([1, 1]), at_least=1, of=1)

    def test_both_numbers_are_needed_and_pairs_are_pairs(self) -> None:
        with pytest.raises(Incomparable, match="needs at_least= and of="):
            expect.win_rate(sweep([0.9]), sweep([1]), at_least=1)
        with pytest.raises(Incomparable, match="is no pair"):
            expect.win_rate(sweep([0.9]), at_least=1, of=1)
        with pytest.raises(Incomparable, match="population is empty"):
            expect.win_rate([], at_least=1, of=1)


class TestMonotone:
    @pytest.mark.parametrize(
        ("energies", "direction", "slack", "expected"),
        [
            pytest.param([3, 2, 1], "falling", 0, "holds", id="falls"),
            pytest.param([1, 2, 3], "rising", 0, "holds", id="rises"),
            pytest.param([3, 2, 2], "falling", 0, "fails", id="tie"),
            pytest.param([3, 2, 2], "falling", 0.01, "holds", id="tie-within-slack"),
            pytest.param([3, 2, 2.1], "falling", 0.06, "holds", id="step-within-slack"),
            pytest.param([3, 2, 2.2], "falling", 0.06, "fails", id="step-beyond-slack"),
            pytest.param([1, 2, 1.9], "rising", 0.06, "holds", id="dip-within-slack"),
            pytest.param([1, 2, 1.8], "rising", 0.06, "fails", id="dip-beyond-slack"),
        ],
    )
    def test_one_curve(
        self, *, energies: list[float], direction: Any, slack: float, expected: str
    ) -> None:
        found = outcome(expect.monotone, sweep(energies), direction=direction, slack=slack)

        assert found == expected

    @pytest.mark.parametrize(("margin", "expected"), [(0.2, "holds"), (0.3, "fails")])
    def test_the_margin_is_asked_of_every_step(self, margin: float, expected: str) -> None:
        for energies, direction in (([4, 3], "falling"), ([3, 4], "rising")):
            found = outcome(
                expect.monotone, sweep(energies), direction=direction, margin=margin
            )
            assert found == expected

    def test_the_order_of_results_does_not_matter(self) -> None:
        curve = sweep([4, 3, 2, 1])

        assert outcome(expect.monotone, curve[::-1], direction="falling") == "holds"

    def test_steps_of_a_population_are_counted_together(self) -> None:
        curves = {"x": sweep([3, 2, 1]), "y": sweep([1, 2])}

        assert outcome(expect.monotone, curves, direction="falling", at_least=2) == "holds"
        assert outcome(expect.monotone, curves, direction="falling") == "fails"
        assert (
            outcome(expect.monotone, curves, direction="falling", except_for=["y"]) == "holds"
        )

    def test_a_failure_names_the_step(self) -> None:
        with pytest.raises(OrderingFailed) as failure:
            expect.monotone({"Qwen 3": sweep([3, 1, 2])}, direction="falling")

        assert str(failure.value).splitlines() == [
            "energy_per_work_unit_j falling along batch_size: 1 of 2 hold, 2 needed.",
            "  batch_size               after        before    change",
            "  Qwen 3, 16 to 32  2.00 J/token  1.00 J/token  +100.0 %  fails",
        ]

    def test_an_exception_is_the_step_that_leads_to_it(self) -> None:
        curve = sweep([3, 1, 2])

        assert outcome(expect.monotone, curve, direction="falling", except_for=[32]) == "holds"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"direction": "down"}, "direction='down'"),
            ({"direction": "falling", "slack": -0.1}, "slack=-0.1"),
            ({"direction": "falling", "by": ("batch_size", "num_gpus")}, "exactly one"),
        ],
    )
    def test_terms_that_make_no_sense(self, changes: Any, message: str) -> None:
        with pytest.raises(Incomparable, match=message):
            expect.monotone(sweep([2, 1]), **changes)

    def test_one_point_is_no_curve(self) -> None:
        with pytest.raises(Incomparable, match="there is no step"):
            expect.monotone(sweep([1]), direction="falling")


class TestCrossover:
    @pytest.mark.parametrize(
        ("energies", "expected"),
        [
            pytest.param([1.3, 1.1, 0.9, 0.8], "holds", id="as-the-paper-says"),
            pytest.param([1.3, 0.9, 0.9, 0.8], "fails", id="crosses-too-early"),
            pytest.param([1.3, 1.1, 1.1, 0.8], "fails", id="crosses-too-late"),
            pytest.param([0.9, 0.9, 0.9, 0.8], "fails", id="always-below"),
            pytest.param([1.3, 1.1, 0.9, 1.1], "fails", id="crosses-back"),
        ],
    )
    def test_between_16_and_32(self, energies: list[float], expected: str) -> None:
        a, b = sweep(energies), sweep([1] * 4)

        assert outcome(expect.crossover, a, b, between=(16, 32)) == expected

    def test_what_lies_between_is_free(self) -> None:
        for middle in (0.5, 1.5):
            a, b = sweep([1.3, middle, 0.9]), sweep([1, 1, 1])
            assert outcome(expect.crossover, a, b, between=(8, 32)) == "holds"

    def test_each_member_counts_once(self) -> None:
        a = {"x": sweep([1.3, 0.9]), "y": sweep([1.3, 1.2]), "z": sweep([1.1, 0.9])}
        b = {name: sweep([1, 1]) for name in a}

        found = expect.crossover(a, b, between=(8, 16), at_least=2)

        assert (found.wins, found.losses, found.num, len(found.trials)) == (2, 1, 3, 6)

    @pytest.mark.parametrize("between", [(4, 8), (16, 32), (32, 64)])
    def test_both_ends_are_needed(self, between: tuple[int, int]) -> None:
        with pytest.raises(Incomparable, match="a crossover needs both ends"):
            expect.crossover(sweep([1.3, 0.9]), sweep([1, 1]), between=between)

    def test_single_results_have_no_ends(self) -> None:
        with pytest.raises(Incomparable, match="needs both ends"):
            expect.crossover(make_result(1), make_result(2), between=(8, 16))
        with pytest.raises(Incomparable, match=r"between=\(16, 8\)"):
            expect.crossover(sweep([1]), sweep([1]), between=(16, 8))


def curve(costs: Sequence[tuple[float, float]], **changes: Any) -> list[Result]:
    """Results with energy and latency, at the first batch sizes."""
    return [
        make_result(energy, batch_size=b, median_itl_s=itl, source="recorded", **changes)
        for b, (energy, itl) in zip(BATCHES, costs, strict=False)
    ]


class TestParetoDominates:
    @pytest.mark.parametrize(
        ("ours", "theirs", "expected"),
        [
            pytest.param([(1, 1)], [(2, 2)], "holds", id="better-in-both"),
            pytest.param([(1, 2)], [(2, 2)], "holds", id="equal-in-one"),
            pytest.param([(2, 2)], [(2, 2)], "fails", id="equal-in-both"),
            pytest.param([(1, 3)], [(2, 2)], "fails", id="worse-in-one"),
            pytest.param([(1, 3), (3, 1)], [(2, 2)], "fails", id="none-alone"),
            pytest.param([(1, 3), (3, 1)], [(2, 3), (3, 2)], "holds", id="one-for-each"),
        ],
    )
    def test_table(self, ours: Any, theirs: Any, expected: str) -> None:
        assert outcome(expect.pareto_dominates, curve(ours), curve(theirs)) == expected

    def test_a_failure_shows_where_the_nearest_rival_is_worst(self) -> None:
        with pytest.raises(OrderingFailed) as failure:
            expect.pareto_dominates(
                curve([(1, 0.03), (9, 0.09)], num_gpus=4), curve([(2, 0.02)], num_gpus=2)
            )

        assert str(failure.value).splitlines() == [
            (
                "4 GPU dominates 2 GPU in energy_per_work_unit_j and median_itl_s: "
                "0 of 1 hold, 1 needed."
            ),
            "  batch_size    4 GPU    2 GPU   change",
            "  8           30.0 ms  20.0 ms  +50.0 %  fails",
        ]

    def test_the_margin_is_asked_in_one_way(self) -> None:
        a, b = curve([(0.8, 1)]), curve([(1, 1)])

        assert outcome(expect.pareto_dominates, a, b, margin=0.15) == "holds"
        assert outcome(expect.pareto_dominates, a, b, margin=0.25) == "fails"

    def test_noise_makes_it_inconclusive(self) -> None:
        a, b = (
            make_result(e, median_itl_s=1, evidence=make_evidence(launch_id=str(e)))
            for e in (0.5, 1)
        )

        assert outcome(expect.pareto_dominates, a, b) == "inconclusive"
        assert outcome(expect.pareto_dominates, a, b, cost=("power_w",)) == "holds"


class TestUnlocks:
    @staticmethod
    def side(num_gpus: int, batch_size: int, energy: float) -> list[Result]:
        return [
            make_result(e, batch_size=b, num_gpus=num_gpus, source="recorded")
            for e, b in ((9.0, 1), (energy, batch_size))
        ]

    @pytest.mark.parametrize(
        ("batch_size", "energy", "expected"),
        [(2048, 0.32, "holds"), (64, 0.32, "fails"), (2048, 1.0, "fails"), (32, 2, "fails")],
    )
    def test_both_must_be_better(self, batch_size: int, energy: float, expected: str) -> None:
        fewer, more = self.side(1, 64, 1.0), self.side(2, batch_size, energy)

        assert outcome(expect.unlocks, fewer, more) == expected

    def test_the_margin_is_of_the_minimum(self) -> None:
        fewer, more = self.side(1, 64, 1.0), self.side(2, 2048, 0.32)

        assert outcome(expect.unlocks, fewer, more, margin=0.67) == "holds"
        assert outcome(expect.unlocks, fewer, more, margin=0.69) == "fails"

    def test_a_failure_shows_what_is_no_better(self) -> None:
        with pytest.raises(OrderingFailed) as failure:
            expect.unlocks({"GPT": self.side(1, 64, 1.0)}, {"GPT": self.side(2, 64, 0.5)})

        assert [line.split() for line in str(failure.value).splitlines()[1:]] == [
            ["2", "GPU", "1", "GPU", "change"],
            ["GPT,", "largest", "batch", "64", "64", "+0.0", "%", "fails"],
        ]

    def test_each_member_counts_once(self) -> None:
        fewer = {"x": self.side(1, 64, 1.0), "y": self.side(1, 64, 1.0)}
        more = {"x": self.side(2, 128, 0.5), "y": self.side(2, 128, 1.5)}

        assert expect.unlocks(fewer, more, at_least=1).num == 2

    def test_more_must_be_more(self) -> None:
        one, two = self.side(1, 64, 1.0), self.side(2, 64, 1.0)

        for fewer, more in ((two, one), (one, one), (one + two[:1], two)):
            with pytest.raises(Incomparable, match="num_gpus"):
                expect.unlocks(fewer, more)


class TestCommon:
    def test_keeps_the_keys_that_both_hold(self) -> None:
        a, b = expect.common(sweep([1, 2, 3]), sweep([4, 5]))

        assert [r.energy_per_work_unit_j for r in (*a, *b)] == [1, 2, 4, 5]

    def test_nothing_in_common_is_an_error(self) -> None:
        with pytest.raises(Incomparable, match="no batch_size in common"):
            expect.common(sweep([1]), [make_result(1, batch_size=3)])


class TestBest:
    def test_least_energy_within_the_limits(self) -> None:
        results = curve([(3, 0.01), (2, 0.05), (1, 0.2)])

        assert expect.best(results) is results[2]
        assert expect.best(results, max_median_itl_s=0.1) is results[1]
        assert expect.best(results, max_median_itl_s=0.05) is results[1]
        assert expect.best(results, max_median_itl_s=0.049) is results[0]
        assert expect.best(results, min_batch_size=9, max_batch_size=16) is results[1]
        assert expect.best(results, quantity="median_itl_s") is results[0]

    def test_one_gpu_of_several(self) -> None:
        h100, b200 = make_result(1, gpu="h100"), make_result(2)

        assert expect.best([h100, b200], gpu="b200") is b200
        with pytest.raises(Incomparable, match="mix gpu b200, h100"):
            expect.best([h100, b200])

    def test_images_by_batch_latency(self) -> None:
        shape = {"model": "black-forest-labs/FLUX.1-dev", "task": "text-to-image"}
        quick, slow = (
            make_result(e, batch_size=b, batch_latency_s=t, mean_batch_size=None, **shape)
            for e, b, t in ((9, 1, 5.0), (8, 4, 40.0))
        )

        assert expect.best([quick, slow], max_batch_latency_s=10) is quick
        assert expect.best([quick, slow], max_batch_latency_s=60) is slow

    def test_a_tie_goes_to_fewer_gpus(self) -> None:
        two, one = make_result(1, num_gpus=2), make_result(1, num_gpus=1)

        assert expect.best([two, one]) is one

    def test_none_within_the_limits_says_how_near_they_came(self) -> None:
        with pytest.raises(NoneQualifies) as failure:
            expect.best(
                curve([(3, 0.06), (2, 0.09)]), max_median_itl_s=0.05, min_batch_size=500
            )

        assert str(failure.value).splitlines() == [
            "none of 2 results keeps all limits:",
            (
                "  max_median_itl_s=50.0 ms: the lowest is 60.0 ms "
                "(qwen3-8b-text-conversation-bf16-1gpu-b8)"
            ),
            (
                "  min_batch_size=500: the highest is 16 "
                "(qwen3-8b-text-conversation-bf16-1gpu-b16)"
            ),
            "Loosen a limit, or measure more points.",
        ]

    def test_no_result_of_the_gpu(self) -> None:
        with pytest.raises(NoneQualifies, match=r"gpu='h100' among 1; GPUs are b200"):
            expect.best([make_result(1)], gpu="h100")
        with pytest.raises(NoneQualifies, match="GPUs are none at all"):
            expect.best([])

    def test_what_was_not_measured_is_not_passed_over(self) -> None:
        with pytest.raises(NotMeasured, match="median_itl_s"):
            expect.best([*curve([(1, 0.1)]), *sweep([2])], max_median_itl_s=0.2)

    def test_limits_that_are_none(self) -> None:
        with pytest.raises(Incomparable, match="'median_itl_s' is no limit"):
            expect.best(curve([(1, 0.1)]), median_itl_s=0.2)
        with pytest.raises(Incomparable, match="no quantity 'median_itl_ms'"):
            expect.best(curve([(1, 0.1)]), max_median_itl_ms=100)

    def test_a_broken_measurement_cannot_be_best(self) -> None:
        broken = make_result(0.5).but(reasons=(Reason(code="x", text="stood still"),))

        with pytest.raises(InvalidMeasurement, match="stood still"):
            expect.best([broken, make_result(1.0)])


# Properties, each against the definition written out by brute force on plain numbers.

energies = st.integers(1, 6).map(float)
curves = st.lists(energies, min_size=2, max_size=5)
paired = st.integers(1, 5).flatmap(
    lambda n: st.tuples(*[st.lists(energies, min_size=n, max_size=n)] * 2)
)
margins = st.sampled_from([0.0, 0.1, 0.3, 0.6])


@given(sides=paired, margin=margins, data=st.data())
def test_lower_and_higher_count_pairs(
    sides: tuple[list[float], list[float]], margin: float, data: st.DataObject
) -> None:
    a, b = sides
    k = data.draw(st.integers(1, len(a)))
    wins = sum(x < y * (1 - margin) for x, y in zip(a, b, strict=True))
    gains = sum(x > y * (1 + margin) for x, y in zip(a, b, strict=True))

    assert outcome(expect.lower, sweep(a), sweep(b), margin=margin, at_least=k) == (
        "holds" if wins >= k else "fails"
    )
    assert outcome(expect.higher, sweep(a), sweep(b), margin=margin, at_least=k) == (
        "holds" if gains >= k else "fails"
    )
    assert outcome(
        expect.win_rate, sweep(a), sweep(b), margin=margin, at_least=k, of=len(a)
    ) == ("holds" if wins >= k else "fails")


@given(
    sides=paired, low=st.sampled_from([0.3, 0.7, 1.0]), high=st.sampled_from([1.0, 1.6, 4.0])
)
def test_ratio_is_a_quotient(
    sides: tuple[list[float], list[float]], low: float, high: float
) -> None:
    holds = all(low <= x / y <= high for x, y in zip(*sides, strict=True))

    found = outcome(expect.ratio, *map(sweep, sides), low=low, high=high)

    assert found == ("holds" if holds else "fails")


@given(values=curves, slack=st.sampled_from([0.0, 0.15, 0.4]), order=st.randoms())
def test_monotone_looks_at_every_step(values: list[float], slack: float, order: Any) -> None:
    falls = all(values[i + 1] < values[i] * (1 + slack) for i in range(len(values) - 1))
    rises = all(values[i] < values[i + 1] * (1 + slack) for i in range(len(values) - 1))
    shuffled = sweep(values)
    order.shuffle(shuffled)

    for direction, holds in (("falling", falls), ("rising", rises)):
        found = outcome(expect.monotone, shuffled, direction=direction, slack=slack)
        assert found == ("holds" if holds else "fails")


@given(sides=paired.filter(lambda s: len(s[0]) >= 2), data=st.data())
def test_crossover_looks_outside_the_bounds(
    sides: tuple[list[float], list[float]], data: st.DataObject
) -> None:
    a, b = sides
    low = data.draw(st.integers(0, len(a) - 2))
    high = data.draw(st.integers(low + 1, len(a) - 1))
    holds = all(a[i] > b[i] for i in range(low + 1)) and all(
        a[i] < b[i] for i in range(high, len(a))
    )

    bounds = (BATCHES[low], BATCHES[high])
    found = outcome(expect.crossover, sweep(a), sweep(b), between=bounds)

    assert found == ("holds" if holds else "fails")


costs = st.lists(st.tuples(energies, energies), min_size=1, max_size=5)


@given(ours=costs, theirs=costs)
def test_dominance_is_a_rival_for_each(
    ours: list[tuple[float, float]], theirs: list[tuple[float, float]]
) -> None:
    holds = all(any(x <= u and y <= v and (x, y) != (u, v) for x, y in ours) for u, v in theirs)

    found = outcome(expect.pareto_dominates, curve(ours), curve(theirs))

    assert found == ("holds" if holds else "fails")


@given(few=curves, many=curves, margin=margins)
def test_unlocks_compares_ends(few: list[float], many: list[float], margin: float) -> None:
    holds = len(many) > len(few) and min(many) < min(few) * (1 - margin)

    found = outcome(
        expect.unlocks, sweep(few, num_gpus=1), sweep(many, num_gpus=2), margin=margin
    )

    assert found == ("holds" if holds else "fails")


@given(of=costs, limit=energies)
def test_best_is_the_least_that_keeps_the_limit(
    of: list[tuple[float, float]], limit: float
) -> None:
    kept = [energy for energy, itl in of if itl <= limit]

    if kept:
        chosen = expect.best(curve(of), max_median_itl_s=limit)
        assert chosen.energy_per_work_unit_j == min(kept)
        assert chosen.median_itl_s <= limit
    else:
        with pytest.raises(NoneQualifies):
            expect.best(curve(of), max_median_itl_s=limit)


@settings(max_examples=50)
@given(
    logs=st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=5),
    noise=st.sampled_from([0.005, 0.02, 0.08]),
)
def test_noise_never_turns_a_win_into_a_loss(logs: list[float], noise: float) -> None:
    a, b = sweep([math.exp(x) for x in logs]), sweep([1.0] * len(logs))
    half_width = 1.6448536 * math.sqrt(2) * noise
    sure_wins = all(x < -half_width for x in logs)
    a_sure_loss = any(x > half_width for x in logs)
    expected = "holds" if sure_wins else "fails" if a_sure_loss else "inconclusive"

    assert outcome(expect.lower, a, b, noise=noise) == expected
