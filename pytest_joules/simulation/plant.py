"""Causes that can be planted in a simulated stack, to see a red test and its explanation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.latent import LanguageMachine, Machine

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What differs in a simulated stack: each a factor, 1 for unchanged."""

    kv_memory: float = 1.0
    cpu_feed: float = 1.0
    """Of the host's speed: preparing inputs, and its part of every step."""

    clocks: float = 1.0
    power_cap: float = 1.0
    output_length: float = 1.0
    precision_overhead: float = 1.0
    static_power: float = 1.0
    client: float = 1.0
    """Of the requests that the client keeps in flight."""

    gpus: int = 0
    """GPUs added."""

    told: str = ""
    """All of it as ``--joules-plant`` has it, for a note on results."""

    def apply(self, machine: Machine) -> Machine:
        """Return the machine with these causes changed."""
        made: Machine = machine.but(
            kv_memory_factor=self.kv_memory,
            input_rate_factor=self.cpu_feed,
            clock_factor=self.clocks,
            power_limit_factor=self.power_cap,
            precision_overhead_factor=self.precision_overhead,
            static_power_factor=self.static_power,
        )
        return _with_slower_host(made, self.cpu_feed)


def _with_slower_host(machine: Machine, speed: float) -> Machine:
    """Let the GPU wait for what a slower host needs longer in each step of the engine.

    What it needs anyway is in the fitted waiting and in the engine's overhead of a step.
    """
    if not isinstance(machine, LanguageMachine) or speed == 1:
        return machine
    p, task = machine.parameters, machine.point.task
    slower = 1 / speed
    waited_s = p.host_step_s.get(task, 0.0) * slower + p.step_overhead_s * (slower - 1)
    changed = replace(
        p,
        host_step_s={**p.host_step_s, task: max(0.0, waited_s)},
        host_sequence_s=p.host_sequence_s * slower,
    )
    made: Machine = machine.but(parameters=changed)
    return made


MOST = 10.0
"""Largest relative change that is planted; what is larger is a slip."""


def planted(wanted: Mapping[str, float]) -> Planted:
    """Read ``--joules-plant``: relative changes by the names of ``Planted``, dashes for bars.

    >>> planted({"kv-memory": -0.3}).kv_memory
    0.7

    Raises:
        ConfigurationError: A name is unknown, or the change leaves nothing.
    """
    values: dict[str, float | int] = {}
    for name, change in wanted.items():
        if name not in NAMES:
            raise ConfigurationError(
                f"--joules-plant={name}: no such cause; known are {', '.join(NAMES)}."
            )
        if name != "gpus" and not -1 < change <= MOST:
            raise ConfigurationError(
                f"--joules-plant={name}:{100 * change:+g}%: give a change above -100 % and of "
                f"at most {MOST:+.0%}."
            )
        values[name.replace("-", "_")] = NAMES[name](change)
    return Planted(told=told(wanted), **values)  # type: ignore[arg-type]  # each converter gives its field's type


def told(wanted: Mapping[str, float]) -> str:
    """Write what is planted as ``--joules-plant`` takes it.

    >>> told({"kv-memory": -0.3, "gpus": 1})
    'kv-memory:-30%,gpus:+1'
    """
    return ",".join(
        f"{name}:{change:+g}" if name == "gpus" else f"{name}:{100 * change:+g}%"
        for name, change in wanted.items()
    )


def _factor(change: float) -> float:
    return 1 + change


def _number(change: float) -> int:
    if change not in range(1, 8):
        raise ConfigurationError(f"--joules-plant=gpus:{change:g}: give how many, such as +1.")
    return int(change)


NAMES: Mapping[str, Callable[[float], float]] = {
    "clocks": _factor,
    "client": _factor,
    "cpu-feed": _factor,
    "gpus": _number,
    "kv-memory": _factor,
    "output-length": _factor,
    "power-cap": _factor,
    "precision-overhead": _factor,
    "static-power": _factor,
}
"""What can be planted; GPUs are counted (``gpus:+1``), the rest is relative (``:-30%``)."""
