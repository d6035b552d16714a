"""Options: command line, ini and ``[tool.pytest-joules]`` become one frozen value here.

Each option is declared once, with its help. The command line wins over pyproject's table,
which wins over the ini file. Nothing else in the package asks pytest for an option.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_joules.errors import ConfigurationError

if TYPE_CHECKING:  # plan loads the catalog; a repository without energy tests pays nothing
    from pytest_joules.plan import Stack

SOURCES = ("live", "recorded", "simulated")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option: ``--joules-<name>``, ini ``joules_<name>``, table key ``<name>``."""

    name: str
    help: str
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    """``None`` for a switch."""

    flag: str = ""
    """Command-line flag where it is not ``--joules-<name>``."""

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def dest(self) -> str:
        return f"joules_{self.field}"


def _number(text: str, kind: type[float | int] = float) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError("this is no number") from None


def _ratio(text: str) -> float:
    value = _number(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise ValueError("give a share between 0 and 1, such as 3% or 0.03")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise ValueError("give a number above 0")
    return value


def _count(text: str) -> int:
    value = _number(text, int)
    if value < 1:
        raise ValueError("give a whole number of at least 1")
    return int(value)


def _source(text: str) -> str:
    if text not in SOURCES:
        raise ValueError(f"choose one of {', '.join(SOURCES)}")
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _plants(text: str) -> dict[str, float]:
    pairs = [each.partition(":") for each in _names(text)]
    return {name: _change(change) for name, _, change in pairs}


def _change(text: str) -> float:
    percentage = text.endswith("%")
    return _number(text.removesuffix("%").strip()) / (100 if percentage else 1)


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("give true or false")
    return text.lower() == "true"


DECLARED = (
    Option(
        name="gpu",
        flag="--gpu",
        metavar="NAME",
        help="GPU model to measure on: b200, h100, h200, ... or the slug of NVML's name",
    ),
    Option(
        name="source",
        metavar="live|recorded|simulated",
        parse=_source,
        help="where results come from: measured here and now (live, the default), read from "
        "stored measurements (recorded), or made up by a model of the GPU (simulated)",
    ),
    Option(
        name="plant",
        metavar="CAUSE:CHANGE,...",
        parse=_plants,
        help="change the simulated stack under test, such as kv-memory:-30%%, to see a red "
        "test and its explanation; only with --joules-source=simulated",
    ),
    Option(
        name="data",
        metavar="PATH",
        parse=Path,
        help="folder of stored measurements: what --joules-source=recorded looks up, and a "
        "reference that is shown beside results of other sources",
    ),
    Option(
        name="baselines",
        metavar="PATH",
        parse=Path,
        help="folder of recorded baselines (default: baselines/ beside the rootdir's config)",
    ),
    Option(
        name="record",
        parse=_switch,
        help="measure checked points and add the runs to their baselines instead of judging",
    ),
    Option(
        name="launches",
        metavar="COUNT",
        parse=_count,
        help="server starts to measure and add with --joules-record (default: 3) or "
        "--joules-calibrate (default: 8)",
    ),
    Option(
        name="calibrate",
        parse=_switch,
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
        parse=_ratio,
        help="relative rise of energy per work unit that nobody would act on (default: 3%%)",
    ),
    Option(
        name="window",
        metavar="SECONDS",
        parse=_positive,
        help="steady-state time measured of each point and launch (default: 60); results of "
        "less than 30 are marked",
    ),
    Option(
        name="budget",
        metavar="GPU_MINUTES",
        parse=_positive,
        help="GPU minutes this session may use; what is undecided then is inconclusive",
    ),
    Option(
        name="plan",
        parse=_switch,
        help="print what would be launched and the GPU minutes it would take, launch nothing",
    ),
    Option(
        name="export",
        metavar="[FORMAT:]PATH,...",
        parse=_names,
        help="write all results to PATH, whose folder must exist: .csv, .json and .parquet by "
        "the suffix; bencher:PATH, github-benchmark:PATH and openmetrics:PATH by name",
    ),
    Option(
        name="report",
        metavar="PATH",
        parse=Path,
        help="write one self-contained HTML page with plots to PATH, whose folder must exist "
        "(needs pytest-joules[report])",
    ),
    Option(
        name="comment",
        metavar="PATH",
        parse=Path,
        help="write the body of a pull-request comment, in Markdown, to PATH, whose folder "
        "must exist",
    ),
    Option(
        name="models",
        metavar="MODEL,...",
        parse=_names,
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
        return cls(**{name: share(v, f"{place} {name}") for name, v in marker.kwargs.items()})


def share(value: object, place: str) -> float:
    """Read a share such as 0.03 or "3%".

    Raises:
        ConfigurationError: It is none; names the place.
    """
    try:
        return _ratio(str(value))
    except ValueError as error:
        raise ConfigurationError(f"{place}={value!r}: {error}.") from None


def add_to(parser: pytest.Parser) -> None:
    """Declare every option on pytest's command line and in its ini file."""
    group = parser.getgroup("joules", "energy per token, image and video")
    for option in DECLARED:
        switch: dict[str, Any] = {"action": "store_const", "const": "true"}
        value: dict[str, Any] = {"metavar": option.metavar}
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
    places = (
        (option.flag or f"--joules-{option.name}", config.getoption(option.dest)),
        (f"[tool.pytest-joules] {option.name}", table.get(option.name)),
        (f"ini option {option.dest}", config.getini(option.dest)),
    )
    for place, value in places:
        if value is not None and value != "":
            return _parsed(option.parse, value, place)
    return None


def _parsed(parse: Callable[[str], Any], value: Any, place: str) -> Any:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{place}={text}: {error}.") from None


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
