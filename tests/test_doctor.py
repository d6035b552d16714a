import os

import pytest

from pytest_joules.catalog import gpu_slug
from pytest_joules.doctor import Finding, diagnose
from tests.fakes.mock_nvml import (
    DRIVER_NOT_LOADED,
    NO_PERMISSION,
    NOT_SUPPORTED,
    OPERATING_SYSTEM,
)

ALL_IS_WELL = [
    "NVML library",
    "driver",
    "CUDA_VISIBLE_DEVICES",
    "GPU 0",
    "GPU 0: MIG",
    "GPU 0: persistence",
    "GPU 0: processes",
    "GPU 0: energy counter",
    "RAPL",
]


@pytest.fixture
def look(mock_nvml, tmp_path):
    """Diagnose a machine with one GPU and readable RAPL."""
    mock_nvml.set_num_gpus(1)
    for name, kind in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        folder = tmp_path / "powercap" / name
        folder.mkdir(parents=True)
        (folder / "name").write_text(kind)
        (folder / "max_energy_range_uj").write_text("1000")
        (folder / "energy_uj").write_text("1")

    def diagnosed(probe_s=0.0, powercap="powercap", **environ):
        found = diagnose(environ=environ, powercap=tmp_path / powercap, probe_s=probe_s)
        return {finding.subject: finding for finding in found}

    return diagnosed


def test_a_healthy_machine_is_told_in_full(look, mock_nvml):
    mock_nvml.set(0, tick_s=0.05)
    mock_nvml.set_power(0, 120.0)

    found = look(probe_s=1.0)

    assert list(found) == ALL_IS_WELL
    assert {finding.status for finding in found.values()} == {"ok"}
    assert not any(finding.remedy for finding in found.values())
    assert found["driver"].text == "version 590.48.01"
    assert found["CUDA_VISIBLE_DEVICES"].text == "not set: GPU 0 visible"
    assert found["GPU 0"].text == (
        f"NVIDIA H200 (--gpu={gpu_slug('NVIDIA H200')}), "
        "GPU-00000000-0000-4000-8000-000000000000, 140 GiB, power limit 700 W"
    )
    assert found["GPU 0: processes"].text == "none; 0.5 GiB of memory taken"
    assert found["GPU 0: energy counter"].text.startswith("ticks every ")
    assert found["RAPL"].text == "1 CPU, 1 DRAM counters"


@pytest.mark.parametrize(
    ("set_up", "subject", "expected"),
    [
        pytest.param(
            lambda mock: mock.set_init_error(DRIVER_NOT_LOADED),
            "driver",
            ("problem", "kernel driver is not loaded", "modprobe nvidia"),
            id="driver-down",
        ),
        pytest.param(
            lambda mock: mock.set_init_error(12),
            "NVML library",
            ("problem", "libnvidia-ml.so.1 cannot be loaded", "Install NVIDIA's driver"),
            id="no-library",
        ),
        pytest.param(
            lambda mock: mock.set_num_gpus(0),
            "GPUs",
            ("problem", "finds 0 GPUs", "nvidia-smi -L"),
            id="no-gpu",
        ),
        pytest.param(
            lambda mock: mock.lose(0),
            "GPUs",
            ("problem", "fell off the bus", "Xid"),
            id="gpu-lost",
        ),
        pytest.param(
            lambda mock: mock.set(0, mig=1),
            "GPU 0: MIG",
            ("problem", "on", "nvidia-smi -i 0 -mig 0"),
            id="mig",
        ),
        pytest.param(
            lambda mock: mock.set(0, persistence=0),
            "GPU 0: persistence",
            ("warning", "off", "nvidia-smi -i 0 -pm 1"),
            id="persistence",
        ),
        pytest.param(
            lambda mock: mock.set_processes(0, [os.getpid()]),
            "GPU 0: processes",
            ("problem", f"{os.getpid()} (", "End them"),
            id="processes",
        ),
        pytest.param(
            lambda mock: mock.set_processes(0, [2**22 + 1]),
            "GPU 0: processes",
            ("problem", "in another container", "End them"),
            id="process-of-another-container",
        ),
        pytest.param(
            lambda mock: mock.set(0, processes_error=NO_PERMISSION),
            "GPU 0: processes",
            ("warning", "does not tell", "nothing else uses"),
            id="processes-not-told",
        ),
        pytest.param(
            lambda mock: mock.set(0, processes_error=OPERATING_SYSTEM),
            "GPU 0: processes",
            ("warning", "does not tell", "nothing else uses"),
            id="processes-blocked-by-a-sandbox",
        ),
        pytest.param(
            lambda mock: mock.set(0, power_limit_w=0.0),
            "GPU 0",
            ("warning", "power limit unknown", "data-centre"),
            id="no-power-limit",
        ),
        pytest.param(
            lambda mock: mock.freeze(0),
            "GPU 0: energy counter",
            ("problem", "did not rise", "do not measure"),
            id="counter-frozen",
        ),
        pytest.param(
            lambda mock: mock.set(0, energy_error=NOT_SUPPORTED),
            "GPU 0: energy counter",
            ("problem", "since Volta", "Measure on a data-centre GPU"),
            id="counter-not-supported",
        ),
        pytest.param(
            lambda mock: mock.set(0, energy_error=NO_PERMISSION),
            "GPU 0: energy counter",
            ("problem", "may not read it", "Give this user access"),
            id="counter-no-permission",
        ),
    ],
)
def test_what_stands_in_the_way(*, set_up, subject, expected, look, mock_nvml):
    set_up(mock_nvml)
    status, text, remedy = expected

    finding = look()[subject]

    assert finding.status == status
    assert text in finding.text
    assert remedy in finding.remedy


def test_a_wrong_cuda_visible_devices_is_told(look):
    finding = look(CUDA_VISIBLE_DEVICES="0,0")["CUDA_VISIBLE_DEVICES"]

    assert finding == Finding(
        subject="CUDA_VISIBLE_DEVICES",
        status="problem",
        text="CUDA_VISIBLE_DEVICES='0,0' names GPU 0 twice",
        remedy="Name every GPU once.",
    )


def test_hidden_gpus_are_not_looked_at(look, mock_nvml):
    mock_nvml.set_num_gpus(2)

    found = look(CUDA_VISIBLE_DEVICES="1")

    assert found["CUDA_VISIBLE_DEVICES"].text == "'1': GPU 1 visible"
    assert "GPU 1: energy counter" in found
    assert "GPU 0" not in found


def test_a_machine_without_rapl_can_still_measure_gpus(look):
    finding = look(powercap="none")["RAPL"]

    assert finding.status == "warning"
    assert "CPU and DRAM energy will not be reported" in finding.text
    assert finding.remedy


def test_rapl_that_cannot_be_read_is_told(look, tmp_path):
    (tmp_path / "powercap" / "intel-rapl:0" / "energy_uj").unlink()
    finding = look()["RAPL"]

    assert finding.status == "warning"
    assert "No such file" in finding.text
    assert "chmod a+r" in finding.remedy


def test_a_problem_with_the_driver_still_tells_about_the_cpu(look, mock_nvml):
    mock_nvml.set_init_error(DRIVER_NOT_LOADED)

    assert list(look()) == ["driver", "RAPL"]
