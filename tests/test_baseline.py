import base64
import json
import multiprocessing
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules import baseline, storage
from pytest_joules.baseline import (
    Acceptance,
    Entry,
    accept,
    dump,
    dump_entries,
    entries,
    load,
    parse,
    parse_entries,
    path_for,
    record,
    runs_for,
    store_calibration,
)
from pytest_joules.errors import (
    BaselineError,
    BaselineMismatch,
    BaselineMissing,
    FormatError,
    JoulesError,
)
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Reason, Result
from tests.fakes.results import make_result, make_run

GOLDEN = """\
{
  "gpu": "b200",
  "points": [
    {
      "point": {"batch_size": 8, "engine": "vllm", "model": "Qwen/Qwen3-8B", "num_gpus": 1, \
"precision": "bf16", "task": "text-conversation"},
      "runs": [
        {"energy_per_work_unit_j": 0.1235, "evidence": null, "latency": {}, \
"mean_batch_size": 8.0, "notes": [], "provenance": PROVENANCE, "source": "live", \
"throughput_work_units_per_s": 100.0},
        {"energy_per_work_unit_j": 0.1236, "evidence": null, \
"latency": {"median_itl_s": 0.02}, \
"mean_batch_size": 8.0, "notes": [], "provenance": PROVENANCE, "source": "live", \
"throughput_work_units_per_s": 100.0}
      ]
    },
    {
      "point": {"batch_size": 16, "engine": "vllm", "model": "Qwen/Qwen3-8B", "num_gpus": 1, \
"precision": "bf16", "task": "text-conversation"},
      "runs": [
        {"energy_per_work_unit_j": 0.1, "evidence": null, "latency": {}, \
"mean_batch_size": 16.0, "notes": [], "provenance": PROVENANCE, "source": "live", \
"throughput_work_units_per_s": 100.0}
      ]
    }
  ],
  "schema": 2
}
"""
PROVENANCE = (
    '{"context": {"driver": "", "gpu_uuids": [], "model_revision": null, '
    '"packages": {}, "plugin": "", "recorded_at": "", "session": "", "stack": ""}, '
    '"identity": {"gpu_model": "NVIDIA B200", "memory_bytes": null, "mig": null, '
    '"num_gpus": 1, "power_limit_w": null, "topology": null}}'
)
SMALL = make_result(0.123456, batch_size=8)
WHOLE = make_run(0.5, batch_size=8)


def test_a_file_reads_well_in_a_review() -> None:
    runs = {
        make_result(0.1, batch_size=16).point: [make_result(0.1, batch_size=16)],
        SMALL.point: [SMALL, make_result(0.12361, batch_size=8, median_itl_s=0.02)],
    }

    text = dump("b200", runs)

    assert text == GOLDEN.replace("PROVENANCE", PROVENANCE)


def read_back(*results: Result) -> tuple[Result, ...]:
    point = results[0].point
    return parse(json.loads(dump(results[0].gpu, {point: results})), name="f")[point]


amounts = st.floats(1e-6, 1e6)
series = st.lists(st.tuples(st.floats(1, 1e5), st.floats(1, 1e5)), max_size=20)


def shared(total: float, weights: list[float]) -> tuple[float, ...]:
    return tuple(total * weight / sum(weights) for weight in weights)


@given(energy=amounts, speed=amounts, batch=st.floats(85, 102), pairs=series)
def test_a_run_survives_within_four_digits(
    *, energy: float, speed: float, batch: float, pairs: list[tuple[float, float]]
) -> None:
    work_units = 60 * speed
    joules = shared(energy * work_units, [e for e, _ in pairs])
    units = shared(work_units, [n for _, n in pairs])
    run = make_run(
        energy,
        throughput_work_units_per_s=speed,
        batch_size=100,
        mean_batch_size=batch,
        gpu_energy_j=(energy * work_units,),
        work_units=work_units,
        series_energy_j=joules,
        series_work_units=units,
        notes=(Reason(code="power-capped", text="in 3 of 1234567 readings"),),
    )

    (back,) = read_back(run)

    assert back.evidence is not None
    assert back.evidence.series_energy_j == pytest.approx(joules, rel=1e-6)
    assert back.evidence.series_work_units == pytest.approx(units, rel=1e-6)
    assert back.energy_per_work_unit_j == pytest.approx(energy, rel=5.001e-4)
    assert back.throughput_work_units_per_s == pytest.approx(speed, rel=5.001e-4)
    assert back.mean_batch_size == pytest.approx(batch, rel=5.001e-4)
    assert back.notes == run.notes
    assert (back.point, back.gpu, back.source) == (run.point, run.gpu, run.source)
    # What was rounded once stays as it is: a file is not changed by being written again.
    assert read_back(back) == (back,)


