"""The fit finds what made the rows, leaves out what it says, and gives the stored file."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pytest_joules
from pytest_joules import Point
from pytest_joules.latent import fitted_gpus, known_error, predict
from pytest_joules.latent.fit import __main__ as program
from pytest_joules.latent.fit import priors
from pytest_joules.latent.fit.errors import Predicted, family_of, held_out, known, predictions
from pytest_joules.latent.fit.rows import rendered, served
from pytest_joules.latent.fit.solve import fitted
from pytest_joules.latent.parameters import Parameters
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Latency, Result

DATA = os.environ.get("JOULES_MLENERGY_DATA")
published = pytest.mark.skipif(not DATA, reason="needs JOULES_MLENERGY_DATA")
STORED = Path(pytest_joules.__file__).parent / "data" / "latent.json"
MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-8B-Instruct")


def stored_values():
    return {g: each["parameters"] for g, each in json.loads(STORED.read_text())["gpus"].items()}


def made_by_model(model, batch, *, gpu="h100", energy=1.0):
    """Return a row that the model itself predicts."""
    found = predict(Point(model=model, batch_size=batch), gpu)
    return Result(
        point=found.point,
        source="simulated",
        gpu=gpu,
        energy_per_work_unit_j=energy * found.energy_per_work_unit_j,
        throughput_work_units_per_s=found.throughput_work_units_per_s,
        latency=Latency(median_itl_s=found.median_itl_s),
        provenance=Provenance(identity=Identity(gpu_model=gpu, num_gpus=1), context=Context()),
    )


ROWS = [made_by_model(model, batch) for model in MODELS for batch in (8, 16, 32)]


def test_columns_predict_what_the_machine_predicts():
    """The fit's evaluation of many rows is the prediction of each."""
    rows = served(ROWS)
    values = stored_values()
    found = predictions(rows, {"h100": values["h100"]})
    assert found.error("energy") == pytest.approx(np.zeros(len(ROWS)), abs=1e-6)
    assert found.error("latency") == pytest.approx(np.zeros(len(ROWS)), abs=1e-6)
    assert found.error("power") == pytest.approx(np.zeros(len(ROWS)), abs=1e-6)


def test_a_fit_comes_near_the_rows_that_it_was_given():
    rows = served(ROWS)
    found = predictions(rows, fitted(rows))
    assert np.median(found.error("energy")) < 0.05
    assert np.median(found.error("latency")) < 0.05


def test_what_is_left_out_does_not_reach_its_own_prediction():
    """Rows of one model tenfold in energy leave the prediction of that model as it was."""
    spoilt = [made_by_model(r.point.model, r.point.batch_size, energy=10.0)
              if r.point.model == MODELS[0] else r for r in ROWS]  # fmt: skip
    clean, dirty = (held_out(served(rows), served(rows).model) for rows in (ROWS, spoilt))
    own = clean.rows.model == MODELS[0]
    assert dirty.energy_j[own] == pytest.approx(clean.energy_j[own])
    assert dirty.energy_j[~own] != pytest.approx(clean.energy_j[~own])


def test_errors_worked_by_hand():
    rows = served(ROWS[:4])
    one = np.ones(4)
    rows = replace(rows, energy_j=np.array([1.0, 2.0, 4.0, 8.0]))
    predicted = Predicted(rows=rows, energy_j=one * 2, latency_s=one, power_w=one)
    assert list(predicted.error("energy")) == [1.0, 0.0, 0.5, 0.75]
    found = known(predicted, np.array([True, True, True, False]), "energy")
    assert (found.num_rows, found.median) == (3, 0.5)
    assert found.high == pytest.approx(1.0 + 0.9 * 1.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.3-70B-Instruct", True),
        (
            "Qwen/Qwen3-Coder-480B-A35B-Instruct",
            "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8",
            True,
        ),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-14B", False),
        ("Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B-Instruct-2507", False),
    ],
)
def test_families(one, other, same):
    base = ROWS[0]
    names = [family_of(base.but(point=base.point.but(model=model))) for model in (one, other)]
    assert (names[0] == names[1]) == same


def test_every_fitted_parameter_has_a_prior_a_meaning_and_a_place():
    named = {name.partition(".")[0] for each in (priors.SERVING_S, priors.SERVING_J,
             priors.RENDERING_S, priors.RENDERING_J) for name in each}  # fmt: skip
    set_by_hand = {
        "gpu",
        "usable_memory_ratio",
        "reserved_memory_bytes",
        "activations_per_token",
    }
    assert named == set(Parameters.__dataclass_fields__) - set_by_hand


def test_stored_parameters_keep_their_physical_bounds():
    for values in stored_values().values():
        for name, value in values.items():
            assert 0 < value <= priors.largest(name) * 1.001, name


@pytest.mark.parametrize("gpu", fitted_gpus())
def test_stored_errors_cover_every_task_measured(gpu):
    for task in ("problem-solving", "text-conversation", "text-to-image", "text-to-video"):
        error = known_error(gpu, task)
        assert error.low < 1 < error.high
        assert 0 < error.median < error.p90


@published
def test_the_stored_file_is_what_the_fit_gives():
    """The parameters again, from the data; their errors take minutes and are perf's."""
    board = program.read_leaderboard(Path(DATA))
    stored = json.loads(STORED.read_text())
    assert stored["provenance"]["rows_sha256"] == program.digest(board)
    assert stored["provenance"]["num_rows"] == len(board.results) == 1858
    again = [fitted(rows) for rows in (served(board.results), rendered(board.results))]
    for gpu, kept in stored["gpus"].items():
        for name, value in {**again[0][gpu], **again[1][gpu]}.items():
            assert value == pytest.approx(kept["parameters"][name], rel=0.02), name


@published
def test_the_model_is_near_the_rows_that_it_was_fitted_to():
    board = program.read_leaderboard(Path(DATA))
    values = stored_values()
    for rows, limit in ((served(board.results), 0.12), (rendered(board.results), 0.12)):
        assert np.median(predictions(rows, values).error("energy")) < limit
