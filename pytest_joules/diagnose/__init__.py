"""Why energy per work unit changed between two results: the paper's framework as arithmetic.

Exact first (``change``): power, step time and batch. Then the latent factors of the paper's
Figure 10 take their parts, those whose size was measured before those that physics only
bounds: static power, waiting, the batch and what keeps requests out of it, clocks and power
cap, contexts, number of GPUs, what was asked for otherwise, work of the GPU. What nobody
takes is unknown. Contributions add up to the change, and swapping the sides flips them.

Source:
    *Where Do the Joules Go?* (arXiv:2601.22076), section 5.
"""

from collections.abc import Sequence

from pytest_joules.diagnose import machine
from pytest_joules.diagnose.batch import batch_causes
from pytest_joules.diagnose.cause import Cause, Diagnosis, Sign
from pytest_joules.diagnose.change import BATCH, Change
from pytest_joules.diagnose.facts import facts
from pytest_joules.result import Result

__all__ = ["BATCH", "Cause", "Diagnosis", "Sign", "diagnose"]

_ROUNDING = 1e-12
"""Of a logarithm: what is left of sums that cancel is no cause."""

_RULES = (
    machine.static_power,
    machine.waiting,
    batch_causes,
    machine.clocks,
    machine.contexts,
    machine.parallelism,
    machine.configuration,
    machine.gpu_work,
)


def diagnose(then: Sequence[Result], now: Sequence[Result]) -> Diagnosis:
    """Explain the change from one point's launches to another's, or to the same point's.

    Raises:
        ConfigurationError: A side is empty, or of several points; or the sides produce
            different work units.
    """
    change = Change(then=facts(then), now=facts(now))
    change.require_same_unit()
    identity, ln_parts = change.identity(), tuple(change.pools.values())
    causes = [cause for rule in _RULES for cause in rule(change)]
    causes.append(_unknown(change))
    told = [c for c in causes if abs(c.contribution) > _ROUNDING or c.is_of_gpus]
    return Diagnosis(
        point=now[0].point,
        then=then[0].point,
        then_energy_j=change.then.energy_j,
        energy_j=change.now.energy_j,
        identity=identity,
        ln_parts=ln_parts,
        causes=tuple(sorted(told, key=lambda cause: -abs(cause.contribution))),
    )


def _unknown(change: Change) -> Cause:
    return Cause(
        code="unknown",
        contribution=sum(change.pools.values()),
        signs=change.identity(),
    )
