"""What a launch is measured with."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_joules.engines import Engine
from pytest_joules.leases import Leases
from pytest_joules.meter import Meter
from pytest_joules.procedure import Procedure
from pytest_joules.progress import Say
from pytest_joules.result import SourceName


@dataclass(kw_only=True)
class Waiting:
    """How long a rig has waited for GPUs that others held; no GPU time of its own."""

    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What a launch is measured with."""

    engine: Engine
    meter: Meter
    procedure: Procedure = field(default_factory=Procedure)
    source: SourceName = "live"
    session: str = ""
    """Identifies the pytest run in every result's provenance."""

    clock: Callable[[], float] = time.monotonic
    leases: Leases | None = None
    """Through which GPUs are held; ``None`` where nobody else could use them."""

    waiting: Waiting = field(default_factory=Waiting)
    say: Say = lambda event: None  # noqa: ARG005  silence is the default listener
