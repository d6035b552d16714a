import json
import math
from importlib.resources import files
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from pytest_joules.digest import Digest, rows_of
from pytest_joules.errors import ConfigurationError
from pytest_joules.intervals import LatencyIntervals
from pytest_joules.report.export import Target, as_json, export
from pytest_joules.result import Reason, Result
from pytest_joules.verdict import Verdict
from tests.fakes.results import make_comparison, make_evidence, make_result

TOKENS = make_result(
    0.5, batch_size=8, evidence=make_evidence(), median_itl_s=0.02, mean_output_tokens=200.0
)
INVALID = make_result(
    1.0,
    batch_size=16,
    reasons=(Reason(code="mig-on", text='a, "b"\nc'), Reason(code="gpu-lost", text="x")),
)
SAMPLED = TOKENS.but(
    latency_intervals=LatencyIntervals(
        num_itl_requests=16,
        num_ttft_requests=15,
        median_itl_s=(0.019, 0.022),
        p99_itl_s=(0.03, None),
    )
)
IMAGES = make_result(1500.0, model="x/y", task="text-to-image", source="recorded")
COMPARISON = make_comparison(TOKENS.point, verdict=Verdict.UNCHANGED, change=0.01)


def digest(*results: Result) -> Digest:
    return Digest(rows=rows_of(results, {TOKENS.point: COMPARISON}))


def written(path: Path, *results: Result) -> pd.DataFrame:
    export(Target.parse(str(path)), digest(*results))
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_pandas_reads_the_same_values_back(name: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="pytest-joules[parquet] is not installed")
    frame = written(tmp_path / name, TOKENS, INVALID, IMAGES)

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
    assert not isinstance(frame["verdict"][1], str) or not frame["verdict"][1]


def test_percentiles_stand_beside_their_intervals(tmp_path: Path) -> None:
    frame = written(tmp_path / "a.csv", SAMPLED)

    assert list(frame.filter(like="itl").iloc[0].dropna().items()) == [
        ("median_itl_s", 0.02),
        ("median_itl_low_s", 0.019),
        ("median_itl_high_s", 0.022),
        ("p99_itl_low_s", 0.03),
    ]
    assert frame["p99_itl_high_s"].isna()[0]


def test_the_old_stacks_launches_have_no_verdict(tmp_path: Path) -> None:
    def of(stack: str) -> Result:
        context = TOKENS.provenance.context
        changed = type(context)(stack=stack)
        return TOKENS.but(
            provenance=type(TOKENS.provenance)(
                identity=TOKENS.provenance.identity, context=changed
            )
        )

    against = make_comparison(TOKENS.point, reference="old")
    found = Digest(rows=rows_of([of("old"), of("new")], {TOKENS.point: against}))
    export(Target.parse(str(tmp_path / "a.csv")), found)

    frame = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert list(zip(frame["stack"], frame["verdict"], strict=True)) == [
        ("old", ""),
        ("new", "regression"),
    ]


@pytest.mark.parametrize(
    "model", ["=1+1", "+1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1", "\n=1"]
)
def test_a_spreadsheet_takes_no_name_for_a_formula(model: str, tmp_path: Path) -> None:
    result = make_result(0.5, model=model, gpu=f"={model}")

    frame = written(tmp_path / "a.csv", result)

    for name in frame.select_dtypes(exclude="number"):
        assert str(frame[name][0])[0] not in "=+-@\t\r\n"
    assert len(frame) == 1
    assert model.strip() in frame["model"][0]


def test_plain_names_and_negative_numbers_are_left_alone(tmp_path: Path) -> None:
    better = make_comparison(TOKENS.point, change=-0.2, verdict=Verdict.IMPROVEMENT)
    found = Digest(rows=rows_of([TOKENS], {TOKENS.point: better}))
    export(Target.parse(str(tmp_path / "a.csv")), found)

    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame["model"][0] == "Qwen/Qwen3-8B"
    assert frame["change"][0] == -0.2


def test_json_is_what_the_schema_says_and_holds_the_verdict(tmp_path: Path) -> None:
    export(Target.parse(f"{tmp_path}/a.json"), digest(SAMPLED, INVALID, IMAGES))

    schema = json.loads((files("pytest_joules") / "schemas" / "result.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    values = json.loads((tmp_path / "a.json").read_text())
    assert [list(validator.iter_errors(value)) for value in values] == [[], [], []]
    assert [Result.from_json(value) for value in values] == [SAMPLED, INVALID, IMAGES]
    assert values[0]["comparison"]["verdict"] == "unchanged"
    assert values[0]["comparison"]["change"] == 0.01
    assert values[1]["comparison"] is None


def test_json_has_no_number_that_json_has_not() -> None:
    broken = make_result(math.nan, reasons=(Reason(code="gpu-lost", text="x"),))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    (values,) = json.loads(as_json(digest(broken)), parse_constant=refuse)
    assert values["energy_per_work_unit_j"] is None
    assert math.isnan(Result.from_json(values).energy_per_work_unit_j)


def test_every_schema_is_a_schema() -> None:
    folder = files("pytest_joules") / "schemas"
    for name in ("result", "baseline", "session-end", "session-verdict"):
        jsonschema.Draft7Validator.check_schema(
            json.loads((folder / f"{name}.json").read_text())
        )


def test_no_results_make_an_empty_file(tmp_path: Path) -> None:
    export(Target.parse(f"{tmp_path}/a.json"), Digest())
    export(Target.parse(f"{tmp_path}/a.csv"), Digest())

    assert json.loads((tmp_path / "a.json").read_text()) == []
    assert not (tmp_path / "a.csv").read_text().strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.json", ("a.json", "json")),
        ("b.csv", ("b.csv", "csv")),
        ("bencher:b.json", ("b.json", "bencher")),
        ("json:b.txt", ("b.txt", "json")),
        ("./odd:name.csv", ("odd:name.csv", "csv")),
    ],
)
def test_the_format_is_the_suffix_or_named(text: str, expected: tuple[str, str]) -> None:
    target = Target.parse(text)

    assert (target.path.name, target.format) == expected


@pytest.mark.parametrize(
    "name", ["a.txt", "a", "a.CSV", "a.json.gz", "benchr:a.json", ":a.csv"]
)
def test_an_unknown_format_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigurationError, match=r"the format is unknown.*\.csv.*openmetrics"):
        Target.parse(name)


@pytest.mark.parametrize("place", ["missing/a.csv", ".csv/"])
def test_a_place_that_cannot_hold_a_file_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".csv").mkdir()

    with pytest.raises(ConfigurationError, match=r"does not exist|that is a folder"):
        Target.parse(f"csv:{place}")
    assert not (tmp_path / "missing").exists()