@given(limit_w=st.floats(1, 2000), memory=st.integers(1, 2**45))
def test_identity_is_never_rounded(limit_w: float, memory: int) -> None:
    identity = Identity(
        gpu_model="x", num_gpus=1, memory_bytes=memory, power_limit_w=limit_w, mig=False
    )
    context = Context(driver="580.65.06", packages={"vllm": "0.33"}, gpu_uuids=("GPU-1",))
    provenance = Provenance(identity=identity, context=context)

    assert read_back(SMALL.but(provenance=provenance))[0].provenance == provenance


def test_launches_between_which_a_setting_changed_are_not_recorded(tmp_path: Path) -> None:
    """Neither of them is in the file yet, so only each other shows it."""
    provenance = [
        replace(each, identity=replace(each.identity, power_limit_w=watts))
        for each, watts in ((SMALL.provenance, 700.0), (SMALL.provenance, 500.0))
    ]
    runs = [
        make_run(provenance=each, launch_id=f"launch-{i}") for i, each in enumerate(provenance)
    ]

    with pytest.raises(BaselineMismatch, match=r"power_limit_w=700\.0, this machine has 500"):
        record(tmp_path, runs)
    assert storage.files_below(tmp_path, ".json") == []


def test_points_keep_every_field() -> None:
    odd = make_result(
        0.5, batch_size=3, seed=7, engine_args=("--x=1.23456789",), num_requests=99
    )

    assert read_back(odd)[0].point == odd.point


@pytest.mark.parametrize(
    "model",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "a/../../b",
        "..\\..\\windows",
        "Qwen/Qwen3-8B",
        ".hidden",
        "模型",
        "x" * 5000,
        "~root/x",
        "a\nb",
    ],
)
@pytest.mark.parametrize("gpu", ["h200", "../../h200", "NVIDIA H200"])
def test_no_name_leads_out_of_the_root(model: str, gpu: str, tmp_path: Path) -> None:
    result = make_result(0.5, model=model, gpu=gpu)

    (path,) = record(tmp_path / "root", [result])

    assert path.resolve().is_relative_to((tmp_path / "root").resolve())
    assert len(path.relative_to(tmp_path / "root").parts) == 4
    assert not path.name.startswith(".")
    assert runs_for(tmp_path / "root", result.point, gpu)[0].point == result.point


def test_long_names_that_begin_alike_have_files_of_their_own(tmp_path: Path) -> None:
    one, other = (Point(model="x" * 300 + end) for end in "ab")

    assert path_for(tmp_path, one, "h200") != path_for(tmp_path, other, "h200")


def test_files_are_found_where_the_issue_says(tmp_path: Path) -> None:
    assert path_for(tmp_path, SMALL.point, "b200") == (
        tmp_path / "b200" / "vllm" / "text-conversation" / "qwen-qwen3-8b.json"
    )


@given(
    gpus=st.lists(
        st.sampled_from(["fake", "simulated", "vllm", "h200"]), min_size=2, max_size=2
    ),
    source=st.sampled_from(["fake", "simulated", "recorded"]),
)
def test_live_and_anything_else_never_share_a_path(gpus: list[str], source: str) -> None:
    root = Path("/root")

    live = path_for(root, SMALL.point, gpus[0])
    other = path_for(root, SMALL.point, gpus[1], source=source)

    assert live != other
    assert live not in other.parents
    assert other not in live.parents


def test_runs_are_added_oldest_first_and_replaced_where_asked(tmp_path: Path) -> None:
    runs = [make_result(energy) for energy in (0.1, 0.2, 0.3)]
    record(tmp_path, runs[:1])
    record(tmp_path, runs[1:])

    assert runs_for(tmp_path, runs[0].point, "b200") == tuple(runs)

    record(tmp_path, runs[2:], replace=True)

    assert runs_for(tmp_path, runs[0].point, "b200") == (runs[2],)


def test_copies_of_one_launch_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    once = make_run(launch_id="same")
    (path,) = record(tmp_path, [once])
    before = path.read_text()

    with pytest.raises(FormatError, match=r"points\[0\]: launch_id 'same' stands in two runs"):
        record(tmp_path, [once])

    assert path.read_text() == before


