"""``joules explain``: which results it takes from where."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from pytest_joules import baseline
from pytest_joules.cli import app
from pytest_joules.commands import explaining
from pytest_joules.diagnose import diagnose
from pytest_joules.errors import ConfigurationError
from pytest_joules.provenance import Context
from pytest_joules.report.causes import causes
from tests.test_diagnose import side

THEN, NOW = side(), side(power_w=550.0, idle_power_w=150.0)


def of_stack(result, stack):
    provenance = result.provenance
    context = Context(stack=stack)
    return result.but(
        provenance=type(provenance)(identity=provenance.identity, context=context)
    )


@pytest.fixture
def export(tmp_path):
    def write(name, *results):
        path = tmp_path / name
        path.write_text(json.dumps([result.as_json() for result in results]))
        return str(path)

    return write


def run(*args):
    return CliRunner().invoke(app, ["explain", *args])


def test_two_exports_are_explained_by_point(export):
    told = run(export("a.json", THEN), export("b.json", NOW))

    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[0].endswith("(b200, live): 100.0 mJ/token -> 110.0 mJ/token")
    assert "(static-power)" in told.stdout


def test_a_baseline_file_is_a_side(tmp_path, export):
    baseline.record(tmp_path / "baselines", [side(output=634.37)])
    (path,) = (tmp_path / "baselines").rglob("*.json")

    told = run(str(path), export("b.json", NOW), "--json")

    (values,) = json.loads(told.stdout)
    assert values["causes"][0]["code"] == "static-power"
    assert values["sources"] == ["live", "live"]


def test_one_result_alone_is_a_side(tmp_path, export):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(THEN.as_json()))

    assert "static-power" in run(str(path), export("b.json", NOW)).stdout


def test_different_points_are_paired_where_each_side_has_one(export):
    other = side(batch=50.0, batch_size=50, mean_in_flight=50.0)

    told = run(export("a.json", THEN), export("b.json", other))

    assert " -> " in told.stdout.splitlines()[0]
    assert "batch-asked" in told.stdout


def test_a_point_is_chosen_by_its_id(export):
    other = side(batch=50.0, batch_size=50, mean_in_flight=50.0)
    both = export("a.json", THEN, other)

    told = run(f"{both}#{THEN.point.id}", f"{both}#{other.point.id}")

    assert told.exit_code == 0
    assert "batch-asked" in told.stdout


def test_stacks_are_not_mixed(export):
    both = export("a.json", of_stack(THEN, "old"), of_stack(NOW, "new"))

    told = run(both, both)
    chosen = run(f"{both}@old", f"{both}@new")

    assert told.exit_code == 2
    assert "results of stacks new, old" in told.stderr
    assert "static-power" in chosen.stdout


def test_nothing_to_pair_is_told(export):
    other = side(batch=50.0, batch_size=50)
    told = run(export("a.json", THEN), export("b.json", other, side(batch_size=60)))

    assert told.exit_code == 2
    assert "no point is on both sides" in told.stderr


def launched(power_w, number, board):
    """Make a launch of 0.1 J a token at 500 W, with noise of 0.5 % between launches."""
    result = side(power_w=power_w * (1 + 0.005 * (-1) ** number))
    return result.but(
        provenance=replace(result.provenance, context=Context(gpu_uuids=(board,)))
    )


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ((500.0, "GPU-1"), "within noise: +0.0 % [-"),
        ((650.0, "GPU-1"), "beyond noise: +30.0 % [+"),
        ((650.0, "GPU-2"), "noise unknown: "),
    ],
)
def test_noise_is_told_from_change(export, new, said):
    is_within = {"within": True, "beyond": False}.get(said.split()[0])
    then = export("a.json", *(launched(500.0, i, "GPU-1") for i in range(8)))
    now = export("b.json", *(launched(new[0], i, new[1]) for i in range(4)))

    (values,) = json.loads(run(then, now, "--json").stdout)
    line = run(then, now).stdout.splitlines()[1]

    assert line.startswith(f"  {said}")
    assert values["noise"]["is_within"] is is_within
    assert ("by 8 -> 4 launches" in line) == (is_within is not None)


def test_a_missing_file_is_a_wrong_use(export):
    told = run("nowhere.json", export("b.json", NOW))

    assert told.exit_code == 2
    assert "nowhere.json: there is no such file" in told.stderr


def test_a_folder_that_is_no_session_is_called_what_it_is(export, tmp_path):
    told = run(str(tmp_path), export("b.json", NOW))

    assert told.exit_code == 2
    assert f"{tmp_path}: not a stored session; " in told.stderr


def test_a_side_without_results_is_refused(export):
    with pytest.raises(ConfigurationError, match="no such results"):
        explaining.read_side(f"{export('a.json', THEN)}#nowhere")


@pytest.mark.parametrize("power_w", [500.0, 550.0])
def test_other_gpus_are_named_as_a_declared_difference(export, power_w):
    then = THEN.but(gpu="h100", source="recorded")
    now = side(power_w=power_w, idle_power_w=100.0 * power_w / 500, step_s=0.021)
    told = run(export("a.json", then), export("b.json", now))

    assert "(h100, recorded -> b200, live): " in told.stdout.splitlines()[0]
    assert "(configuration)" in told.stdout
    assert "gpu h100 -> b200" in told.stdout


def test_other_gpus_are_named_though_nothing_is_left_for_them():
    made = diagnose([side().but(gpu="h100")], [side(batch=80.0, mean_in_flight=80.0)])
    (cause,) = [cause for cause in made.causes if cause.code == "configuration"]

    assert cause.contribution == pytest.approx(0.0)
    assert (cause.signs[0].quantity, cause.signs[0].then, cause.signs[0].now) == (
        "gpu", "h100", "b200",
    )  # fmt: skip
    assert any("gpu h100 -> b200" in line for line in causes(made))
