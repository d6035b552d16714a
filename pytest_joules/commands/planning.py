"""``joules plan``: ask pytest for its plan, in a process of its own.

This module is also the pytest plugin that hears the plan there (``-p``) and writes it where
the environment says.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_joules.commands.answer import Answer
from pytest_joules.plan import Plan
from pytest_joules.report.text import plan_totals, table

PATH_VARIABLE = "PYTEST_JOULES_PLAN_PATH"


def planned(arguments: Sequence[str]) -> Answer:
    """Plan the energy tests that pytest finds with these arguments.

    Where it finds none, or an error, the answer is what pytest said, with its exit code.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        run = subprocess.run(  # noqa: S603  no shell
            [sys.executable, "-m", "pytest", "--joules-plan", "-p", __name__, *arguments],
            env={**os.environ, PATH_VARIABLE: str(path)},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode or not path.exists():
            told = (run.stdout + run.stderr).splitlines()
            return Answer(lines=told, values=None, exit_code=run.returncode or _NO_TESTS)
        return _answer(json.loads(path.read_text(encoding="utf-8")))


_NO_TESTS = 5  # pytest's own code


def pytest_joules_planned(plan: Plan, num_launches: int | None) -> None:
    """Write the plan for the process that asked."""
    values = json.dumps(plan_values(plan, num_launches))
    Path(os.environ[PATH_VARIABLE]).write_text(values, encoding="utf-8")


def plan_values(plan: Plan, num_launches: int | None) -> dict[str, Any]:
    """Return a plan as JSON-ready values."""
    from pytest_joules.latent.memory import shortage  # noqa: PLC0415  loads scipy

    return {
        "launches": [
            {
                "engine": launch.largest.engine,
                "model": launch.largest.model,
                "precision": launch.largest.precision,
                "num_gpus": launch.largest.num_gpus,
                "gpu": launch.gpu,
                "stack": launch.stack.name,
                "trust_remote_code": launch.largest.trust_remote_code,
                "points": [point.id for point in launch.points],
                "batch_sizes": [point.batch_size for point in launch.points],
                "gpu_minutes": plan.gpu_minutes(launch),
                "does_not_fit": shortage(launch.points, launch.gpu),
            }
            for launch in plan.launches
        ],
        "gpu_minutes": plan.total_gpu_minutes,
        "num_launches_each": num_launches,
    }


def _answer(values: Mapping[str, Any]) -> Answer:
    launches = values["launches"]
    head = ("server", "gpus", "stack", "batch sizes", "GPU minutes")
    lines = table([head, *map(_row, launches)]) if launches else []
    lines += [
        f"{launch['model']}, {text}" for launch in launches for text in launch["does_not_fit"]
    ]
    num_points = sum(len(launch["points"]) for launch in launches)
    numbers = (num_points, len(launches))
    lines += plan_totals(numbers, values["gpu_minutes"], values["num_launches_each"])
    return Answer(lines=lines, values=values)


def _row(launch: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{launch['engine']} {launch['model']} {launch['precision']}",
        f"{launch['num_gpus']} x {launch['gpu']}",
        launch["stack"],
        ", ".join(map(str, launch["batch_sizes"])),
        f"{launch['gpu_minutes']:.1f}",
    )