def test_replacing_one_point_keeps_the_others(tmp_path: Path) -> None:
    small, large = make_result(0.1, batch_size=1), make_result(0.2, batch_size=64)
    record(tmp_path, [small, large])

    record(tmp_path, [small.but(energy_per_work_unit_j=0.3)], replace=True)

    assert runs_for(tmp_path, large.point, "b200") == (large,)


def test_what_is_not_recorded_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BaselineMissing, match=r"does not exist.*--joules-record"):
        runs_for(tmp_path, SMALL.point, "b200")
    record(tmp_path, [SMALL])
    with pytest.raises(BaselineMissing, match="other points, but not this one"):
        runs_for(tmp_path, SMALL.point.but(batch_size=9), "b200")
    with pytest.raises(BaselineMissing):
        runs_for(tmp_path, SMALL.point, "h200")
    with pytest.raises(BaselineMissing):
        runs_for(tmp_path, SMALL.point, "b200", source="fake")


def test_fake_runs_that_were_moved_among_the_live_ones_are_refused(tmp_path: Path) -> None:
    fake = SMALL.but(source="fake")
    (written,) = record(tmp_path, [fake])
    live = path_for(tmp_path, fake.point, "b200")
    live.parent.mkdir(parents=True)
    written.rename(live)

    with pytest.raises(FormatError, match="has runs that are fake, not live"):
        runs_for(tmp_path, fake.point, "b200")


def test_an_invalid_result_is_refused(tmp_path: Path) -> None:
    invalid = SMALL.but(reasons=(Reason(code="counter-frozen", text="it stood still"),))

    with pytest.raises(BaselineError, match=r"\(counter-frozen\) cannot be recorded"):
        record(tmp_path, [SMALL, invalid])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("energy", [0.0, -1.0, float("nan"), float("inf")])
def test_an_energy_that_could_not_be_read_back_is_not_written(
    energy: float, tmp_path: Path
) -> None:
    (path,) = record(tmp_path, [SMALL])
    before = path.read_bytes()

    with pytest.raises(FormatError):
        record(tmp_path, [make_result(energy, batch_size=8)])

    assert path.read_bytes() == before


@pytest.mark.parametrize("operation", ["replace"])
def test_a_failing_write_leaves_the_old_file_whole(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = record(tmp_path, [SMALL])
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, operation, fail)
        with pytest.raises(BaselineError, match="No space left on device; it is as before"):
            record(tmp_path, [SMALL])

    assert path.read_bytes() == before
    assert [p for p in path.parent.iterdir() if p.suffix != ".lock"] == [path]


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "b200").write_text("in the way")

    with pytest.raises(BaselineError, match="cannot be written"):
        record(tmp_path, [SMALL])


def record_some(root: Path, first: int, begin: Any) -> None:
    begin.wait(60)
    for number in range(first, first + 5):
        record(root, [make_result(float(number))])


def test_two_processes_that_record_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(2)
    workers = [
        context.Process(target=record_some, args=(tmp_path, first, begin)) for first in (1, 11)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)

    runs = runs_for(tmp_path, make_result().point, "b200")
    assert sorted(run.energy_per_work_unit_j for run in runs) == [
        1,
        2,
        3,
        4,
        5,
        11,
        12,
        13,
        14,
        15,
    ]


Change = Callable[[dict[str, Any]], object]


