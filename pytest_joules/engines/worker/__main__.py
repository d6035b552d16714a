"""Run one worker, or one of its ranks: build the engine, then obey until orders end."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ENGINES = {"diffusers": "diffusion", "transformers": "generation", "xdit": "diffusion"}
"""By engine name, the module of this folder whose ``prepared(job)`` builds it."""


def _make_importable() -> None:
    """Let this folder be imported as the package it is, without importing the plugin.

    The plugin's dependencies are not in the stack's environment, and its folder on the
    import path would bring its neighbours in site-packages along.
    """
    if __package__:
        return
    # Python put this folder in front, where its modules would hide libraries of that name.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]
    for name, folder in (
        ("pytest_joules", HERE.parents[1]),
        ("pytest_joules.engines", HERE.parent),
    ):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package


def main(folder: Path) -> None:
    """Serve orders; see the package's docstring for the protocol."""
    home = "pytest_joules.engines.worker"
    channel = import_module(f"{home}.channel")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with channel.Channel(folder, rank=int(os.environ.get("RANK", "0"))) as parent:
        engine = import_module(f"{home}.{ENGINES[job['engine']]}")
        with engine.prepared(job) as work:
            parent.say("ready", **work.facts())
            for order in parent.orders():
                for event, facts in work.run(order):
                    parent.say(event, **facts)
                parent.say("done")


if __name__ == "__main__":
    _make_importable()
    main(Path(sys.argv[1]))
