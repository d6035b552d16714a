"""Where a result comes from: what must match before comparing, and what may explain."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pytest_joules.errors import BaselineMismatch, ConfigurationError, is_expected

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Hardware and conditions that must be equal before two energies may be compared."""

    gpu_model: str
    """NVML's device name, or the published name."""

    num_gpus: int
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    mig: bool | None = None
    topology: str | None = None
    """How several GPUs reach each other, such as ``1 x nvlink-18``."""

    inputs_sha256: str = ""
    """Of the user's files that requests showed; empty for synthetic inputs."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Software and circumstances: shown with a verdict, free to differ."""

    stack: str = ""
    packages: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Versions by distribution: the engine, torch, cuda, ..."""

    driver: str = ""
    model_revision: str | None = None
    """Commit of the served snapshot; ``None`` where the stack could not tell."""

    gpu_uuids: tuple[str, ...] = ()
    session: str = ""
    """Identifies the pytest run."""

    recorded_at: str = ""
    """UTC, ISO 8601."""

    plugin: str = ""
    """Version of pytest-joules."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Identity and context of one measurement."""

    identity: Identity
    context: Context

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values, tuples as lists."""
        values = asdict(self)
        values["context"]["gpu_uuids"] = list(self.context.gpu_uuids)
        values["context"]["packages"] = dict(self.context.packages)
        if not self.identity.inputs_sha256:  # few points show files
            del values["identity"]["inputs_sha256"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Provenance":
        """Rebuild it; unknown or missing keys raise ``TypeError`` or ``KeyError``."""
        context = dict(values["context"])
        context["gpu_uuids"] = tuple(context.get("gpu_uuids", ()))
        return cls(identity=Identity(**values["identity"]), context=Context(**context))


_OTHER_HARDWARE = (
    "Energy is only comparable on equal hardware: give this machine a folder of its own "
    "(--joules-baselines)"
)
_WHY = {
    "inputs_sha256": "Energy is only comparable with equal inputs: show the files of the "
    "baseline again (media)"
}


def require_comparable(ours: Identity, theirs: Identity, point_id: str) -> None:
    """Refuse to compare measurements of different hardware.

    Raises:
        BaselineMismatch: Names the first field that differs, with both values.
    """
    for name, mine, other in different(ours, theirs):
        raise BaselineMismatch(
            f"{point_id}: the baseline has {name}={other!r}, this machine has {mine!r}. "
            f"{_WHY.get(name, _OTHER_HARDWARE)}, or delete the old baseline and record a "
            "new one (--joules-record)."
        )


def different(ours: Identity, theirs: Identity) -> Iterator[tuple[str, object, object]]:
    """Yield the name of each field that differs, with our value and theirs."""
    for item in fields(Identity):
        mine, other = getattr(ours, item.name), getattr(theirs, item.name)
        if mine != other:
            yield item.name, mine, other


def require_same(ours: Identity, theirs: Identity, what: str) -> None:
    """Refuse to go on with measurements of other hardware.

    Raises:
        ConfigurationError: Names the first field that differs, with both values.
    """
    for name, mine, other in different(ours, theirs):
        raise _changed(what, name, (other, mine))


def require_same_context(ours: Context, theirs: Context, what: str) -> None:
    """Refuse to go on with measurements of other software, or of other boards of one model.

    What either side does not know, as before a launch, is not compared.

    Raises:
        ConfigurationError: Names the first that differs, with both values.
    """
    if ours.gpu_uuids and ours.gpu_uuids != theirs.gpu_uuids:
        raise _changed(what, "gpu_uuids", (theirs.gpu_uuids, ours.gpu_uuids))
    for name in ("driver", "model_revision"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine and other and mine != other:
            raise _changed(what, name, (other, mine))
    for name in sorted({*ours.packages, *theirs.packages} if ours.packages else ()):
        mine, other = (each.packages.get(name, "absent") for each in (ours, theirs))
        if mine != other:
            raise _changed(what, f"packages.{name}", (other, mine))


def _changed(what: str, name: str, values: tuple[object, object]) -> ConfigurationError:
    then, now = values
    return ConfigurationError(
        f"{what} was measured with {name}={then!r}, now it is {now!r}. Restore what it was, "
        "or measure all anew without --joules-resume."
    )


def differences(ours: Context, theirs: Context) -> dict[str, tuple[str, str]]:
    """Return what differs in software, as ``{name: (theirs, ours)}``."""
    mine, other = (
        {"driver": each.driver, "model_revision": each.model_revision or "", **each.packages}
        for each in (ours, theirs)
    )
    return {
        name: (other.get(name, ""), mine.get(name, ""))
        for name in sorted({*mine, *other})
        if other.get(name, "") != mine.get(name, "")
    }
