"""Diffusion points through record, check and collection, on a machine that does not exist."""

import json

import pytest

IMAGES = """
    from pytest_joules import Point

    SD = Point(model="stabilityai/stable-diffusion-3.5-medium", task="text-to-image")

    def test_images(energy_bench):
        energy_bench.check(SD.but(batch_size=4))
"""

WRONG = """
    from pytest_joules import Point

    def test_wrong(energy_bench):
        point = Point(model="Wan-AI/Wan2.1-T2V-1.3B-Diffusers", task="text-to-video")
        energy_bench.check(point.but({change}))
"""


@pytest.fixture
def recorded(joules):
    joules.machine("launch_noise=0.002")
    joules.tests(IMAGES)
    joules.run("--joules-record").assert_outcomes(passed=1)
    return joules


def test_a_baseline_of_images(recorded):
    (name,) = recorded.baseline_files()
    assert name.startswith("fake/h200/diffusers/text-to-image/")
    (entry,) = json.loads((recorded.path / "baselines" / name).read_text())["points"]
    assert [run["evidence"]["num_requests"] % 4 for run in entry["runs"]] == [0, 0, 0]


def test_launches_that_make_more_batches_than_the_first_are_recorded(joules):
    """Each launch is 30 % quicker than the one before, so more fit into the window."""
    joules.machine(
        "power_w=lambda *_: quicker()",
        """
    def quicker():
        machine.step_s *= 0.7
        return 400.0
    """,
        window=60,
    )
    joules.tests(IMAGES)

    joules.run("--joules-record").assert_outcomes(passed=1)

    (name,) = joules.baseline_files()
    (entry,) = json.loads((joules.path / "baselines" / name).read_text())["points"]
    made = [run["evidence"]["num_requests"] for run in entry["runs"]]
    assert made[0] < made[-1]


def test_no_change_is_unchanged(recorded):
    recorded.machine("launch_noise=0.002, seed=1")

    run = recorded.run()

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*J/image*unchanged*"])


def test_ten_percent_more_power_is_a_regression_per_image(recorded):
    recorded.machine("launch_noise=0.002, power_w=lambda *_: 1.1 * 205.6")

    run = recorded.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*EnergyRegression*", "*energy per image +*J/image*"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("height=500", "*height=500 is no multiple of 16*use 496 or 512*"),
        ("num_frames=80", "*num_frames=80*use 77 or 81*"),
        ("num_gpus=4, ulysses_degree=2", "*ulysses_degree x ring_degree = 2*num_gpus=4*"),
        ("num_gpus=8, ulysses_degree=8", "*ulysses_degree=8 does not divide the 12*"),
        ("model='no/such'", "*pipeline of model='no/such' is unknown*"),
    ],
)
def test_bad_input_is_an_error_of_collection(joules, change, told):
    joules.tests(WRONG.format(change=change))

    run = joules.run()

    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["*launches made: none", told])
