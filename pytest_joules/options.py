"""Options: command line, ini and ``[tool.pytest-joules]`` become one frozen value here.

Each option is declared once, with its help. The command line wins over pyproject's table,
which wins over the ini file. Nothing else in the package asks pytest for an option.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_joules import option_values
from pytest_joules.errors import ConfigurationError

if TYPE_CHECKING:  # plan loads the catalog; a repository without energy tests pays nothing
    from pytest_joules.plan import Stack


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option: ``--joules-<name>``, ini ``joules_<name>``, table key ``<name>``."""

    name: str
    help: str
    parse: Callable[[Any], Any] = option_values.text
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
        parse=option_values.gpu,
        help="GPU model to measure on: b200, h100, h200, ... or NVML's name",
    ),
    Option(
        name="source",
        metavar="live|recorded|simulated",
        parse=option_values.source,
        help="where results come from: measured here and now (live, the default), read from "
        "stored measurements (recorded), or made up by a model of the GPU (simulated)",
    ),
    Option(
        name="plant",
        metavar="CAUSE:CHANGE,...",
        parse=option_values.plants,
        help="change the simulated stack under test, such as kv-memory:-30%%, to see a red "
        "test and its explanation; only with --joules-source=simulated",
    ),
    Option(
        name="data",
        metavar="PATH",
        parse=option_values.path,
        help="folder of stored measurements: what --joules-source=recorded looks up, and a "
        "reference that is shown beside results of other sources",
    ),
    Option(
        name="baselines",
        metavar="PATH",
        parse=option_values.path,
        help="folder of recorded baselines (default: baselines/ beside the rootdir's config)",
    ),
    Option(
        name="record",
        parse=option_values.switch,
        help="measure checked points and add the runs to their baselines instead of judging",
    ),
    Option(
        name="launches",
        metavar="COUNT",
        parse=option_values.count,
        help="server starts to measure and add with --joules-record (default: 3) or "
        "--joules-calibrate (default: 8)",
    ),
    Option(
        name="calibrate",
        parse=option_values.switch,
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
        parse=option_values.ratio,
        help="relative rise of energy per work unit that nobody would act on (default: 3%%)",
    ),
    Option(
        name="window",
        metavar="SECONDS",
        parse=option_values.positive,
        help="steady-state time measured of each point and launch (default: 60); results of "
        "less than 30 are marked",
    ),
    Option(
        name="budget",
        metavar="GPU_MINUTES",
        parse=option_values.positive,
        help="GPU minutes this session may use, those before a --joules-resume included; what "
        "is not measured or decided then is inconclusive",
    ),
    Option(
        name="launch-deadline",
        metavar="SECONDS",
        parse=option_values.positive,
        help="time within which a launched engine must be ready (default: the stack's own "
        "deadline, 600)",
    ),
    Option(
        name="point-deadline",
        metavar="SECONDS",
        parse=option_values.positive,
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
        parse=option_values.fleet,
        help="measure on the nodes of a Ray cluster: at an address, the one that this machine "
        "belongs to (auto), or one of this machine alone (local); needs pytest-joules[fleet]",
    ),
    Option(
        name="keep",
        metavar="COUNT",
        parse=option_values.count,
        help="sessions and launches to keep in .joules, the newest (default: 50); of failed "
        "launches five times as many",
    ),
    Option(
        name="lease-wait",
        metavar="SECONDS",
        parse=option_values.positive,
        help="time to wait for GPUs that others hold (default: 7200); never are they shared",
    ),
    Option(
        name="lease-folder",
        metavar="PATH",
        parse=option_values.path,
        help="folder of the locks through which all runs on this machine lease its GPUs "
        "(default: /tmp/pytest-joules-leases)",
    ),
    Option(
        name="plan",
        parse=option_values.switch,
        help="print what would be launched and the GPU minutes it would take, launch nothing",
    ),
    Option(
        name="export",
        metavar="[FORMAT:]PATH,...",
        parse=option_values.names,
        adds_up=True,
        help="write all results to PATH, whose folder must exist: .csv, .json and .parquet by "
        "the suffix; bencher:PATH, github-benchmark:PATH and openmetrics:PATH by name; may be "
        "given more than once",
    ),
    Option(
        name="report",
        metavar="PATH",
        parse=option_values.path,
        help="write one self-contained HTML page with plots to PATH, whose folder must exist "
        "(needs pytest-joules[report])",
    ),
    Option(
        name="comment",
        metavar="PATH",
        parse=option_values.path,
        help="write the body of a pull-request comment, in Markdown, to PATH, whose folder "
        "must exist",
    ),
    Option(
        name="models",
        metavar="MODEL,...",
        parse=option_values.names,
        help="models for the live forms of the paper's observations (benchmarks/)",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """All settings of a session; every default stands here."""

    gpu: str = ""
    source: str = "live"
    plant: Mapping[str, float] = field(default_factory=dict)
    data: Path | None = None
    baselines: Path = Path("baselines")
    record: bool = False
    calibrate: bool = False
    launches: int | None = None
    """``None`` leaves it to ``num_launches``."""

    stack: str = ""
    against: str = ""
    tolerance: float = 0.03
    window: float = 60.0
    budget: float | None = None
    launch_deadline: float | None = None
    """``None`` leaves it to each stack."""

    point_deadline: float | None = None
    """``None`` leaves it to ``Procedure``."""

    resume: str = ""
    fleet: str = ""
    keep: int = 50
    lease_wait: float = 7200.0
    lease_folder: Path = Path("/tmp/pytest-joules-leases")  # noqa: S108  whatever TMPDIR says
    """The same for every user and process of the machine; see ``leases.files``."""

    plan: bool = False
    export: tuple[str, ...] = ()
    report: Path | None = None
    comment: Path | None = None
    models: tuple[str, ...] = ()
    stacks: Mapping[str, "Stack"] = field(default_factory=dict)

    @property
    def records(self) -> bool:
        """Whether checked points are added to baselines instead of being judged."""
        return self.record or self.calibrate

    @property
    def num_launches(self) -> int:
        """Launches to add to a baseline; a calibration needs more to know the noise."""
        return self.launches or (8 if self.calibrate else 3)

    @classmethod
    def from_pytest(cls, config: pytest.Config) -> "Options":
        """Read every option from where it is set.

        Raises:
            ConfigurationError: A value or key is wrong; names it and where it stands.
        """
        table = _table(config)
        values = {name: value for name, value in _values(config, table) if value is not None}
        root = config.rootpath
        values["baselines"] = root / values.get("baselines", "baselines")
        values["lease_folder"] = root / values.get("lease_folder", cls.lease_folder)
        from pytest_joules.stack_table import stacks_of  # noqa: PLC0415  see TYPE_CHECKING

        return cls(**values, stacks=stacks_of(table.get("stacks", {}), root))

    def stack_named(self, name: str) -> "Stack":
        """Return a declared stack; the empty name is the environment running pytest.

        Raises:
            ConfigurationError: It is not declared.
        """
        from pytest_joules.plan import Stack  # noqa: PLC0415  see TYPE_CHECKING above

        if name and name not in self.stacks:
            known = ", ".join(self.stacks) or "none"
            raise ConfigurationError(
                f"stack {name!r} is not declared (declared: {known}). Add "
                f'[tool.pytest-joules.stacks.{name}] with python = "..." to pyproject.toml.'
            )
        stack = self.stacks.get(name or "default", Stack())
        if self.launch_deadline is None:
            return stack
        return replace(stack, deadline_s=self.launch_deadline)


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


def is_expected(config: pytest.Config) -> bool:
    """Tell whether workers of pytest-xdist may run energy tests: where files name a GPU."""
    if getattr(config.option, "dist", "no") == "no":  # as it is in workers
        return False
    try:
        return bool(_table(config).get("gpu") or _ini(config, "joules_gpu"))
    except ConfigurationError:
        return True  # is told as soon as options are read


def _values(config: pytest.Config, table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(option.field, _value(option, config, table)) for option in DECLARED]


def _value(option: Option, config: pytest.Config, table: Mapping[str, Any]) -> Any:
    given = config.getoption(option.dest)
    if option.adds_up and given is not None:
        given = ",".join(given)
    places = (
        (option.flag or f"--joules-{option.name}", given),
        (f"[tool.pytest-joules] {option.name}", table.get(option.name)),
        (f"ini option {option.dest}", _ini(config, option.dest)),
    )
    for place, value in places:
        if value is not None and value != "":
            return parsed(option.parse, value, place)
    return None


def _ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except TypeError as error:  # pytest's own check of a table's types
        raise ConfigurationError(f"{error}.") from None


def parsed(parse: Callable[[Any], Any], value: Any, place: str) -> Any:
    """Read a value from where it stands.

    Raises:
        ConfigurationError: It is wrong; names the place.
    """
    try:
        return parse(value)
    except ValueError as error:
        shown = value if isinstance(value, str) else repr(value)
        raise ConfigurationError(f"{place}={shown}: {error}.") from None


def _table(config: pytest.Config) -> Mapping[str, Any]:
    # A repository without energy tests pays nothing.
    import tomllib  # noqa: PLC0415

    from pytest_joules.stack_table import as_table  # noqa: PLC0415

    path = config.rootpath / "pyproject.toml"
    if not path.exists():
        return {}
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (ValueError, OSError, RecursionError) as error:  # also numbers of 5,000 digits
        raise ConfigurationError(f"{path}: {error}.") from None
    table = as_table(tool.get("pytest-joules", {}), f"{path}: [tool] pytest-joules")
    known = {option.name for option in DECLARED} | {"stacks"}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigurationError(
            f"{path}: [tool.pytest-joules] has no key {', '.join(unknown)}; known are "
            f"{', '.join(sorted(known))}."
        )
    return table
