"""Which source a session's results come from, by its options; loads no other."""

import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_joules import storage
from pytest_joules.engines import Engine
from pytest_joules.leases import Leases
from pytest_joules.options.frozen import Options
from pytest_joules.procedure import Procedure
from pytest_joules.rig import Rig
from pytest_joules.sources import Source
from pytest_joules.sources.live import LiveSource

if TYPE_CHECKING:  # reads published data; most runs have none
    from pytest_joules.sources.recorded import RecordedSource
_VIRTUAL_DEADLINE_S = 1e6
"""Virtual time costs nothing."""


def chosen_source(chosen: Options) -> Source:
    """Set up the source of ``--joules-source``.

    Raises:
        JoulesError: It cannot be had with these options.
    """
    if chosen.source == "recorded":
        from pytest_joules.sources.recorded import RecordedSource  # noqa: PLC0415  only here

        return RecordedSource.from_options(chosen.data)
    if chosen.source == "simulated":
        return _simulated(chosen)
    return _live(chosen)


def _live(chosen: Options) -> LiveSource:
    # Only a live run needs engines and a meter.
    from pytest_joules.engines.diffusers import DiffusersEngine  # noqa: PLC0415
    from pytest_joules.engines.endpoint import EndpointEngine  # noqa: PLC0415
    from pytest_joules.engines.transformers import TransformersEngine  # noqa: PLC0415
    from pytest_joules.engines.vllm import VllmEngine  # noqa: PLC0415
    from pytest_joules.engines.xdit import XditEngine  # noqa: PLC0415
    from pytest_joules.meter import ZeusMeter  # noqa: PLC0415

    engines: tuple[Engine, ...] = (
        VllmEngine(keep=chosen.keep),
        EndpointEngine(keep=chosen.keep),
        TransformersEngine(keep=chosen.keep),
        DiffusersEngine(keep=chosen.keep),
        XditEngine(keep=chosen.keep),
    )
    meter, session = ZeusMeter(), uuid.uuid4().hex[:12]
    procedure = Procedure(
        min_window_s=chosen.window, deadline_s=chosen.point_deadline or Procedure.deadline_s
    )
    leases = Leases(folder=chosen.lease_folder, wait_s=chosen.lease_wait)
    return LiveSource(
        rigs={
            engine.name: Rig(
                engine=engine,
                meter=meter,
                procedure=procedure,
                session=session,
                leases=leases,
            )
            for engine in engines
        }
    )


def reference(chosen: Options) -> "RecordedSource | None":
    """Read published results to set beside others, where ``--joules-data`` names some.

    Raises:
        JoulesError: They cannot be read; told before any launch.
    """
    if chosen.data is None or chosen.source == "recorded":
        return None
    from pytest_joules.sources.recorded import RecordedSource  # noqa: PLC0415  rarely needed

    return RecordedSource.from_options(chosen.data)


def _simulated(chosen: Options) -> Source:
    from pytest_joules.simulation import Chance  # noqa: PLC0415
    from pytest_joules.simulation.plant import planted  # noqa: PLC0415  loads the latent model
    from pytest_joules.sources.simulated import simulated_source  # noqa: PLC0415

    session = uuid.uuid4().hex[:12]
    return simulated_source(
        gpu=chosen.gpu,
        planted=planted(chosen.plant),
        stack=chosen.stack_named(chosen.stack).name,
        chance=Chance(seed=_seed(chosen)),
        procedure=Procedure(
            min_window_s=chosen.window,
            deadline_s=chosen.point_deadline or _VIRTUAL_DEADLINE_S,
        ),
        session=session,
    )


def _seed(chosen: Options) -> str:
    """Return what the noise is drawn from; who goes on does not repeat what was before."""
    seed = _recorded(chosen.baselines) if chosen.records else "judged"
    return f"{seed} after {chosen.resume}" if chosen.resume else seed


def _recorded(root: Path) -> str:
    """Return a seed that no recording so far has used, the same for the same baselines.

    Judged runs are the same each time; recorded ones must not be copies of each other.
    """
    stored = [
        storage.text_of(path) for path in storage.files_below(root / "simulated", ".json")
    ]
    return f"recorded after {zlib.crc32(''.join(stored).encode()):08x}"
