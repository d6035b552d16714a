"""Formats of benchmark trackers, held against what their makers publish."""

import json
import re
from typing import Any

import jsonschema
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pytest_joules.digest import Digest, rows_of
from pytest_joules.report.trackers import bencher, github_benchmark, openmetrics
from pytest_joules.result import Reason
from tests.fakes.results import make_comparison, make_result

# Published as https://bencher.dev/bmf.json
BMF: dict[str, Any] = {
    "$id": "https://bencher.dev/bmf.json",
    "$schema": "http://json-schema.org/draft-07/schema",
    "type": "object",
    "patternProperties": {
        ".+": {
            "type": "object",
            "patternProperties": {
                ".+": {
                    "type": "object",
                    "properties": {
                        "value": {"type": "number"},
                        "lower_value": {"type": "number"},
                        "upper_value": {"type": "number"},
                    },
                    "required": ["value"],
                }
            },
        }
    },
}
# The example for customSmallerIsBetter in the README of
# https://github.com/benchmark-action/github-action-benchmark. Its src/extract.ts takes name,
# value and unit, and optionally range and extra: value is a number, the others are strings.
SMALLER: list[dict[str, Any]] = [
    {
        "name": "My Custom Smaller Is Better Benchmark - CPU Load",
        "unit": "Percent",
        "value": 50,
    },
    {
        "name": "My Custom Smaller Is Better Benchmark - Memory Used",
        "unit": "Megabytes",
        "value": 100,
        "range": "3",
        "extra": "Value for Tooltip: 25\nOptional Num #2: 100\nAnything Else!",
    },
]

# How its charts read a range (src/extractRangeInfo.ts): a sign, then what must be a number.
RANGE = re.compile(r"(\+-|±)\s*(?P<value>\d.*)")

FIRST, SECOND = make_result(0.4, batch_size=8), make_result(0.6, batch_size=8)
IMAGE = make_result(1500.0, model="x", task="text-to-image", source="fake")
BROKEN = make_result(9.0, batch_size=16, reasons=(Reason(code="mig-on", text="on"),))
DIGEST = Digest(
    rows=rows_of([FIRST, SECOND, IMAGE, BROKEN], {FIRST.point: make_comparison(FIRST.point)})
)
NAME = f"{FIRST.point.id} on b200 (live)"


def test_bencher_takes_it() -> None:
    values = json.loads(bencher(DIGEST))

    jsonschema.validate(values, BMF)
    assert set(values) == {NAME, f"{IMAGE.point.id} on b200 (fake)"}
    assert values[NAME]["energy-per-token"] == {
        "value": 0.5,
        "lower_value": 0.4,
        "upper_value": 0.6,
    }
    assert all(len(name) <= 1024 for name in values)
    assert all(len(measure) <= 64 for each in values.values() for measure in each)


def test_github_action_benchmark_takes_it() -> None:
    values = json.loads(github_benchmark(DIGEST))

    known = {name: type(value) for each in SMALLER for name, value in each.items()}
    for each in values:
        assert {"name", "unit", "value"} <= set(each) <= set(known)
        assert isinstance(each["value"], int | float)
        assert all(isinstance(v, str) for k, v in each.items() if k != "value")
    assert values[0] == {
        "name": NAME,
        "unit": "J/token",
        "value": 0.5,
        "range": "± 0.1",
        "extra": "regression, 2 launches",
    }
    assert float(RANGE.fullmatch(values[0]["range"])["value"]) == 0.1


def samples(text: str) -> dict[str, list[Any]]:
    families = text_string_to_metric_families(text)
    return {family.name: list(family.samples) for family in families}


def test_openmetrics_is_read_by_prometheus_own_parser() -> None:
    text = openmetrics(DIGEST)
    found = samples(text)

    assert text.endswith("# EOF\n")
    (tokens,) = found["joules_energy_per_token_joules"]
    assert tokens.value == 0.5
    assert tokens.labels["point"] == FIRST.point.id
    assert tokens.labels["batch_size"] == "8"
    assert tokens.labels["gpu"] == "b200"
    assert found["joules_energy_per_image_joules"][0].labels["source"] == "fake"
    assert [s.value for s in found["joules_valid"]] == [1, 1, 0]
    (told,) = [s.labels["joules_verdict"] for s in found["joules_verdict"] if s.value == 1]
    assert told == "regression"


def test_openmetrics_says_what_a_rate_is_of() -> None:
    told = [line for line in openmetrics(DIGEST).splitlines() if "HELP joules_thr" in line]

    assert (
        "# HELP joules_throughput_tokens_per_second "
        "Mean of the valid launches, in tokens per second." in told
    )


@pytest.mark.parametrize("write", [bencher, github_benchmark, openmetrics])
def test_an_invalid_measurement_continues_no_history(write: Any) -> None:
    text = write(Digest(rows=rows_of([BROKEN], {})))

    assert "9.0" not in text


def test_one_launch_has_no_bounds() -> None:
    one = Digest(rows=rows_of([FIRST], {}))

    assert json.loads(bencher(one))[NAME]["power"] == {"value": 40.0}
    (told,) = json.loads(github_benchmark(one))
    assert "range" not in told
    assert told["extra"] == "not compared, 1 launch"


def test_no_results_are_well_formed_too() -> None:
    assert json.loads(bencher(Digest())) == {}
    assert json.loads(github_benchmark(Digest())) == []
    assert set(samples(openmetrics(Digest()))) >= {"joules_valid", "joules_verdict"}
