"""Options: command line, ini and ``[tool.pytest-joules]`` become one frozen value here.

Each option is declared once, with its help. The command line wins over pyproject's table,
which wins over the ini file. Nothing else in the package asks pytest for an option.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
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
        help="GPU minutes this session may use; what is undecided then is inconclusive",
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
    fleet: str = ""
    keep: int = 50
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
        from pytest_joules.stack_table import stacks_of  # noqa: PLC0415  see TYPE_CHECKING

        return cls(**values, stacks=stacks_of(table.get("stacks", {}), root))

    def stack_named(self, name: str) -> "Stack":
        """Return a declared stack; the empty name is the environment running pytest.

        Raises:
            ConfigurationError: It is not declared.
        """
        from pytest_joules.plan import Stack  # noqa: PLC0415  see TYPE_CHECKING above

        if not name:
            return self.stacks.get("default", Stack())
        if name not in self.stacks:
            known = ", ".join(self.stacks) or "none"
            raise ConfigurationError(
                f"stack {name!r} is not declared (declared: {known}). Add "
                f'[tool.pytest-joules.stacks.{name}] with python = "..." to pyproject.toml.'
            )
        return self.stacks[name]


@dataclass(frozen=True, kw_only=True)
class MarkerOptions:
    """What ``@pytest.mark.joules(...)`` may set for one test."""

    tolerance: float | None = None
    may_measure_nothing: bool = False
    """Whether the test may pass though it came to no measured value."""

    @classmethod
    def from_item(cls, item: pytest.Item) -> "MarkerOptions":
        """Read the test's marker.

        Raises:
            ConfigurationError: It has positional arguments, unknown keywords or wrong values.
        """
        marker = item.get_closest_marker("joules")
        if marker is None:
            return cls()
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(marker.kwargs) - set(known))
        if marker.args or unknown:
            raise ConfigurationError(
                f"{item.nodeid}: @pytest.mark.joules takes the keywords {', '.join(known)}; "
                f"it was given {', '.join([*map(repr, marker.args), *unknown])}."
            )
        place = f"{item.nodeid}: @pytest.mark.joules"
        readers = {
            "tolerance": option_values.ratio,
            "may_measure_nothing": option_values.switch,
        }
        return cls(
            **{
                name: _parsed(readers[name], value, f"{place} {name}")
                for name, value in marker.kwargs.items()
            }
        )


def share(value: object, place: str) -> float:
    """Read a share such as 0.03 or "3%".

    Raises:
        ConfigurationError: It is none; names the place.
    """
    read: float = _parsed(option_values.ratio, value, place)
    return read


def add_to(parser: pytest.Parser) -> None:
    """Declare every option on pytest's command line and in its ini file."""
    group = parser.getgroup("joules", "energy per token, image and video")
    for option in DECLARED:
        switch: dict[str, Any] = {"action": "store_const", "const": "true"}
        action = "append" if option.adds_up else "store"
        value: dict[str, Any] = {"action": action, "metavar": option.metavar}
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
            return _parsed(option.parse, value, place)
    return None


def _ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except TypeError as error:  # pytest's own check of a table's types
        raise ConfigurationError(f"{error}.") from None


def _parsed(parse: Callable[[Any], Any], value: Any, place: str) -> Any:
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
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
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