def first_run(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = values["points"][0]["runs"][0]
    return found


def packed(numbers: bytes) -> str:
    return base64.b64encode(zlib.compress(numbers)).decode()


def series_of(text: Any) -> Change:
    return lambda v: first_run(v)["evidence"].update(series_energy_j=text)


def negative_series(values: dict[str, Any]) -> None:
    numbers = {"series_energy_j": [4000.0, -1000.0], "series_work_units": [3000.0, 3000.0]}
    first_run(values)["evidence"].update(numbers)


BROKEN: list[tuple[str, Change, str]] = [
    ("no-schema", lambda v: v.pop("schema"), "schema is None"),
    ("schema-text", lambda v: v.update(schema="1"), "schema is '1'"),
    ("schema-true", lambda v: v.update(schema=True), "schema is True"),
    ("schema-newer", lambda v: v.update(schema=3), "schema is 3.*upgrade pytest-joules"),
    ("schema-older", lambda v: v.update(schema=0), "schema is 0.*record it again"),
    ("no-gpu", lambda v: v.pop("gpu"), "must contain"),
    ("no-runs", lambda v: v["points"][0].update(runs=[]), r"points\[0\]\.runs must contain"),
    (
        "missing-field",
        lambda v: first_run(v).pop("energy_per_work_unit_j"),
        r"points\[0\]\.runs\[0\] must contain .*energy_per_work_unit_j",
    ),
    (
        "wrong-type",
        lambda v: first_run(v).update(energy_per_work_unit_j="0.5"),
        r"points\[0\]\.runs\[0\]\.energy_per_work_unit_j must be number",
    ),
    (
        "zero",
        lambda v: first_run(v).update(energy_per_work_unit_j=0),
        r"energy_per_work_unit_j must be bigger than 0",
    ),
    ("unknown-field", lambda v: first_run(v).update(colour=1), "colour"),
    (
        "evidence-field",
        lambda v: first_run(v)["evidence"].update(window_s="60"),
        r"points\[0\]\.runs\[0\]\.evidence\.window_s must be number",
    ),
    (
        "evidence-incomplete",
        lambda v: first_run(v)["evidence"].pop("work_units"),
        r"points\[0\]\.runs\[0\]\.evidence must contain .*work_units",
    ),
    (
        "identity-field",
        lambda v: first_run(v)["provenance"]["identity"].update(num_gpus=0),
        r"provenance\.identity\.num_gpus must be bigger",
    ),
    (
        "reasons",
        lambda v: first_run(v).update(reasons=[{"code": "mig-on", "text": "on"}]),
        r"points\[0\]: runs\[0\]: a run with reasons is not valid",
    ),
    (
        "latency-name",
        lambda v: first_run(v).update(latency={"colour": 1}),
        r"points\[0\].*colour",
    ),
    ("point-field", lambda v: v["points"][0]["point"].update(colour=1), r"points\[0\].*colour"),
    (
        "point-contradicts",
        lambda v: v["points"][0]["point"].update(num_requests=1),
        r"points\[0\].*num_requests=1",
    ),
    ("point-twice", lambda v: v["points"].append(v["points"][0]), r"points\[1\].*twice"),
    ("series-no-base64", series_of("!!"), r"points\[0\]: "),
    ("series-no-zlib", series_of("AAAA"), r"runs\[0\]: Error -3"),
    ("series-cut", series_of(packed(b"123")), r"runs\[0\]: buffer size"),
    ("series-nan", series_of(packed(b"\xff" * 240)), r"points\[0\]: .*not a number"),
    ("series-longer", series_of([1.0]), r"points\[0\]: .*differ in length"),
    ("series-negative", negative_series, r"runs\[0\]: series_energy_j .*below zero"),
    ("series-number", series_of(1), r"evidence\.series_energy_j must be string or array"),
]


@pytest.mark.parametrize(
    ("change", "message"), [pytest.param(c, m, id=name) for name, c, m in BROKEN]
)
def test_a_broken_file_is_refused_with_file_and_field(
    change: Change, message: str, tmp_path: Path
) -> None:
    (path,) = record(tmp_path, [WHOLE])
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    before = path.read_bytes()

    with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: .*(?:{message})"):
        load(path)
    with pytest.raises(FormatError):
        record(tmp_path, [WHOLE])

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"schema": 1, "schema": 1}', '{"schema": NaN}', "\x00"]
)
def test_a_file_that_is_no_baseline_is_refused(text: str, tmp_path: Path) -> None:
    path = path_for(tmp_path, SMALL.point, "b200")
    path.parent.mkdir(parents=True)
    path.write_text(text)

    with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: "):
        runs_for(tmp_path, SMALL.point, "b200")


def test_series_may_be_numbers_or_left_out() -> None:
    values = json.loads(dump("b200", {WHOLE.point: [WHOLE]}))
    series = {"series_energy_j": [1000, 2000], "series_work_units": [6000.0, 0]}
    first_run(values)["evidence"].update(series)
    evidence = parse(values, name="f")[WHOLE.point][0].evidence
    assert evidence is not None
    assert (evidence.series_energy_j, evidence.series_work_units) == ((1000, 2000), (6000, 0))

    for name in series:
        del first_run(values)["evidence"][name]
    evidence = parse(values, name="f")[WHOLE.point][0].evidence
    assert evidence is not None
    assert evidence.series_energy_j == evidence.series_work_units == ()


