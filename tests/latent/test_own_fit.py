"""A GPU's own few results move its parameters away from a relative's, and only as they say."""

import json

import pytest

from pytest_joules import Point, catalog
from pytest_joules.commands import fitting
from pytest_joules.errors import ConfigurationError
from pytest_joules.latent import predict
from pytest_joules.latent.fit.own import fit_own
from pytest_joules.latent.fitted import values_of
from pytest_joules.latent.parameters import with_values
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Latency, Reason, Result

MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-32B")
HELD = Point(model="Qwen/Qwen3-14B", batch_size=32)


def made_by(values, model, batch_size, *, gpu="h200", stack="default"):
    """Return what a GPU with these parameters would show."""
    p = with_values(catalog.gpus()["h200"], values)
    found = predict(Point(model=model, batch_size=batch_size), "h200", parameters=p)
    identity = Identity(gpu_model="NVIDIA H200", num_gpus=1)
    return Result(
        point=found.point,
        source="live",
        gpu=gpu,
        energy_per_work_unit_j=found.energy_per_work_unit_j,
        throughput_work_units_per_s=found.throughput_work_units_per_s,
        latency=Latency(median_itl_s=found.median_itl_s),
        provenance=Provenance(identity=identity, context=Context(stack=stack)),
    )


def planted():
    """An H200 that is unlike the H100: more static power, dearer bytes, slower memory."""
    known = values_of("h200")
    return {
        **known,
        "static_power_ratio": 1.4 * known["static_power_ratio"],
        "energy_per_byte_j": 1.4 * known["energy_per_byte_j"],
        "weight_bandwidth_ratio": 0.8 * known["weight_bandwidth_ratio"],
    }


def rows(values):
    return [made_by(values, model, batch) for model in MODELS for batch in (8, 32, 128)]


def off_by(values, truth):
    expected = predict(
        HELD, "h200", parameters=with_values(catalog.gpus()["h200"], values)
    ).energy_per_work_unit_j
    true = made_by(truth, HELD.model, HELD.batch_size).energy_per_work_unit_j
    return abs(expected / true - 1)


def test_a_fit_predicts_an_unseen_model_better_than_the_relative_does():
    truth = planted()
    fit = fit_own(rows(truth), gpu="h200", near=values_of("h200"))
    assert off_by(values_of("h200"), truth) > 0.12
    assert off_by(fit.values, truth) < 0.06
    assert fit.num_rows == 6
    assert [len(each.rows) for each in fit.unseen] == [6]


def test_a_gpu_that_is_as_its_relative_keeps_the_relatives_parameters():
    known = values_of("h200")
    fit = fit_own(rows(known), gpu="h200", near=known)
    for name in ("weight_bandwidth_ratio", "static_power_ratio", "energy_per_byte_j"):
        assert fit.values[name] == pytest.approx(known[name], rel=0.05), name
    # Of diffusion nothing was measured, so nothing is learnt.
    assert fit.values["diffusion_flop_ratio"] == known["diffusion_flop_ratio"]


def test_other_gpus_and_invalid_results_teach_nothing():
    known = values_of("h200")
    other = made_by(planted(), MODELS[0], 8, gpu="h100")
    broken = made_by(planted(), MODELS[0], 8).but(reasons=(Reason(code="x", text="y"),))
    with pytest.raises(ConfigurationError, match="none of 2 results"):
        fit_own([other, broken], gpu="h200", near=known)


@pytest.fixture
def stored(tmp_path):
    truth = planted()
    slow = made_by(truth, MODELS[0], 8, stack="slow").but(energy_per_work_unit_j=99.0)
    path = tmp_path / "results.json"
    path.write_text(json.dumps([r.as_json() for r in [*rows(truth), slow]]))
    (tmp_path / "held-out.json").write_text(json.dumps([HELD.as_json()]))
    return tmp_path


def write_prediction(stored):
    return fitting.latent(
        [str(stored / "results.json")],
        gpu="h200",
        predict_to=stored / "predicted.json",
        points=stored / "held-out.json",
    )


def test_a_prediction_is_written_before_and_compared_after(stored):
    answer = write_prediction(stored)
    assert answer.values["num_rows"] == 6  # another stack's runs are not fitted to
    assert "1 prediction written" in answer.lines[-1]
    before = fitting.held(stored / "predicted.json", [str(stored / "results.json")])
    assert before.values[0]["measured_j"] is None
    measured = made_by(planted(), HELD.model, HELD.batch_size)
    (stored / "later.json").write_text(json.dumps([measured.as_json()]))
    after = fitting.held(stored / "predicted.json", [str(stored / "later.json")])
    (row,) = after.values
    assert row["measured_j"] == measured.energy_per_work_unit_j
    assert row["predicted_j"] == pytest.approx(row["measured_j"], rel=0.06)


def test_predictions_are_made_once(stored):
    write_prediction(stored)
    with pytest.raises(ConfigurationError, match="made once"):
        write_prediction(stored)


def test_what_was_measured_is_not_predicted(stored):
    known = Point(model=MODELS[0], batch_size=8)
    (stored / "held-out.json").write_text(json.dumps([known.as_json()]))
    with pytest.raises(ConfigurationError, match="measured already"):
        write_prediction(stored)
    assert not (stored / "predicted.json").exists()
