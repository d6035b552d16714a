"""A handful of the kills of ``tests/perf/kill_soak.py``, which a hundred are run of by hand."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.perf import kill_soak
from tests.perf.kill_soak import MARK, Soak, soak

pytestmark = pytest.mark.takes_long

KILLS = int(os.environ.get("JOULES_KILLS", "2"))


def test_nothing_is_left_or_lost_when_pytest_is_killed(
    mock_nvml_library: Path, tmp_path: Path
) -> None:
    found = soak(tmp_path, mock_nvml_library, kills=KILLS, seed=3)

    assert not found.faults, "\n".join(found.faults)
    assert found.num_kills == KILLS
    assert found.announced
    assert found.json_files


def test_the_soak_sees_what_is_left(
    mock_nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process, a torn file and a lost result, planted by hand."""
    monkeypatch.setattr(kill_soak, "PATIENCE_S", 0.0)
    made = Soak(tmp_path, mock_nvml_library, 1)
    torn = tmp_path / "project" / "baselines" / "torn.json"
    torn.parent.mkdir()
    torn.write_text('{"gpu": ')
    with subprocess.Popen(["sleep", "1000"], env={MARK: "planted"}) as left:
        # The kernel tells of an exec a moment before it shows the new environment.
        while not kill_soak.carries(Path(f"/proc/{left.pid}"), f"{MARK}=planted".encode()):
            assert left.poll() is None
        made.require_nothing_runs("planted")
        left.kill()
    made.require_readable()
    made.require_kept("joules 0:09  a-b4: 150 mJ/token in 2 s, 1.2 kJ so far\n", stored=0)
    made.require_kept("joules 0:09  a-b4: invalid (meter-gap), 1.2 kJ so far\n", stored=0)

    told = made.found.faults
    assert told[0] == f"run 0: processes ['{left.pid}'] are left"
    assert any("torn.json" in each for each in told)
    assert sum("1 results announced, 0 stored" in each for each in told) == 2
