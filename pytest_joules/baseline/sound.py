"""Whether stored runs agree with themselves, with each other, and with their point.

Files are edited, merged and copied by people; a run that does not fit would move a verdict
without a trace. Numbers in files have four digits, so sums agree to ``ROUNDING``.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from math import isclose

from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Evidence, Result
from pytest_joules.tasks import Lengths

ROUNDING = 2e-3
"""Relative: three numbers of four digits, each up to 5e-4 off."""

_PROCEDURE = Procedure()
_LARGEST = 1e15
_MOST_REQUESTS = 1_000_000
_MOST_WAITING = 4
"""Batches that may end after the window; a load stops offering when its window is long."""


def require_sound(run: Result) -> None:
    """Refuse a run whose numbers contradict each other or its point.

    Raises:
        ValueError: Names the field, its value and what it should be.
    """
    _require_measurable("energy_per_work_unit_j", run.energy_per_work_unit_j)
    _require_measurable("throughput_work_units_per_s", run.throughput_work_units_per_s)
    if run.evidence is None:  # published: nothing to compare with
        return
    _require_sums(run, run.evidence)
    if run.point.work_unit == "token":
        _require_batch(run)
        _require_work(run.point, run.evidence)
        _require_lengths(run, run.evidence)


def require_alike(runs: Sequence[Result]) -> None:
    """Refuse runs of one point that are no repetitions of each other.

    Raises:
        ValueError: One launch stands twice, or the runs did different work.
    """
    # Copies of one launch would make the noise look smaller than it is.
    ids = [run.evidence.launch_id for run in runs if run.evidence and run.evidence.launch_id]
    twice = next((each for each in ids if ids.count(each) > 1), None)
    if twice is not None:
        raise ValueError(f"launch_id {twice!r} stands in two runs; one launch is one run")
    # Batches of images are all the same work, however many a launch made.
    of_tokens = [run.evidence for run in runs if run.point.work_unit == "token"]
    works = [work(evidence) for evidence in of_tokens if evidence]
    other = next((each for each in works if each != works[0]), None)
    if other is not None:
        raise ValueError(
            f"runs did different work: num_requests, start_index, end_index are {works[0]} in "
            f"the first and {other} in another; all must repeat the first"
        )


def work(evidence: Evidence) -> tuple[int, int, int]:
    """Return what was done: how many requests, and which of them are the window's."""
    return evidence.num_requests, evidence.start_index, evidence.end_index


def _require_measurable(name: str, value: float) -> None:
    if not 0 < value < _LARGEST:
        raise ValueError(f"{name} is {value}, which cannot have been measured")


def _require_equal(name: str, value: float, wanted: float, *, of: str) -> None:
    if not isclose(value, wanted, rel_tol=ROUNDING):
        raise ValueError(f"{name} is {value:.5g}, but {of} is {wanted:.5g}")


def _require_sums(run: Result, evidence: Evidence) -> None:
    num_gpus, energies = run.point.num_gpus, evidence.gpu_energy_j
    if len(energies) != num_gpus or run.provenance.identity.num_gpus != num_gpus:
        raise ValueError(
            f"gpu_energy_j is of {len(energies)} GPUs and identity of "
            f"{run.provenance.identity.num_gpus}, but the point has num_gpus={num_gpus}"
        )
    for name in ("window_s", "work_units"):
        _require_measurable(f"evidence.{name}", getattr(evidence, name))
    for each in energies:
        _require_measurable("evidence.gpu_energy_j", each)
    energy_j, units = sum(energies), evidence.work_units
    _require_equal(
        "energy_per_work_unit_j",
        run.energy_per_work_unit_j,
        energy_j / units,
        of="gpu_energy_j over work_units",
    )
    _require_equal(
        "throughput_work_units_per_s",
        run.throughput_work_units_per_s,
        units / evidence.window_s,
        of="work_units over window_s",
    )
    if evidence.series_energy_j:
        joules, done = sum(evidence.series_energy_j), sum(evidence.series_work_units)
        _require_equal("the sum of series_energy_j", joules, energy_j, of="gpu_energy_j")
        _require_equal("the sum of series_work_units", done, units, of="work_units")


def _require_batch(run: Result) -> None:
    batch, asked = run.mean_batch_size, run.point.batch_size
    least = _PROCEDURE.least_batch_share * asked * (1 - ROUNDING)
    most = (1 + _PROCEDURE.largest_batch_excess) * asked * (1 + ROUNDING)
    if batch is None or not least <= batch <= most:
        raise ValueError(
            f"mean_batch_size is {batch}, but the point has batch_size={asked}: this run is of "
            "another point"
        )


def _require_work(point: Point, evidence: Evidence) -> None:
    number, start, end = work(evidence)
    if number > _MOST_REQUESTS:
        raise ValueError(f"num_requests is {number}, at most {_MOST_REQUESTS} can be offered")
    if not 1 <= start < end:
        raise ValueError(f"start_index={start} and end_index={end} are no window of work")
    if not point.batch_size <= number - end <= _MOST_WAITING * point.batch_size:
        raise ValueError(
            f"num_requests={number} does not fit end_index={end}: with batch_size="
            f"{point.batch_size}, {point.batch_size} to {_MOST_WAITING * point.batch_size} "
            "requests end after the window"
        )
    if point.num_requests not in (None, number):
        raise ValueError(f"num_requests is {number}, but the point's is {point.num_requests}")


def _require_lengths(run: Result, evidence: Evidence) -> None:
    if run.point.mode != "fixed":
        return
    lengths = run.point.output_tokens or run.point.spec.output_tokens
    assert lengths is not None  # or it would count no tokens
    _require_equal(
        "mean_output_tokens",
        run.mean_output_tokens or 0.0,
        _sum_of_lengths(lengths, run.point.seed, evidence.num_requests) / evidence.num_requests,
        of="the mean of what the point asks for",
    )


def _sum_of_lengths(lengths: Lengths, seed: int, number: int) -> int:
    sums = _sums_of_lengths(lengths, seed)
    for index in range(len(sums) - 1, number):
        sums.append(sums[-1] + lengths.draw(index, seed=seed, what="output"))
    return sums[number]


@lru_cache(maxsize=16)
def _sums_of_lengths(lengths: Lengths, seed: int) -> "array[int]":
    """Return what grows as far as any run of these lengths asks: drawing is most of loading."""
    del lengths, seed
    return array("q", [0])
