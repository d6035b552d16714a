"""Harmed files are refused with file and reason, or read; never a traceback, never a write.

A few hundred inputs; ``tests/perf/fuzz_files.py`` draws 100,000 and lets coverage lead.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_joules.errors import ConfigurationError, FormatError
from pytest_joules.options.frozen import Options
from pytest_joules.record.replaying import replay
from pytest_joules.sources.mlenergy import read_leaderboard
from pytest_joules.sources.store import result_of
from tests.fakes import mutations
from tests.fakes.fuzz_targets import Workspace, drawn, targets, workspace
from tests.fakes.results import make_run

INPUTS = 40


@pytest.fixture(scope="module", params=list(targets()))
def space(request: pytest.FixtureRequest) -> Iterator[Workspace]:
    with workspace(targets()[request.param]) as made:
        yield made


@settings(max_examples=INPUTS, database=None, derandomize=True)
@given(stream=st.randoms(use_true_random=False))
def test_a_harmed_file_is_read_or_refused(space, stream):
    path, data = drawn(stream, space.target)

    outcome = space.outcome(path, data)

    assert outcome.kind in ("read", "refused"), f"{path}: {outcome.text}\n{data[:2000]!r}"


@pytest.mark.parametrize(
    "data", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"[", b"[" * 99_999, b'{"a":' * 99_999]
)
def test_what_is_no_text_at_all_is_refused(space, data):
    """A byte-order mark alone, half a file, and brackets deeper than any parser goes."""
    path = next(p for p in space.target.trees if not p.endswith((".jsonl", "ini.json")))
    is_foreign = path == "marker.json"  # Python's own source, refused before it comes to us
    is_empty = path == "pyproject.toml" and not data

    kind = space.outcome(path, data).kind

    assert kind == ("read" if is_foreign or is_empty else "refused")


# --- what this fuzzing has found, one by one ------------------------------------------------


def stored(**changes):
    """Make the JSON of a result, changed somewhere inside."""
    values = json.loads(json.dumps(make_run(1.0, batch_size=8, gpu="h200").as_json()))
    for path, value in changes.items():
        *above, last = path.split("__")
        place = values
        for name in above:
            place = place[name]
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"energy_per_work_unit_j": "1.0"}, "energy_per_work_unit_j"),
        ({"throughput_work_units_per_s": {}}, "throughput_work_units_per_s"),
        ({"mean_batch_size": [8.0]}, "mean_batch_size"),
        ({"latency": [1]}, "latency"),
        ({"provenance__context__gpu_uuids": 1.5}, "gpu_uuids"),
        ({"evidence__series_energy_j": [100.0] * 59}, "series_energy_j and series_work_units"),
        ({"evidence__series_energy_j": "eJw="}, "series_energy_j and series_work_units"),
        ({"evidence__series_work_units": [[1.0]] * 60}, "series_work_units"),
    ],
)
def test_a_result_of_wrong_type_names_its_field(changes, named):
    with pytest.raises(FormatError, match=rf"^all\.json, row 3: .*{named}"):
        result_of(stored(**changes), "all.json, row 3")


def test_a_whole_number_written_as_a_float_is_one():
    result = result_of(stored(evidence__clock_event_reasons=4.0), "x")

    assert result.evidence.clock_event_reasons == 4
    assert isinstance(result.evidence.clock_event_reasons, int)


def test_of_an_invalid_result_only_types_must_be_right():
    """What stood still is zero, and what was not measured is null; both are stored."""
    reasons = [{"code": "counter-frozen", "text": "It stood still."}]
    broken = {"energy_per_work_unit_j": None, "evidence__window_s": 0.0, "reasons": reasons}

    assert not result_of(stored(**broken), "x").is_valid
    with pytest.raises(FormatError, match="energy_per_work_unit_j"):
        result_of(stored(**{**broken, "energy_per_work_unit_j": "0"}), "x")
    with pytest.raises(FormatError, match=r"energy_per_work_unit_j|window_s"):
        result_of(stored(**{**broken, "reasons": []}), "x")


def test_the_name_of_no_task_leads_to_no_file(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "outside.json").write_text('{"task": "../outside", "configurations": []}')
    index = {"last_updated": "2026-02-16", "tasks": ["../outside"], "models": {"m": {}}}
    index["models"]["m"] = {
        "nickname": "M",
        "architecture": "MoE",
        "total_params_billions": 1.0,
        "activated_params_billions": 1.0,
    }
    (tmp_path / "index.json").write_text(json.dumps(index))

    with pytest.raises(FormatError, match=r"index\.json, field tasks: .*\.\./outside"):
        read_leaderboard(tmp_path)


def test_a_number_of_5000_digits_in_the_configuration_is_told(tmp_path):
    (tmp_path / "pyproject.toml").write_text(f"[tool.pytest-joules]\nwindow = {'9' * 5_000}\n")
    config = type("Config", (), {"rootpath": tmp_path})()

    with pytest.raises(ConfigurationError, match=r"pyproject\.toml: "):
        Options.from_pytest(config)


# --- the fuzzing itself ---------------------------------------------------------------------


def test_the_same_seed_harms_the_same_way():
    for target in targets().values():
        assert drawn(Random(5), target) == drawn(Random(5), target)


def test_a_reader_that_breaks_a_promise_is_noticed():
    """A harness that finds nothing, whatever happens, would be worth nothing."""
    target = targets()["marker"]

    def used(reader):
        with workspace(target) as space:
            broken = type(target)(name="x", trees=target.trees, use=reader)
            return Workspace(broken, space.folder).outcome("marker.json", b"{}").kind

    def raises(error):
        def reader(_):
            raise error

        return reader

    assert used(lambda folder: (folder / "new").write_text("")) == "wrote"
    assert used(lambda folder: (folder / "marker.json").write_text("")) == "wrote"
    assert used(raises(KeyError("x"))) == "crash"
    assert used(raises(FormatError("something is wrong"))) == "without file"
    assert used(raises(ConfigurationError("--gpu=x: wrong"))) == "refused"


def test_every_change_of_a_tree_is_drawn():
    tree = {"a": 1, "b": [1.5, {"c": "x"}], "d": None}

    made = [mutations.mutated(Random(seed), tree)[0] for seed in range(500)]

    assert tree == {"a": 1, "b": [1.5, {"c": "x"}], "d": None}
    assert {type(each) for each in made} >= {dict, list, str, int, float}
    assert any(isinstance(m, dict) and "a" not in m for m in made)
    assert any(isinstance(m, dict) and len(m) > 3 for m in made)
    assert len({json.dumps(m) for m in made}) > 100


def test_a_configuration_is_written_as_toml_that_can_be_read():
    target = targets()["configuration"]
    tree = target.trees["pyproject.toml"]

    assert tomllib.loads(mutations.as_toml(tree).decode())["tool"]["pytest-joules"] == tree


def test_a_session_that_the_package_wrote_is_read_whole():
    session = targets()["session"]
    assert {*session.trees} == {
        *("session.json", "plan.json", "results.jsonl"),
        *("baselines.jsonl", "verdicts.jsonl", "end.json"),
    }
    with workspace(session) as space:
        (again,) = replay(space.folder)

    assert again.is_same


def test_a_whole_number_with_a_point_is_one():
    """JSON's schemas take 2.0 for an integer, Python does not."""
    target = targets()["session"]
    path = "verdicts.jsonl"
    valid = target.data(path, target.trees[path])
    written = re.sub(rb'("num_results": \d+)', rb"\1.0", valid)
    assert written != valid

    with workspace(target) as space:
        assert space.outcome(path, written).kind == "read"
