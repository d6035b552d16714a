"""A result beside the model: what is said, and when it becomes a note."""

import pytest

from pytest_joules import Point
from pytest_joules.commands import sessions
from pytest_joules.contract import reason
from pytest_joules.latent import known_error, predict
from pytest_joules.latent.plausibility import IMPLAUSIBLE, beside_model, far_from_model
from pytest_joules.plan import Launch, Stack
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Result
from pytest_joules.sources import live

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
    assert far_from_model(measured(energy=bound * inside)) == ""
    assert "90 of 100 such results" in far_from_model(measured(energy=bound * outside))


def test_nothing_is_said_where_nothing_is_known():
    unknown = measured(energy=9.0, point=POINT.but(model="no/such"))
    assert beside_model(unknown) == ""
    assert far_from_model(unknown) == ""
    assert far_from_model(measured(energy=9.0, gpu="h200")) == ""


def test_joules_show_tells_it_of_live_results_alone():
    near, far = measured(energy=1.0), measured(energy=100.0)
    far = far.but(notes=(reason(IMPLAUSIBLE, far_from_model(far)),))
    assert sessions.measured([near], None).lines[-1] == (
        f"model: {POINT.id}: energy per token is 1.00x the latent model's"
    )
    told = "\n".join(sessions.measured([far], None).lines)
    assert "model: " not in told
    assert f"note: {POINT.id}: energy per token is 100.00x" in told
    recorded = sessions.measured([near.but(source="recorded")], None).lines
    assert not any(line.startswith("model: ") for line in recorded)


def test_a_live_result_far_from_the_model_is_noted_and_stays_valid(monkeypatch):
    far = measured(energy=100.0)
    monkeypatch.setattr(
        live, "measure", lambda *_: (each for each in (far, measured(energy=1.0)))
    )
    rigs = {"vllm": None}
    launch = Launch(points=(POINT,), stack=Stack(), gpu="h100")
    noted, plain = live.LiveSource(rigs=rigs).outcomes(launch, {})
    assert [note.code for note in noted.notes] == ["implausible"]
    assert noted.is_valid
    assert plain.notes == ()
