"""Fitting the noise model: planted parameters come out again, with honest intervals."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_joules import contract
from pytest_joules.commands import fitting
from pytest_joules.errors import ConfigurationError, FormatError
from pytest_joules.gate import noise
from pytest_joules.gate.noise import SCENARIOS
from pytest_joules.gate.noise_fit import Levels, NoiseFit, Run, fit_noise, runs_of, share
from pytest_joules.gate.noise_within import Interval, Series
from tests.fakes.results import make_provenance, make_run

TRIALS = int(os.environ.get("JOULES_NOISE_TRIALS", "8"))
"""Simulated campaigns for each scenario; 60 and more say something about the intervals."""

FITTED = ["quiet", "typical", "noisy", "incident"]
START_S = 30.0


def make_campaign(
    scenario: noise.Noise, seed: object, *, sessions: int = 8, launches: int = 6, num: int = 60
) -> list[Run]:
    rng = np.random.default_rng(seed)
    runs = []
    for session in range(sessions):
        level = noise.session_effects(scenario, rng, (1,))[0]
        effects = noise.launch_effects(scenario, rng, (launches,))
        series = noise.sub_windows(scenario, rng, (launches, num), start_s=START_S)
        for launch, log_x in enumerate(series + level + effects[:, None]):
            runs.append(make_one(f"s{session}", f"s{session}-{launch}", log_x))
    return runs


def make_one(
    session: str, launch_id: str, log_x: np.ndarray, *, start_s: float = START_S
) -> Run:
    return Run(
        group=("point",),
        session=session,
        launch_id=launch_id,
        value=float(np.mean(log_x)),
        series=Series(log_x=log_x, time_s=start_s + 0.5 + np.arange(len(log_x))),
    )


def intervals(fit: NoiseFit) -> dict[str, Interval]:
    found = {
        "launch": fit.launch,
        "session": fit.session,
        "sub_window": fit.within.sub_window,
        "autocorrelation": fit.within.autocorrelation,
        "thermal": fit.within.thermal,
        "thermal_spread": fit.within.thermal_spread,
        "incident_share": fit.incident_share,
    }
    assert None not in found.values()
    return found


@pytest.mark.parametrize("name", FITTED)
def test_intervals_hold_what_was_planted(name: str) -> None:
    """95 % of them should; launch effects with heavy tails are promised less."""
    planted = SCENARIOS[name]
    held = dict.fromkeys(intervals(fit_noise(make_campaign(planted, [0, 0]))), 0)
    for trial in range(TRIALS):
        for field, found in intervals(fit_noise(make_campaign(planted, [trial, 5]))).items():
            held[field] += found.low <= getattr(planted, field) <= found.high
    for field, count in held.items():
        wanted = 0.75 if planted.launch_df and field == "launch" else 0.85
        slack = 2.5 * math.sqrt(wanted * (1 - wanted) / TRIALS)
        assert count / TRIALS >= wanted - slack, (field, count)


@pytest.mark.parametrize("name", FITTED)
def test_estimates_are_near_what_was_planted(name: str) -> None:
    planted = SCENARIOS[name]
    fits = [intervals(fit_noise(make_campaign(planted, [trial, 9]))) for trial in range(6)]
    near = {"sub_window": 0.08, "autocorrelation": 0.08, "launch": 0.4}
    for field, error in near.items():
        mean = np.mean([fit[field].value for fit in fits])
        assert mean == pytest.approx(getattr(planted, field), rel=error), field


def test_a_clear_warm_up_tells_its_time_constant() -> None:
    rng = np.random.default_rng(3)
    runs = []
    for launch in range(12):
        time_s = 0.5 + np.arange(120)
        log_x = rng.normal(0, 0.01, 120) - rng.normal(0.2, 0.02) * np.exp(-time_s / 25)
        runs.append(make_one("s", str(launch), log_x, start_s=0.0))

    within = fit_noise(runs).within

    assert within.thermal_s is not None
    assert within.thermal_s.low < 25 < within.thermal_s.high
    assert within.thermal_s.high / within.thermal_s.low < 1.5
    assert within.thermal.low < 0.2 < within.thermal.high


def test_an_assumed_time_constant_is_said_to_be_one() -> None:
    assert fit_noise(make_campaign(SCENARIOS["typical"], 1)).within.thermal_s is None


def test_variance_components_worked_by_hand() -> None:
    """Levels 0, 2 and 4, 6: within sessions 2, of session means 8, half of 2 explained."""
    values = [0.0, 2.0, 4.0, 6.0]
    runs = [make_one(s, s + n, np.full(9, 0.0)) for s in "ab" for n in "12"]

    levels = Levels.of(runs, np.array(values))

    assert (levels.within, levels.within_df) == (4.0, 2)
    assert (levels.between, levels.between_df) == (8.0, 1)
    launch, session = levels.launch(0.0), levels.session()
    assert launch is not None
    assert session is not None
    assert launch.value == pytest.approx(math.sqrt(2))
    assert levels.launch(1.5).value == pytest.approx(math.sqrt(0.5))
    # chi-squared quantiles of 2 degrees of freedom: 0.05064 and 7.37776
    assert launch.low == pytest.approx(math.sqrt(4 / 7.37776), rel=1e-4)
    assert launch.high == pytest.approx(math.sqrt(4 / 0.0506356), rel=1e-4)
    assert session.value == pytest.approx(math.sqrt(7))
    assert session.low == 0.0


def test_points_of_one_launch_count_as_one_launch() -> None:
    """The same four launches seen at two points say no more about launches than at one."""
    runs = [make_one(s, s + n, np.zeros(9)) for s in "ab" for n in "12"]
    twice = [*runs, *(replace(run, group=("other",)) for run in runs)]
    values = np.array([0.0, 2.0, 4.0, 6.0])

    once, both = Levels.of(runs, values), Levels.of(twice, np.tile(values, 2))

    assert both.launch(0.0) == once.launch(0.0)
    assert both.session() == once.session()


@pytest.mark.parametrize(
    ("count", "number", "low", "high"),
    [
        pytest.param(0, 10, 0.0, 0.27753, id="none"),
        pytest.param(5, 10, 0.23659, 0.76341, id="half"),
        pytest.param(10, 10, 0.72247, 1.0, id="all"),
    ],
)
def test_shares_worked_by_hand(count: int, number: int, *, low: float, high: float) -> None:
    """Wilson's interval: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n)."""
    found = share(count, number)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


