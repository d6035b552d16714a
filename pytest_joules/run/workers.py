"""Which part pytest-xdist gives this process, and whether workers could measure at all."""

from typing import Any

import pytest

KEY = "joules"
"""Name of what the controller gives its workers, and of what they give back at their end."""

_THIS_MACHINE = "popen"
"""Kind of worker that shares this machine's files, and so its leases and results."""


def is_worker(config: pytest.Config) -> bool:
    """Tell whether pytest-xdist started this process."""
    return hasattr(config, "workerinput")


def worker_name(config: pytest.Config) -> str:
    """Return this worker's name; empty for all others."""
    return str(_input(config)["workerid"]) if is_worker(config) else ""


def given_to(config: pytest.Config) -> dict[str, Any]:
    """Return what its controller told a worker for its energy tests; empty: nothing."""
    return dict(_input(config).get(KEY, {}))


def _input(config: pytest.Config) -> dict[str, Any]:
    given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]  # pytest-xdist's
    return given


def is_controller(config: pytest.Config) -> bool:
    """Tell whether workers of pytest-xdist run this run's tests."""
    given = config.option
    distributes = getattr(given, "dist", "no") != "no" and bool(getattr(given, "tx", None))
    return distributes and not is_worker(config) and not given.collectonly


def stay_alone(config: pytest.Config) -> None:
    """Start no workers of pytest-xdist, where there is nothing for them to do."""
    if is_controller(config):
        config.option.dist, config.option.tx = "no", []


def require_local(config: pytest.Config) -> None:
    """Refuse workers that cannot share this machine's GPUs, or would all run all tests.

    Raises:
        pytest.UsageError: There are such.
    """
    if config.option.dist == "each":
        raise pytest.UsageError(
            "pytest-joules: with --dist=each every worker would measure every test. Use "
            "another --dist, or leave it out: tests of one server stay together by themselves."
        )
    others = [spec for spec in config.option.tx if not _is_local(spec)]
    if others:
        raise pytest.UsageError(
            f"pytest-joules: --tx={others[0]} may be another machine, whose GPUs cannot be "
            "leased from here. Use workers of this machine (-n, --tx=popen)."
        )


def _is_local(spec: str) -> bool:
    """Tell whether a worker shares this machine's files.

    >>> [_is_local(each) for each in ("2*popen//python=python3.12", "ssh=popen", "socket=x:1")]
    [True, False, False]
    """
    parts = spec.rpartition("*")[2].split("//")
    elsewhere = ("ssh=", "socket=", "vagrant_ssh=", "via=")
    return _THIS_MACHINE in parts and not any(part.startswith(elsewhere) for part in parts)
