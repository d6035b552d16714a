"""The catalog's diffusion data against the real ``diffusers``: classes, arguments, sizes."""

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pytest_joules import catalog, pipelines
from pytest_joules.plan import Stack
from pytest_joules.point import Point

PATIENCE_S = 300
MODELS = [model for model in catalog.models().values() if model.pipeline]

# Run by the stack's interpreter; weights stay on the meta device.
LOOK = """
import inspect, json, sys
import diffusers, torch

asked = json.load(sys.stdin)
told = {"models": {}, "pipelines": {}}
for model, components in asked["models"].items():
    for part, config in components.items():
        made_by = getattr(diffusers, config.pop("class"))
        known = set(inspect.signature(made_by.__init__).parameters)
        unknown = sorted(set(config) - known)
        with torch.device("meta" if part != "scheduler" else "cpu"):
            made = made_by.from_config(config)
        number = sum(p.numel() for p in made.parameters()) if part != "scheduler" else 0
        told["models"].setdefault(model, {})[part] = [number, unknown]
for name in asked["pipelines"]:
    made_by = getattr(diffusers, name)
    told["pipelines"][name] = sorted(inspect.signature(made_by.__call__).parameters)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(diffusion_stack: Stack) -> dict[str, Any]:
    points = [
        Point(model=model.model_id, task=model.tasks[0], weights="dummy") for model in MODELS
    ]
    asked = {
        "models": {point.model: pipelines.components(point) for point in points},
        "pipelines": list(pipelines.known()),
    }
    run = subprocess.run(
        [diffusion_stack.python, "-c", LOOK],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        cwd=Path(__file__).parent,
    )
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.nickname)
def test_the_components_of_a_model_are_those_of_its_size(
    told: dict[str, Any], model: catalog.Model
) -> None:
    found = told["models"][model.model_id]

    assert {part: unknown for part, (_, unknown) in found.items()} == {
        "transformer": [],
        "vae": [],
        "scheduler": [],
    }
    # The published sizes are rounded, and some count a learned position table, too.
    number, _ = found["transformer"]
    assert number / 1e9 == pytest.approx(model.total_params_b, rel=0.16)


@pytest.mark.parametrize("name", pipelines.known())
def test_a_pipeline_takes_the_arguments_that_it_is_given(
    told: dict[str, Any], name: str
) -> None:
    known = asdict(pipelines.known()[name])
    given = {*known["embeds"], *known["masks"], *known["arguments"], *known["absent"]}
    frames = {"num_frames"} if known["work_unit"] == "video" else set()

    taken = set(told["pipelines"][name])
    assert {"height", "width", "num_inference_steps", "generator", "prompt"} <= taken
    assert given | frames <= taken
