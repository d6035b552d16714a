"""--joules-export."""

import json

import pandas as pd

from pytest_joules import Result


def test_csv_holds_one_row_for_each_measurement(joules):
    joules.run("--joules-record")

    joules.run("--joules-export=out.csv").assert_outcomes(passed=2)

    frame = pd.read_csv(joules.path / "out.csv")
    assert set(frame["verdict"]) == {"unchanged"}
    assert set(frame["source"]) == {"fake"}
    assert sorted(set(frame["batch_size"])) == [16, 64]
    by_hand = frame["power_w"] / frame["throughput_tokens_per_s"]
    assert (abs(frame["energy_per_token_j"] / by_hand - 1) < 1e-9).all()


def test_json_can_be_read_back_as_results(joules):
    joules.run("--joules-record", "--joules-export=out.json")

    stored = json.loads((joules.path / "out.json").read_text())
    assert len(stored) == 6
    assert {Result.from_json(values).point.batch_size for values in stored} == {16, 64}


def test_invalid_measurements_are_exported_with_their_reasons(joules):
    joules.machine("foreign_pids=(77,)")

    joules.run("--joules-record", "--joules-export=out.csv").assert_outcomes(failed=2)

    frame = pd.read_csv(joules.path / "out.csv")
    assert not frame["is_valid"].any()
    assert set(frame["reasons"]) == {"foreign-process"}


def test_each_of_several_exports_is_written(joules):
    joules.pyproject("[tool.pytest-joules]\nexport = ['table.csv']\n")
    (joules.path / "pytest.ini").write_text("[pytest]\njoules_export = ini.csv\n")
    names = ["a.csv", "b.json", "c.json"]

    joules.run("--joules-export=a.csv", "--joules-export=b.json,c.json")

    assert all((joules.path / name).exists() for name in names)
    assert not any((joules.path / name).exists() for name in ("table.csv", "ini.csv"))
    joules.run()
    assert (joules.path / "table.csv").exists()
