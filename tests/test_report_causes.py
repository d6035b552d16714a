"""What a person reads of a diagnosis."""

import json

import pytest

from pytest_joules.diagnose import diagnose
from pytest_joules.report.causes import causes, causes_json
from tests.test_diagnose import side

STARVED = side(batch=80.0, mean_waiting=20.0, kv=0.98, step_s=0.018, power_w=475.0)


def test_causes_are_told_with_share_evidence_and_next_step():
    # 500 W x 20 ms / 100 = 100 mJ; 475 W x 18 ms / 80 = 106.9 mJ, all of it the batch's.
    assert causes(diagnose([side()], [STARVED])) == [
        "why +6.9 %: power -5.0 %, step time -10.0 %, batch -20.0 %",
        "  +100 %  the memory holds fewer requests (memory-capacity)",
        (
            "          requests in the batch 100 -> 80; requests waiting 0 -> 20; "
            "KV cache used 50.0 % -> 98.0 %"
        ),
        (
            "          Give the KV cache more room: --gpu-memory-utilization, an FP8 KV cache, "
            "shorter contexts or more GPUs; see what else the new stack keeps in memory."
        ),
    ]


def test_what_is_not_known_is_told_as_such():
    lines = causes(diagnose([side()], [side(power_w=550.0)]))

    assert lines[:2] == [
        "why +10.0 %: power +10.0 %, step time +0.0 %, batch +0.0 %",
        "  +100 %  not told by what was measured (unknown)",
    ]


def test_shares_of_opposite_causes_are_signed_and_small_ones_are_added_up():
    now = side(power_w=560.0, idle_power_w=160.0, batch=99.0, mean_in_flight=99.0)

    lines = causes(diagnose([side()], [now]))

    shares = [int(line[:6]) for line in lines[1:] if line[7:8] == "%"]
    assert abs(sum(shares) - 100) <= 1
    assert "static-power" in lines[1]


def test_no_change_has_no_causes():
    assert causes(diagnose([side()], [side(power_w=500.5)])) == [
        "why: there is no change to explain"
    ]


def test_json_adds_up_and_is_json():
    made = diagnose([side()], [STARVED])

    values = json.loads(json.dumps(causes_json(made)))

    told = sum(cause["contribution"] for cause in values["causes"])
    assert told == pytest.approx(values["ln_change"], abs=1e-12)
    assert values["causes"][0]["code"] == "memory-capacity"
    assert values["causes"][0]["signs"][0] == {
        "quantity": "requests in the batch",
        "then": 100.0,
        "now": 80.0,
        "unit": "",
    }
    assert [part["quantity"] for part in values["identity"]] == ["power", "step time", "batch"]
