"""A result beside the model: what is said, and when it becomes a note."""

import pytest

from pytest_joules import Point
from pytest_joules.latent import known_error, predict
from pytest_joules.latent.plausibility import beside_model, note_on
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Result

POINT = Point(model="Qwen/Qwen3-32B", batch_size=64)
EXPECTED = predict(POINT, "h100")


def measured(*, energy, pace=1.0, batch=64.0, point=POINT, gpu="h100"):
    return Result(
        point=point,
        source="live",
        gpu=gpu,
        energy_per_work_unit_j=energy * EXPECTED.energy_per_work_unit_j,
        throughput_work_units_per_s=pace * EXPECTED.throughput_work_units_per_s,
        mean_batch_size=batch,
        provenance=Provenance(identity=Identity(gpu_model=gpu, num_gpus=1), context=Context()),
    )


@pytest.mark.parametrize(
    ("result", "said"),
    [
        pytest.param(measured(energy=1.0), "1.00x the latent model's", id="as-expected"),
        pytest.param(measured(energy=2.1, pace=0.3), "the GPU waited: 0.30x", id="waiting"),
        pytest.param(measured(energy=2.0), "more power for the same pace (2.00x)", id="power"),
        pytest.param(measured(energy=2.0, pace=0.5), "more work for each token", id="work"),
        pytest.param(
            measured(energy=2.0, batch=8.0), "8 requests were in flight", id="starved"
        ),
        pytest.param(measured(energy=0.5), "better kernels, or less work", id="better"),
    ],
)
def test_what_is_said(result, said):
    assert said in beside_model(result)


def test_nothing_is_suggested_near_the_model():
    assert beside_model(measured(energy=1.1)).endswith("latent model's")


@pytest.mark.parametrize("side", ["low", "high"])
def test_a_note_begins_where_the_band_ends(side):
    bound = getattr(known_error("h100", "text-conversation"), side)
    inside, outside = (0.99, 1.01) if side == "high" else (1.01, 0.99)
    assert note_on(measured(energy=bound * inside)) is None
    note = note_on(measured(energy=bound * outside))
    assert note.code == "implausible"
    assert "90 of 100 such results" in note.text


def test_nothing_is_said_where_nothing_is_known():
    unknown = measured(energy=9.0, point=POINT.but(model="no/such"))
    assert beside_model(unknown) == ""
    assert note_on(unknown) is None
    assert note_on(measured(energy=9.0, gpu="h200")) is None
