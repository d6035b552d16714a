"""Results measured here and now."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from pytest_joules.contract import reason
from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.gpus.choice import choose_gpus, request, require_gpu
from pytest_joules.gpus.holding import held
from pytest_joules.gpus.identity import identity_of
from pytest_joules.latent.plausibility import IMPLAUSIBLE, far_from_model
from pytest_joules.measure import FrozenWork, Outcome, measure
from pytest_joules.plan import Boards, Launch
from pytest_joules.point import Point
from pytest_joules.progress import Say
from pytest_joules.provenance import Context, Identity
from pytest_joules.result import Result, SourceName
from pytest_joules.rig import Rig

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class LiveSource:
    """Launches engines and measures them."""

    rigs: Mapping[str, Rig]
    """What to measure with, by engine name."""

    name: SourceName = "live"
    launches: bool = True

    def require_gpu(self, gpu: str) -> None:
        require_gpu(next(iter(self.rigs.values())).meter.identify(), gpu)

    def identity(self, launch: Launch) -> Identity:
        gpus = choose_gpus(self._rig(launch).meter.identify(), launch)
        return identity_of(gpus, launch.largest)

    @contextmanager
    def leased(self, launch: Launch) -> Iterator[Launch]:
        """Hold the launch's GPUs inside the block.

        Raises:
            LeaseError: Other tests or runs keep them.
            MeterError: They are not there.
        """
        rig = self._rig(launch)
        if rig.leases is None or rig.engine.attaches:
            yield launch  # a running server tells only later which GPUs it uses
            return
        with held(rig, launch, request(rig.meter.identify(), launch)) as board:
            yield replace(launch, boards=Boards(fixed=board))

    def context(self, launch: Launch) -> Context:
        rig = self._rig(launch)
        if rig.engine.attaches:
            return Context()  # only its server knows
        gpus = choose_gpus(rig.meter.identify(), launch)
        return Context(
            packages=rig.engine.versions(launch.stack),
            driver=gpus[0].driver,
            gpu_uuids=tuple(gpu.uuid for gpu in gpus),
        )

    def clock(self) -> float:
        """Return a time that stands still while GPUs are waited for.

        What a running server uses is known, and so can be leased, only in its launch.
        """
        waited = {id(rig.waiting): rig.waiting.seconds for rig in self.rigs.values()}
        return next(iter(self.rigs.values())).clock() - sum(waited.values())

    def outcomes(
        self, launch: Launch, frozen: Mapping[Point, FrozenWork]
    ) -> Generator[Outcome, None, None]:
        with closing(measure(launch, self._rig(launch), frozen)) as found:
            for outcome in found:
                # A simulated result beside the model that made it would say nothing.
                yield _beside_model(outcome) if self.name == "live" else outcome

    def saying(self, say: Say) -> "LiveSource":
        """Return the source with somebody who hears of its launches."""
        rigs = {engine: replace(rig, say=say) for engine, rig in self.rigs.items()}
        return replace(self, rigs=rigs)

    def _rig(self, launch: Launch) -> Rig:
        engine = launch.largest.engine
        if engine not in self.rigs:
            raise ConfigurationError(
                f"{launch.largest.id}: engine={engine!r} cannot be launched yet; "
                f"engines that can: {', '.join(self.rigs)}."
            )
        return self.rigs[engine]


def _beside_model(outcome: Outcome) -> Outcome:
    """Note on a result that it lies far from what the latent model expects."""
    if not isinstance(outcome, Result):
        return outcome
    seen = far_from_model(outcome)
    if not seen:
        return outcome
    return outcome.but(notes=(*outcome.notes, reason(IMPLAUSIBLE, seen)))