def test_older_formats_are_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads(dump("b200", {WHOLE.point: [WHOLE]}))
    oldest = {"schema": -1, "card": values["gpu"], "entries": values["points"]}
    monkeypatch.setitem(
        baseline.MIGRATIONS, -1, lambda v: {"gpu": v["card"], "entries": v["entries"]}
    )
    monkeypatch.setitem(
        baseline.MIGRATIONS, 0, lambda v: {"gpu": v["gpu"], "points": v["entries"]}
    )

    assert parse(oldest, name="f") == {WHOLE.point: read_back(WHOLE)}
    with pytest.raises(
        FormatError, match=r"f: schema is -1, but it is not .*KeyError\('card'\)"
    ):
        parse({"schema": -1}, name="f")


def test_the_first_format_knew_neither_topology_nor_that_a_revision_is_unknown() -> None:
    values = json.loads(dump("b200", {WHOLE.point: [WHOLE]}))
    provenance = first_run(values)["provenance"]
    del provenance["identity"]["topology"]
    provenance["context"]["model_revision"] = ""
    values["schema"] = 1

    assert parse(values, name="f") == {WHOLE.point: read_back(WHOLE)}
    provenance["context"]["model_revision"] = "abc"
    (run,) = parse(values, name="f")[WHOLE.point]
    assert run.provenance.context.model_revision == "abc"
    del first_run(values)["provenance"]
    with pytest.raises(
        FormatError, match="f: schema is 1, but it is not what that format says"
    ):
        parse(values, name="f")


CALIBRATION = {
    "detectable_change": 0.03,
    "detectable_change_beside_old": 0.02,
    "launch_df": 7.0,
    "launch_sd": 0.01,
    "num_false_alarms": 0,
    "num_launches": 8,
    "num_splits": 70,
    "num_undecided": 2,
    "tolerance": 0.03,
}
MOVE = Acceptance(reason="new kernels", at="2026-11-20T12:00:00+00:00", change=-0.1)


def test_moves_and_calibration_stand_in_the_file_one_line_each() -> None:
    entry = Entry(runs=(SMALL,), accepted=(MOVE,), calibration=CALIBRATION)

    text = dump_entries("b200", {SMALL.point: entry})

    assert (
        '"accepted": [\n        {"at": "2026-11-20T12:00:00+00:00", "change": -0.1, '
        '"reason": "new kernels"}\n      ],\n      "calibration": {"detectable_change": 0.03, '
    ) in text
    (found,) = parse_entries(json.loads(text), name="f").values()
    assert (found.accepted, found.calibration) == ((MOVE,), CALIBRATION)


def test_recording_keeps_moves_and_calibration_and_accepting_drops_the_calibration(
    tmp_path: Path,
) -> None:
    (path,) = record(tmp_path, [make_result(0.5), make_result(0.3)])
    point = make_result().point
    store_calibration(path, point, CALIBRATION)
    record(tmp_path, [make_result(0.4)])
    assert entries(path)[point].calibration == CALIBRATION
    assert len(entries(path)[point].runs) == 3

    # (0.5 + 0.3 + 0.4) / 3 = 0.4; 0.5 is a quarter more.
    move = accept(tmp_path, [make_result(0.5)], reason="why", at="then")

    assert move == Acceptance(reason="why", at="then", change=0.25)
    assert entries(path)[point].accepted == (move,)
    assert entries(path)[point].calibration == {}
    assert [run.energy_per_work_unit_j for run in load(path)[point]] == [0.5]
    again = accept(tmp_path, [make_result(0.25)], reason="back", at="later")
    assert entries(path)[point].accepted == (move, again)
    assert again.change == -0.5


def test_an_invalid_run_is_not_accepted_and_a_missing_baseline_not_made(
    tmp_path: Path,
) -> None:
    (path,) = record(tmp_path, [SMALL])
    before = path.read_text()
    broken = SMALL.but(reasons=(Reason(code="counter-frozen", text="it stood still"),))

    with pytest.raises(BaselineError, match="counter-frozen"):
        accept(tmp_path, [broken], reason="why", at="then")
    with pytest.raises(BaselineMissing, match="to move"):
        accept(tmp_path, [SMALL.but(gpu="h100")], reason="why", at="then")
    assert path.read_text() == before
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_all_errors_are_of_this_package() -> None:
    assert issubclass(FormatError, JoulesError)
    assert issubclass(BaselineError, JoulesError)
