"""From stored results to a comparison, with the sentence that a reader gets."""

import json
import math
from dataclasses import replace

import pytest

from pytest_joules.gate import judge
from pytest_joules.gate.compare import compare, explanation, launches, noise_between
from pytest_joules.gate.design import Design
from pytest_joules.gate.launch_value import launch_value
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Evidence, Result
from pytest_joules.verdict import Verdict

POINT = Point(model="org/model", batch_size=4, num_gpus=1)
DESIGN = Design()


def measured(level_j, number=0, *, gpu="GPU-1"):
    """A launch of 60 sub-windows that wave by 1 % around a level."""
    energy_j = tuple(100 * level_j * (1 + 0.01 * math.sin(i + number)) for i in range(60))
    return Result(
        point=POINT,
        source="fake",
        gpu="fake",
        energy_per_work_unit_j=level_j,
        throughput_work_units_per_s=100.0,
        provenance=Provenance(
            identity=Identity(gpu_model="Fake", num_gpus=1), context=Context(gpu_uuids=(gpu,))
        ),
        evidence=Evidence(
            launch_id=f"launch-{number}",
            window_s=60.0,
            gpu_energy_j=(math.fsum(energy_j),),
            work_units=6000.0,
            series_energy_j=energy_j,
            series_work_units=(100.0,) * 60,
        ),
    )


BASELINE = [measured(0.5 + 0.001 * (i % 3), i) for i in range(8)]


def verdict_of(new, **more):
    return compare(POINT, launches(baseline=BASELINE, new=new, **more), DESIGN)


def test_an_unchanged_point_says_what_would_have_been_found():
    answer = verdict_of([measured(0.501)])

    assert answer.verdict is Verdict.UNCHANGED
    assert (answer.num_launches, answer.num_reference_launches) == (1, 8)
    assert answer.energy_per_work_unit_j == pytest.approx(0.501, rel=1e-3)
    found = f"A rise of {100 * answer.detectable:.1f} % would have been found 95 times in 100."
    assert found in answer.explanation
    assert "a rise of 3.0 % is excluded" in answer.explanation


def test_a_regression_names_change_and_interval():
    answer = verdict_of([measured(0.55), measured(0.551)])

    assert answer.verdict is Verdict.REGRESSION
    assert answer.change == pytest.approx(0.0993, abs=0.003)
    assert answer.explanation.startswith(f"+{100 * answer.change:.1f} % [+")
    assert "2 new launches against 8 stored" in answer.explanation


@pytest.mark.parametrize(
    ("new", "words"),
    [
        pytest.param([], "nothing has been launched yet", id="nothing"),
        pytest.param([measured(0.55)], "would launch the new stack next", id="undecided"),
        pytest.param([measured(0.4), measured(0.4)], "a fall", id="improvement"),
        pytest.param([measured(math.nan)], "no positive finite energy", id="invalid"),
        pytest.param([measured(0.5, gpu="GPU-2")], "--joules-record", id="other-gpu"),
    ],
)
def test_every_verdict_is_explained(new, words):
    assert words in verdict_of(new).explanation


def test_one_launch_against_one_promises_nothing_absurd():
    answer = compare(POINT, launches(baseline=BASELINE[:1], new=[measured(0.5)]), DESIGN)

    assert answer.detectable > 1
    assert "Not even a doubling would have been found 95 times in 100." in answer.explanation
    assert len(answer.explanation) < 400


def test_an_undecided_comparison_is_not_green():
    assert verdict_of([measured(0.55)]).verdict is Verdict.INCONCLUSIVE
    assert verdict_of([]).verdict is Verdict.INCONCLUSIVE


def test_a_spent_budget_advises():
    wide = [measured(0.5 * (1 + 0.06 * (i % 2)), i) for i in range(8)]
    seen = launches(
        baseline=wide,
        new=[measured(0.5 * (1 + 0.09 * (i % 2))) for i in range(DESIGN.max_launches)],
    )

    answer = compare(POINT, seen, DESIGN)

    assert answer.verdict is Verdict.INCONCLUSIVE
    assert "allow more launches" in answer.explanation


def test_stored_results_give_the_verdict_of_the_run_bit_for_bit():
    new = [measured(0.53, 1), measured(0.532, 2)]

    def stored(results):
        return [Result.from_json(json.loads(json.dumps(r.as_json()))) for r in results]

    live = compare(POINT, launches(baseline=BASELINE, new=new), DESIGN)
    again = compare(POINT, launches(baseline=stored(BASELINE), new=stored(new)), DESIGN)

    assert repr(again) == repr(live)  # NaN equals NaN


@pytest.mark.parametrize("factor", [1e-3, 3.0, 1e6])
def test_all_data_times_a_factor_leave_the_change_and_move_the_energy(factor):
    def scaled(results):
        return [
            replace(
                r,
                evidence=replace(
                    r.evidence,
                    series_energy_j=tuple(factor * e for e in r.evidence.series_energy_j),
                ),
            )
            for r in results
        ]

    new = [measured(0.53, 1), measured(0.532, 2)]
    here = verdict_of(new)
    there = compare(POINT, launches(baseline=scaled(BASELINE), new=scaled(new)), DESIGN)

    assert there.verdict is here.verdict
    assert there.change == pytest.approx(here.change, abs=1e-12)
    assert there.energy_per_work_unit_j == pytest.approx(factor * here.energy_per_work_unit_j)


def test_a_side_by_side_comparison_counts_the_old_stack():
    old = [measured(0.5, i) for i in range(4)]
    seen = launches(old=old, new=[measured(0.6, i) for i in range(4)], has_old=True)

    answer = compare(POINT, seen, DESIGN, reference="old")

    assert (answer.verdict, answer.reference) == (Verdict.REGRESSION, "old")
    assert answer.num_reference_launches == 4
    assert answer.reference_energy_per_work_unit_j == pytest.approx(0.5, rel=1e-3)


def test_the_sentence_needs_no_results():
    decision = judge(launches(baseline=BASELINE, new=[measured(0.5)]), DESIGN)

    assert explanation(decision, DESIGN) == verdict_of([measured(0.5)]).explanation
    assert launch_value(measured(0.5)).launch_id == "launch-0"


def test_noise_is_pooled_over_the_points_of_a_session():
    """ln 0.5 and ln 0.6 lie 0.18232 apart: half its square, on one df each, twice."""
    pair = [measured(0.5), measured(0.6)]

    noise = noise_between([pair, pair, [measured(0.7)]])

    assert noise.df == 2
    assert noise.sum_squares == pytest.approx(2 * math.log(1.2) ** 2 / 2, rel=1e-6)
