"""A stored run that contradicts itself, its point or its neighbours is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_joules.baseline import dump, load, parse, path_for, record, runs_for
from pytest_joules.baseline.sound import require_sound
from pytest_joules.errors import BaselineMismatch, FormatError
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.tasks import Lengths
from tests.fakes.results import make_evidence, make_result, make_run

BATCH = 8
RUN = make_run(0.5, batch_size=BATCH)
ONE, TWO = (make_run(0.5, batch_size=BATCH, launch_id=name) for name in ("one", "two"))


def test_a_run_that_agrees_with_itself_is_sound() -> None:
    require_sound(RUN)
    require_sound(make_run(0.5, batch_size=BATCH, num_gpus=4))


def sums(**changes: Any) -> Result:
    return make_run(0.5, batch_size=BATCH, **changes)


def work(**changes: int) -> Result:
    assert RUN.evidence is not None
    return RUN.but(evidence=replace(RUN.evidence, **changes))


# 0.2 % is what four digits of three numbers may be off together; 3,000 J are 0.5 J x 6,000.
BOUNDARIES: list[tuple[str, Result, Result]] = [
    (
        "energy_per_work_unit_j",
        RUN.but(energy_per_work_unit_j=0.5009),
        RUN.but(energy_per_work_unit_j=0.5011),
    ),
    (
        "gpu_energy_j",
        sums(gpu_energy_j=(3005.0,)),
        sums(gpu_energy_j=(3007.0,)),
    ),
    (
        "throughput_work_units_per_s",
        RUN.but(throughput_work_units_per_s=100.1),
        RUN.but(throughput_work_units_per_s=100.3),
    ),
    ("window_s", sums(window_s=60.1), sums(window_s=60.2)),
    (
        "series_energy_j",
        sums(series_energy_j=(50.09,) * 60),
        sums(series_energy_j=(50.11,) * 60),
    ),
    (
        "series_work_units",
        sums(series_work_units=(100.19,) * 60),
        sums(series_work_units=(100.21,) * 60),
    ),
    ("mean_batch_size", RUN.but(mean_batch_size=6.8), RUN.but(mean_batch_size=6.78)),
    ("mean_batch_size", RUN.but(mean_batch_size=8.16), RUN.but(mean_batch_size=8.18)),
    ("start_index", sums(start_index=1), sums(start_index=0)),
    ("start_index", sums(start_index=99), sums(start_index=100)),
    ("num_requests", sums(num_requests=108), sums(num_requests=107)),
    ("num_requests", sums(num_requests=132), sums(num_requests=133)),
    (
        "mean_output_tokens",
        RUN.but(mean_output_tokens=(RUN.mean_output_tokens or 0) * 1.0019),
        RUN.but(mean_output_tokens=(RUN.mean_output_tokens or 0) * 1.0021),
    ),
]


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [pytest.param(*row, id=f"{row[0]}-{i}") for i, row in enumerate(BOUNDARIES)],
)
def test_numbers_agree_up_to_their_rounding(
    field: str, inside: Result, outside: Result
) -> None:
    require_sound(inside)
    with pytest.raises(ValueError, match=field):
        require_sound(outside)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (sums(gpu_energy_j=(1500.0, 1500.0)), "gpu_energy_j is of 2 GPUs"),
        (sums(gpu_energy_j=()), "gpu_energy_j is of 0 GPUs"),
        (
            make_run(0.5, batch_size=BATCH, num_gpus=2).but(provenance=RUN.provenance),
            "identity of 1",
        ),
        (
            make_run(0.5, num_gpus=2, batch_size=BATCH, gpu_energy_j=(3000.0, 0.0)),
            "gpu_energy_j is 0.0",
        ),
        (sums(gpu_energy_j=(-3000.0,)), "gpu_energy_j is -3000.0"),
        (sums(work_units=0.0), "work_units is 0.0"),
        (sums(window_s=float("inf")), "window_s is inf"),
        (sums(window_s=float("nan")), "window_s is nan"),
        (RUN.but(energy_per_work_unit_j=float("nan")), "energy_per_work_unit_j is nan"),
        (RUN.but(throughput_work_units_per_s=10**400), "throughput_work_units_per_s is 1000"),
        (RUN.but(mean_batch_size=None), "mean_batch_size is None"),
        (RUN.but(mean_batch_size=float("nan")), "mean_batch_size is nan"),
        (RUN.but(mean_output_tokens=None), "mean_output_tokens is 0"),
        (work(start_index=0, end_index=0, num_requests=0), "start_index=0 and end_index=0"),
        (work(end_index=10**9, num_requests=10**9 + BATCH), "at most 1000000 can be"),
        (RUN.but(point=RUN.point.but(num_requests=24)), "num_requests is 108"),
    ],
)
def test_what_cannot_have_been_measured(wrong: Result, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        require_sound(wrong)


@pytest.mark.parametrize(
    "other",
    [
        RUN.point.but(batch_size=16),
        RUN.point.but(batch_size=4),
        RUN.point.but(num_gpus=2),
        RUN.point.but(seed=1),
        RUN.point.but(task="problem-solving"),
        RUN.point.but(output_tokens=Lengths(mean=100)),
    ],
)
def test_a_run_that_was_copied_from_another_point_is_refused(
    other: Point, tmp_path: Path
) -> None:
    (path,) = record(tmp_path, [RUN])
    values = json.loads(path.read_text())
    values["points"][0]["point"] = other.as_json()
    path.write_text(json.dumps(values))

    with pytest.raises(
        FormatError, match=rf"^{re.escape(str(path))}: points\[0\]: runs\[0\]: "
    ):
        load(path)


def test_natural_answers_have_no_length_to_agree_with() -> None:
    require_sound(RUN.but(point=RUN.point.but(mode="natural"), mean_output_tokens=3.0))


def test_a_folder_copied_to_another_gpu_s_is_refused(tmp_path: Path) -> None:
    (path,) = record(tmp_path, [RUN])
    other = path_for(tmp_path, RUN.point, "h100")
    other.parent.mkdir(parents=True)
    other.write_text(path.read_text())

    assert runs_for(tmp_path, RUN.point, "B200")
    with pytest.raises(FormatError, match=r"gpu is 'b200', but 'h100' was asked for \(--gpu\)"):
        runs_for(tmp_path, RUN.point, "h100")


def test_launches_of_images_may_have_made_more_batches_or_fewer(tmp_path: Path) -> None:
    """Every batch is the same work; how many fit into the window varies with their latency."""
    images = make_result(1.0, task="text-to-image", engine="diffusers", batch_size=BATCH)
    runs = [
        images.but(
            evidence=make_evidence(
                launch_id=f"{number}", num_requests=number, start_index=8, end_index=number
            )
        )
        for number in (100, 108)
    ]

    record(tmp_path, runs)

    assert len(runs_for(tmp_path, runs[0].point, "b200")) == 2


@pytest.mark.parametrize(
    "changes", [{"start_index": 21}, {"end_index": 99}, {"num_requests": 109}]
)
def test_runs_of_other_work_are_not_added(changes: dict[str, int], tmp_path: Path) -> None:
    (path,) = record(tmp_path, [ONE])
    before = path.read_bytes()

    other = make_run(0.5, batch_size=BATCH, launch_id="other", **changes)

    with pytest.raises(BaselineMismatch, match=r"Another session .*; record again"):
        record(tmp_path, [other])
    assert path.read_bytes() == before
    with pytest.raises(FormatError, match=r"points\[0\]: runs did different work"):
        record(tmp_path, [TWO, other], replace=True)
    assert path.read_bytes() == before
    record(tmp_path, [TWO])
    assert len(load(path)[ONE.point]) == 2


def nested(text: str) -> str:
    return text.replace('"notes": []', '"notes": ' + "[" * 100_000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.replace('"window_s": 60.0', '"window_s": 6' + "0" * 400),
            "window_s is 60",
        ),
        (lambda t: t.replace('"window_s": 60.0', '"window_s": NaN'), "window_s is NaN"),
        (lambda t: t.replace("[3000.0]", "[Infinity]"), "gpu_energy_j is Infinity"),
        (lambda t: t.replace('"end_index"', '"end_index": 1, "end_index"'), "'end_index'"),
        (nested, "not the JSON"),
    ],
)
def test_a_file_that_json_itself_would_let_pass(
    change: Callable[[str], str], said: str, tmp_path: Path
) -> None:
    (path,) = record(tmp_path, [RUN])
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text

    with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: .*{re.escape(said)}"):
        load(path)


def test_values_that_never_were_a_file_are_judged_alike() -> None:
    values = json.loads(dump("b200", {RUN.point: [RUN]}))
    values["points"][0]["runs"][0]["evidence"]["window_s"] = 10**400

    with pytest.raises(
        FormatError, match=r"f: points\[0\]: runs\[0\]: evidence.window_s is 10"
    ):
        parse(values, name="f")
