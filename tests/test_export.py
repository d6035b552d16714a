import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from pytest_joules.errors import ConfigurationError
from pytest_joules.report.export import export, require_suffix, row
from pytest_joules.result import Reason, Result
from pytest_joules.verdict import Comparison, Verdict
from tests.fakes.results import make_evidence, make_result

TOKENS = make_result(
    0.5, batch_size=8, evidence=make_evidence(), median_itl_s=0.02, mean_output_tokens=200.0
)
INVALID = make_result(
    1.0,
    batch_size=16,
    reasons=(Reason(code="mig-on", text='a, "b"\nc'), Reason(code="gpu-lost", text="x")),
)
IMAGES = make_result(1500.0, model="x/y", task="text-to-image", source="recorded")
COMPARISON = Comparison(
    point=TOKENS.point,
    verdict=Verdict.UNCHANGED,
    reference="baseline",
    change=0.01,
    low=0.0,
    high=0.02,
    tolerance=0.03,
    detectable=0.02,
    energy_per_work_unit_j=0.5,
    reference_energy_per_work_unit_j=0.495,
    num_launches=3,
    num_reference_launches=8,
)


def csv(path: Path, *results: Result) -> pd.DataFrame:
    export(path, results, {TOKENS.point: COMPARISON})
    return pd.read_csv(path)


def test_pandas_reads_the_same_values_back(tmp_path: Path) -> None:
    frame = csv(tmp_path / "a.csv", TOKENS, INVALID, IMAGES)

    assert list(frame["point"]) == [r.point.id for r in (TOKENS, INVALID, IMAGES)]
    assert list(frame["source"]) == ["live", "live", "recorded"]
    assert list(frame["energy_per_token_j"][:2]) == [0.5, 1.0]
    assert frame["energy_per_token_j"].isna()[2]
    assert frame["energy_per_image_j"][2] == 1500.0
    assert list(frame["power_w"]) == [50.0, 100.0, 150_000.0]
    assert list(frame["is_valid"]) == [True, False, True]
    assert frame["reasons"][1] == "mig-on gpu-lost"
    assert frame["verdict"][0] == "unchanged"
    assert frame["change"][0] == 0.01
    assert frame["median_itl_s"][0] == 0.02
    assert frame["verdict"].isna()[1]


@pytest.mark.parametrize(
    "model", ["=1+1", "+1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1"]
)
def test_a_spreadsheet_takes_no_name_for_a_formula(model: str, tmp_path: Path) -> None:
    result = make_result(0.5, model=model, gpu=f"={model}")

    frame = csv(tmp_path / "a.csv", result)

    for name in frame.select_dtypes(exclude="number"):
        assert str(frame[name][0])[0] not in "=+-@\t\r"
    assert row(result, None)["model"] == f"'{model}"


def test_plain_names_are_left_alone() -> None:
    assert row(TOKENS, None)["model"] == "Qwen/Qwen3-8B"


def test_json_is_what_the_schema_says(tmp_path: Path) -> None:
    export(tmp_path / "a.json", [TOKENS, INVALID, IMAGES], {})

    schema = json.loads((files("pytest_joules") / "schemas" / "result.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    values = json.loads((tmp_path / "a.json").read_text())
    assert [list(validator.iter_errors(value)) for value in values] == [[], [], []]
    assert [Result.from_json(value) for value in values] == [TOKENS, INVALID, IMAGES]


def test_both_schemas_are_schemas() -> None:
    folder = files("pytest_joules") / "schemas"
    for name in ("result.json", "baseline.json"):
        jsonschema.Draft7Validator.check_schema(json.loads((folder / name).read_text()))


def test_no_results_make_an_empty_file(tmp_path: Path) -> None:
    export(tmp_path / "a.json", [], {})
    export(tmp_path / "a.csv", [], {})

    assert json.loads((tmp_path / "a.json").read_text()) == []
    assert not (tmp_path / "a.csv").read_text().strip()


@pytest.mark.parametrize("name", ["a.txt", "a", "a.CSV", "a.json.gz"])
def test_an_unknown_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"use \.csv or \.json"):
        export(tmp_path / name, [TOKENS], {})
    assert list(tmp_path.iterdir()) == []
    require_suffix(Path("a.json"))
