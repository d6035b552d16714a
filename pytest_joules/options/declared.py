"""The options, each declared once with its help: what pytest's parser and the docs are told.

This is all that a repository pays which has the plugin and no energy tests, so nothing but
the readers of single values is imported here; see ``frozen`` for what becomes of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pytest_joules.options import values


class Option(NamedTuple):
    """One option: ``--joules-<name>``, ini ``joules_<name>``, table key ``<name>``."""

    name: str
    help: str
    parse: Callable[[Any], Any] = values.text
    metavar: str | None = None
    """``None`` for a switch."""

    flag: str = ""
    """Command-line flag where it is not ``--joules-<name>``."""

    bare: str = ""
    """Value where the command line names the option alone."""

    adds_up: bool = False
    """Whether the command line may repeat it, each time adding to a list with commas."""

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def dest(self) -> str:
        return f"joules_{self.field}"


DECLARED = (
    Option(
        name="gpu",
        flag="--gpu",
        metavar="NAME",
        parse=values.gpu,
        help="GPU model to measure on: b200, h100, h200, ... or NVML's name",
    ),
    Option(
        name="source",
        metavar="live|recorded|simulated",
        parse=values.source,
        help="where results come from: measured here and now (live, the default), read from "
        "stored measurements (recorded), or made up by a model of the GPU (simulated)",
    ),
    Option(
        name="plant",
        metavar="CAUSE:CHANGE,...",
        parse=values.plants,
        help="change the simulated stack under test, such as kv-memory:-30%%, to see a red "
        "test and its explanation; only with --joules-source=simulated",
    ),
    Option(
        name="data",
        metavar="PATH",
        parse=values.path,
        help="folder of stored measurements: what --joules-source=recorded looks up, and a "
        "reference that is shown beside results of other sources",
    ),
    Option(
        name="baselines",
        metavar="PATH",
        parse=values.path,
        help="folder of recorded baselines (default: baselines/ beside the rootdir's config)",
    ),
    Option(
        name="record",
        parse=values.switch,
        help="measure checked points and add the runs to their baselines instead of judging",
    ),
    Option(
        name="launches",
        metavar="COUNT",
        parse=values.count,
        help="server starts to measure and add with --joules-record (default: 3) or "
        "--joules-calibrate (default: 8)",
    ),
    Option(
        name="calibrate",
        parse=values.switch,
        help="as --joules-record, and judge the recorded runs against each other: stores "
        "noise, false alarms and the detectable change with the baseline",
    ),
    Option(
        name="stack",
        metavar="NAME",
        help="stack under test, from [tool.pytest-joules.stacks.NAME] (default: the "
        "environment that runs pytest)",
    ),
    Option(
        name="against",
        metavar="STACK",
        help="compare with this stack side by side on the same GPU, launches interleaved",
    ),
    Option(
        name="tolerance",
        metavar="SHARE",
        parse=values.ratio,
        help="relative rise of energy per work unit that nobody would act on (default: 3%%)",
    ),
    Option(
        name="window",
        metavar="SECONDS",
        parse=values.positive,
        help="steady-state time measured of each point and launch (default: 60); results of "
        "less than 30 are marked",
    ),
    Option(
        name="budget",
        metavar="GPU_MINUTES",
        parse=values.positive,
        help="GPU minutes this session may use, those before a --joules-resume included; what "
        "is not measured or decided then is inconclusive",
    ),
    Option(
        name="launch-deadline",
        metavar="SECONDS",
        parse=values.positive,
        help="time within which a launched engine must be ready (default: the stack's own "
        "deadline, 600)",
    ),
    Option(
        name="point-deadline",
        metavar="SECONDS",
        parse=values.positive,
        help="time after which the load of one point is given up (default: 3600)",
    ),
    Option(
        name="resume",
        metavar="SESSION",
        bare="latest",
        help="go on with an interrupted session that was asked the same (alone, or latest: "
        "the last one): take over what it measured and judged, and do the rest",
    ),
    Option(
        name="fleet",
        metavar="ray://HOST:PORT|auto|local",
        parse=values.fleet,
        help="measure on the nodes of a Ray cluster: at an address, the one that this machine "
        "belongs to (auto), or one of this machine alone (local); needs pytest-joules[fleet]",
    ),
    Option(
        name="keep",
        metavar="COUNT",
        parse=values.count,
        help="sessions and launches to keep in .joules, the newest (default: 50); of failed "
        "launches five times as many",
    ),
    Option(
        name="lease-wait",
        metavar="SECONDS",
        parse=values.positive,
        help="time to wait for GPUs that others hold (default: 7200); never are they shared",
    ),
    Option(
        name="lease-folder",
        metavar="PATH",
        parse=values.path,
        help="folder of the locks through which all runs on this machine lease its GPUs "
        "(default: /tmp/pytest-joules-leases)",
    ),
    Option(
        name="plan",
        parse=values.switch,
        help="print what would be launched and the GPU minutes it would take, launch nothing",
    ),
    Option(
        name="export",
        metavar="[FORMAT:]PATH,...",
        parse=values.names,
        adds_up=True,
        help="write all results to PATH, whose folder must exist: .csv, .json and .parquet by "
        "the suffix; bencher:PATH, github-benchmark:PATH and openmetrics:PATH by name; may be "
        "given more than once",
    ),
    Option(
        name="report",
        metavar="PATH",
        parse=values.path,
        help="write one self-contained HTML page with plots to PATH, whose folder must exist "
        "(needs pytest-joules[report])",
    ),
    Option(
        name="comment",
        metavar="PATH",
        parse=values.path,
        help="write the body of a pull-request comment, in Markdown, to PATH, whose folder "
        "must exist",
    ),
    Option(
        name="models",
        metavar="MODEL,...",
        parse=values.names,
        help="models for the live forms of the paper's observations (benchmarks/)",
    ),
)


def add_to(parser: pytest.Parser) -> None:
    """Declare every option on pytest's command line and in its ini file."""
    group = parser.getgroup("joules", "energy per token, image and video")
    for option in DECLARED:
        switch: dict[str, Any] = {"action": "store_const", "const": "true"}
        action = "append" if option.adds_up else "store"
        value: dict[str, Any] = {"action": action, "metavar": option.metavar}
        value |= {"nargs": "?", "const": option.bare} if option.bare else {}
        group.addoption(
            option.flag or f"--joules-{option.name}",
            dest=option.dest,
            default=None,
            help=option.help,
            **(value if option.metavar else switch),
        )
        parser.addini(option.dest, option.help.replace("%%", "%"), default=None)


def is_asked(config: pytest.Config) -> bool:
    """Tell whether any option is set on the command line."""
    return any(config.getoption(option.dest) is not None for option in DECLARED)
