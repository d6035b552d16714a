"""Options: command line, ini and ``[tool.pytest-joules]`` become one frozen value here.

The command line wins over pyproject's table, which wins over the ini file. Nothing else in
the package asks pytest for an option.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_joules.errors import ConfigurationError
from pytest_joules.options.declared import DECLARED, Option

if TYPE_CHECKING:  # plan loads the catalog; a repository without energy tests pays nothing
    from pytest_joules.plan import Stack


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
        values["baselines"] = root / values.get("baselines", cls.baselines)
        values["lease_folder"] = root / values.get("lease_folder", cls.lease_folder)
        from pytest_joules.options.stacks import stacks_of  # noqa: PLC0415  see TYPE_CHECKING

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


def is_gpu_named(config: pytest.Config) -> bool:
    """Tell whether a file of this repository names a GPU to measure on."""
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
    if given == "":
        raise ConfigurationError(
            f"{places[0][0]}= is given without a value. Give one, or leave the option out."
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

    from pytest_joules.options.stacks import as_table  # noqa: PLC0415

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
