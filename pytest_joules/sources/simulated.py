"""Results of a machine that is arithmetic: the live pipeline on a virtual clock.

Nothing is measured. Every result says ``simulated``, its baselines stand below
``baselines/simulated/`` where no live check looks, and the two are never compared.
"""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace

from pytest_joules.contract import reason
from pytest_joules.latent import parameters_of
from pytest_joules.measure import Failure, FrozenWork, Outcome
from pytest_joules.plan import Boards, Launch
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.provenance import Context, Identity
from pytest_joules.result import SourceName
from pytest_joules.rig import Rig
from pytest_joules.simulation import Chance, SimulatedMachine
from pytest_joules.simulation.meter import Clock
from pytest_joules.simulation.plant import Planted
from pytest_joules.sources.live import LiveSource

ENGINES = ("vllm", "diffusers", "xdit")


@dataclass(frozen=True, kw_only=True)
class SimulatedSource:
    """Measures points on a simulated machine; a plant changes one stack of it."""

    clean: LiveSource
    changed: LiveSource
    """The same machine with the causes planted; equal to ``clean`` without any."""

    planted: Planted
    stack: str
    """The stack under test: the one that is changed."""

    virtual: Clock
    name: SourceName = "simulated"
    launches: bool = True

    def identity(self, launch: Launch) -> Identity:
        source, made = self._chosen(launch)
        return source.identity(made)

    def context(self, launch: Launch) -> Context:
        source, made = self._chosen(launch)
        return source.context(made)

    def require_gpu(self, gpu: str) -> None:
        """Refuse a GPU that the latent model does not know.

        Raises:
            InvalidPoint: It does not.
        """
        parameters_of(gpu)

    def leased(self, launch: Launch) -> AbstractContextManager[Launch]:
        return nullcontext(launch)

    def clock(self) -> float:
        return self.virtual.now_s

    def outcomes(
        self, launch: Launch, frozen: Mapping[Point, FrozenWork]
    ) -> Generator[Outcome, None, None]:
        source, made = self._chosen(launch)
        asked = dict(zip(made.points, launch.points, strict=True))
        work = {each: frozen[point] for each, point in asked.items() if point in frozen}
        plant = self.planted.told if source is self.changed else ""
        with closing(source.outcomes(made, work)) as found:
            for outcome in found:
                yield _as_asked(outcome, asked[outcome.point], plant)

    def _chosen(self, launch: Launch) -> tuple[LiveSource, Launch]:
        """Return the machine of the launch's stack; added GPUs make it another launch."""
        if launch.stack.name != self.stack:
            return self.clean, launch
        points = tuple(
            point.but(num_gpus=point.num_gpus + self.planted.gpus) for point in launch.points
        )
        if not self.planted.gpus:
            return self.changed, launch
        return self.changed, replace(launch, points=points, boards=Boards())


def _as_asked(outcome: Outcome, point: Point, plant: str) -> Outcome:
    if isinstance(outcome, Failure):
        return Failure(point=point, error=outcome.error)
    if not plant:
        return outcome.but(point=point)
    seen = f"the simulated stack was changed by --joules-plant={plant}."
    return outcome.but(point=point, notes=(*outcome.notes, reason("planted", seen)))


def simulated_source(
    *,
    gpu: str,
    planted: Planted,
    stack: str,
    procedure: Procedure,
    session: str,
    chance: Chance,
) -> SimulatedSource:
    """Set up the source of ``--joules-source=simulated``.

    Args:
        gpu: As ``--gpu`` names it.
        planted: What differs in the stack under test.
        stack: Name of the stack under test.
        procedure: How carefully to measure.
        session: Identifies the pytest run.
        chance: Decides the noise.
    """
    clock = Clock()

    def source(causes: Planted) -> LiveSource:
        machine = SimulatedMachine(gpu=gpu, clock=clock, chance=chance, planted=causes)
        rig = Rig(
            engine=machine,
            meter=machine,
            procedure=procedure,
            source="simulated",
            session=session,
            clock=clock,
        )
        return LiveSource(rigs=dict.fromkeys(ENGINES, rig), name="simulated")

    return SimulatedSource(
        clean=source(Planted()),
        changed=source(planted),
        planted=planted,
        stack=stack,
        virtual=clock,
    )
