"""What a sampler's file says of the energy so far."""

import json

import pytest

from pytest_joules.meter.so_far import energy_j


def written(path, rows, rest=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + rest)
    return path


def reading(gpu, energy_mj):
    return [gpu, 1.0, 0.0001, energy_mj, {}]


HEAD = [["gpu", 0, {"uuid": "a"}], ["gpu", 1, {"uuid": "b"}]]


def test_all_gpus_between_first_and_last_whole_line(tmp_path):
    rows = [*HEAD, reading(0, 1000), reading(1, 500), reading(0, 3000), reading(1, 900)]

    # (3000 - 1000) + (900 - 500) mJ
    assert energy_j(written(tmp_path / "a", rows, rest="[0, 1.0, 0.1, 99")) == 2.4


def test_a_long_file_is_read_at_its_ends(tmp_path):
    rows = [*HEAD, *(reading(i % 2, 1000 * (i // 2)) for i in range(20_000))]
    path = written(tmp_path / "a", rows)

    assert path.stat().st_size > 500_000
    assert energy_j(path) == pytest.approx(2 * 9_999)


@pytest.mark.parametrize("rows", [[], HEAD])
def test_without_readings_nothing_is_known(tmp_path, rows):
    assert energy_j(written(tmp_path / "a", rows)) is None


def test_without_a_file_nothing_is_known(tmp_path):
    assert energy_j(tmp_path / "missing") is None
