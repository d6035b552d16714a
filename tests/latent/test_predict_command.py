"""``joules predict`` as a user runs it."""

import json

import pytest
from typer.testing import CliRunner

from pytest_joules.cli import app

QWEN = ["predict", "--model", "Qwen/Qwen3-32B", "--gpu", "b200", "--task", "problem-solving"]


def run(*args):
    return CliRunner().invoke(app, args)


def test_one_point_says_that_it_is_predicted_and_how_wrong_that_may_be():
    told = run(*QWEN, "--batch-size", "128", "--precision", "bf16").stdout
    assert "PREDICTED by the latent model, not measured" in told
    for line in ("energy", "power", "median ITL", "batch", "binds", "known error"):
        assert f"\n  {line}" in told
    assert "energy of unseen models on b200, problem-solving: median" in told


def test_a_throughput_is_written_as_in_every_other_table():
    asked = [*QWEN, "--batch-size", "128", "--precision", "bf16"]
    per_s = json.loads(run(*asked, "--json").stdout)["throughput_work_units_per_s"]
    assert per_s > 1000  # where significant digits alone would be 1.91e+03
    assert f"\n  throughput   {per_s:.0f} token/s\n" in run(*asked).stdout


def test_json_holds_the_terms_and_the_error():
    values = json.loads(run(*QWEN, "--batch-size", "32", "--json").stdout)
    assert values["source"] == "predicted"
    assert values["point"]["batch_size"] == 32
    assert values["known_energy_error"]["median"] > 0
    assert sum(values["terms_j"].values()) == pytest.approx(
        values["energy_per_work_unit_j"] * values["mean_batch_size"]
    )


def test_a_sweep_plots_energy_up_to_the_largest_batch():
    lines = run(*QWEN, "--sweep", "batch-size").stdout.splitlines()
    assert lines[0].split()[:3] == ["batch", "size", "energy"]
    bars = [line.count("█") for line in lines[1:-1]]
    assert bars == sorted(bars, reverse=True)
    assert bars[0] == 40
    assert int(lines[-2].split()[0]) <= 256


def test_a_diffusion_model_and_a_gpu_that_was_not_measured():
    told = run("predict", "--model=black-forest-labs/FLUX.1-dev", "--gpu=h200",
               "--task=text-to-image").stdout  # fmt: skip
    assert "J/image" in told
    assert "unknown: h200 was not measured, parameters are those of h100" in told


def test_an_unknown_model_needs_a_description():
    failed = run("predict", "--model=mine", "--gpu=h100")
    assert failed.exit_code == 2
    assert "give the model's config.json (--config)" in failed.stderr.lower().replace("\n", " ")
    described = run("predict", "--model=mine", "--gpu=h100", "--parameters=8", "--layers=32")
    assert described.exit_code == 0, described.stderr
    half = run("predict", "--model=mine", "--gpu=h100", "--layers=32")
    assert "both --parameters and --layers" in half.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--sweep=colour"], "sweep over batch-size or num-gpus"),
        (["--gpu=b300"], "'b300' is unknown"),
        (["--task=singing"], "task='singing' is unknown"),
    ],
)
def test_what_cannot_be_predicted_is_said_in_one_line(args, said):
    failed = run(*QWEN, *args)
    assert failed.exit_code == 2
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("count", ["3", "16"])
def test_the_error_of_a_number_of_gpus_that_was_not_measured_is_unknown(count):
    told = run(*QWEN, "--num-gpus", count)
    assert f"unknown: {count} GPUs were not measured (1, 2, 4, 8 were)" in told.stdout
    values = json.loads(run(*QWEN, "--num-gpus", count, "--json").stdout)
    assert values["known_energy_error"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--parameters=nan", "--layers=32"], "parameters=nan"),
        (["--parameters=8", "--layers=0"], "layers=0"),
        (["--parameters=8", "--layers=32", "--active=9"], "active parameters=9000000000.0"),
        (["--config=missing.json"], "missing.json"),
    ],
)
def test_a_wrong_description_is_a_usage_error(args, said):
    failed = run("predict", "--model=mine", "--gpu=h100", *args)
    assert failed.exit_code == 2
    assert said in failed.stderr