@settings(max_examples=10)
@given(shift=st.floats(-3, 3), order=st.permutations(range(12)))
def test_level_and_order_say_nothing_about_noise(shift: float, order: list[int]) -> None:
    runs = make_campaign(SCENARIOS["quiet"], 2, sessions=3, launches=4, num=20)
    moved = [
        replace(
            runs[i],
            value=runs[i].value + shift,
            series=replace(runs[i].series, log_x=runs[i].series.log_x + shift),
        )
        for i in order
    ]
    before, after = intervals(fit_noise(runs)), intervals(fit_noise(moved))
    for name in ("launch", "session", "sub_window", "autocorrelation"):
        assert after[name].value == pytest.approx(before[name].value, abs=2e-4), name


def test_sessions_of_one_launch_tell_nothing_between_launches() -> None:
    fit = fit_noise(make_campaign(SCENARIOS["quiet"], 4, sessions=5, launches=1))
    assert (fit.launch, fit.session) == (None, None)
    assert fit.noise("here").launch == 0.0


def test_too_few_launches_are_refused() -> None:
    runs = make_campaign(SCENARIOS["quiet"], 4, sessions=1, launches=3)
    with pytest.raises(ConfigurationError, match="3 undisturbed launches"):
        fit_noise(runs)


def make_results(scenario: noise.Noise) -> list:
    results = []
    for run in make_campaign(scenario, 11, sessions=3, launches=4):
        units = np.full(60, 100.0)
        joules = np.exp(run.series.log_x) * units
        base = make_provenance()
        context = replace(
            base.context, stack="default", session=run.session, gpu_uuids=("GPU-1",)
        )
        results.append(
            make_run(
                float(joules.sum() / units.sum()),
                launch_id=run.launch_id,
                series_energy_j=tuple(joules),
                series_work_units=tuple(units),
                provenance=replace(base, context=context),
            )
        )
    return results


def test_runs_are_taken_from_results_that_hold_a_series() -> None:
    results = make_results(SCENARIOS["typical"])
    bare = make_run(1.0, series_energy_j=(), series_work_units=())

    runs = runs_of([*results, bare])

    assert len(runs) == 12
    assert runs[0].group == (results[0].point.id, "b200", "default", "GPU-1")
    assert runs[0].series.log_x[0] == pytest.approx(
        math.log(results[0].evidence.series_energy_j[0] / 100)
    )


def test_predictions_that_are_none_are_an_error_in_words(tmp_path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([r.as_json() for r in make_results(SCENARIOS["typical"])]))
    other = tmp_path / "other.json"
    other.write_text('{"predictions": [{"point": {"model": "a/b"}}]}')  # no energy

    for each in (path, other):
        with pytest.raises(FormatError, match=f"{each.name}: holds no predictions"):
            fitting.held(each, [str(path)])


def test_points_that_are_none_are_an_error_in_words(tmp_path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([r.as_json() for r in make_results(SCENARIOS["typical"])]))

    for text in ('{"model": "a/b"}', '["a/b"]'):
        points = tmp_path / "points.json"
        points.write_text(text)
        with pytest.raises(FormatError, match="holds no list of points"):
            fitting.latent([str(path)], gpu="b200", points=points)


def test_the_command_reads_stored_results_and_tells_every_parameter(tmp_path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([r.as_json() for r in make_results(SCENARIOS["typical"])]))

    answer = fitting.noise([str(path)])

    text = "\n".join(answer.lines)
    assert "12 launches of stack default, 3 sessions, source live" in text
    for name in ("launch", "session", "sub-window", "autocorrelation", "thermal", "outliers"):
        assert name in text
    assert answer.values["num_launches"] == 12
    assert answer.values["within"]["sub_window"]["value"] == pytest.approx(0.03, rel=0.2)
    json.dumps(answer.values)


def test_what_a_resumed_session_took_over_counts_once(tmp_path) -> None:
    """A launch that stands there twice would be noise that looks smaller than it is."""
    first = make_results(SCENARIOS["typical"])[:4]
    note = contract.reason("taken-over", "measured in session s0.")
    taken = [each.but(notes=(note,)) for each in first]
    interrupted, resumed = tmp_path / "interrupted.json", tmp_path / "resumed.json"
    interrupted.write_text(json.dumps([r.as_json() for r in first]))
    resumed.write_text(json.dumps([r.as_json() for r in taken]))

    both = fitting.results_of([str(interrupted), str(resumed)])
    alone = fitting.results_of([str(resumed)])

    assert [r.evidence.launch_id for r in both] == ["s0-0", "s0-1", "s0-2", "s0-3"]
    assert len(alone) == 4
