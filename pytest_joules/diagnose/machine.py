"""What the GPUs themselves did otherwise: waited, clocked, drew power, had more work."""

import math
from collections.abc import Sequence

from pytest_joules.counter.circumstances import BRAKES
from pytest_joules.diagnose.cause import Cause, Code, Sign
from pytest_joules.diagnose.change import Change, logarithmic_mean

_DYNAMIC_POWER_EXPONENT = 3.0
"""Dynamic power goes with clock x voltage squared, and voltage at most with the clock."""

_CAPPED_MORE = 0.1
"""Share of readings by which the power cap must hold more often to be the reason."""


_BUSY_RESOLUTION = 0.01
"""NVML tells the busy share in whole percents: less of a step cannot be told from waiting."""


def static_power(change: Change) -> list[Cause]:
    """Take the change of power drawn while idle, of each GPU: it is there all the time."""
    ln_idle = change.ln("idle_power_w")
    if ln_idle is None:
        return []
    then, now = change.then, change.now
    ln_each = ln_idle - (change.ln("num_gpus") or 0.0)
    idle_w = logarithmic_mean(then.idle_power_w or 0.0, now.idle_power_w or 0.0)
    weight = idle_w / logarithmic_mean(then.power_w, now.power_w)
    signs = change.sign("idle power", "idle_power_w", "W")
    taken = change.take("power", min(weight, 1.0) * ln_each)
    return [Cause(code="static-power", contribution=taken, signs=signs)]


def waiting(change: Change) -> list[Cause]:
    """Take the change of time in which no kernel ran, and the power that falls with it.

    Waiting that changed as the batch did, or less, follows from the batch. Energy per step
    lies between constant and drawing full power while waiting.
    """
    if not change.has("busy_share"):
        return []
    then, now = change.then, change.now
    waited_s = [(1 - (side.busy_share or 0.0)) * side.step_s for side in (then, now)]
    step = _waited_more(waited_s, change.ln("batch") or 0.0)
    step = change.take("step", step / logarithmic_mean(then.step_s, now.step_s))
    power = change.claim("power", 0.0, -step)
    signs = (
        *change.sign("GPU busy", "busy_share", "%"),
        Sign(quantity="waited per step", then=waited_s[0], now=waited_s[1], unit="s"),
    )
    return [Cause(code="gpu-waits", contribution=step + power, signs=signs)]


def _waited_more(waited_s: Sequence[float], ln_batch: float) -> float:
    """Return by how many seconds a step waits longer than the batch explains."""
    then_s, now_s = waited_s
    if min(waited_s) <= 0:
        return now_s - then_s
    ln_waited = math.log(now_s / then_s)
    follows = min(max(ln_waited, min(0.0, ln_batch)), max(0.0, ln_batch))
    return logarithmic_mean(then_s, now_s) * (ln_waited - follows)


def clocks(change: Change) -> list[Cause]:
    """Claim what other clocks explain: steps as much longer, power down by up to its cube."""
    ln_clock = change.ln("sm_clock_hz")
    if not ln_clock:
        return []
    step = change.claim("step", 0.0, -ln_clock)
    power = change.claim("power", 0.0, _DYNAMIC_POWER_EXPONENT * ln_clock)
    code = _clock_code(change)
    signs = change.sign("SM clock", "sm_clock_hz", "Hz")
    if code == "power-cap":
        signs += change.sign("power limit", "power_limit_w", "W")
        signs += change.sign("readings at the power limit", "capped_share", "%")
    return [Cause(code=code, contribution=step + power, signs=signs)]


def _clock_code(change: Change) -> Code:
    then, now = change.then, change.now
    brakes = [sum(bit for bit in BRAKES if (s.clock_reasons or 0) & bit) for s in (then, now)]
    if change.has("clock_reasons") and brakes[0] != brakes[1]:
        return "thermal"
    more = abs((now.capped_share or 0.0) - (then.capped_share or 0.0))
    is_capped = change.has("capped_share") and more >= _CAPPED_MORE
    return "power-cap" if is_capped or change.ln("power_limit_w") else "clocks"


def parallelism(change: Change) -> list[Cause]:
    """Claim what another number of GPUs explains: their power, and at best as short steps."""
    ln_gpus = change.ln("num_gpus")
    if not ln_gpus:
        return []
    power = change.claim("power", 0.0, ln_gpus)
    step = change.claim("step", 0.0, -ln_gpus)
    signs = (
        *change.sign("GPUs", "num_gpus"),
        *change.sign("power of all GPUs", "power_w", "W"),
        *change.sign("step time", "step_s", "s"),
    )
    return [Cause(code="parallelism", contribution=power + step, signs=signs)]


def contexts(change: Change) -> list[Cause]:
    """Claim what longer contexts explain: steps that read at most as much more."""
    ln_context = change.ln("context_tokens")
    if not ln_context:
        return []
    step = change.claim("step", 0.0, ln_context)
    taken = step + change.claim("power", -step, ln_context - step)
    then, now = change.then, change.now
    answers = ((now.output_tokens or 0.0) - (then.output_tokens or 0.0)) / 2
    prompts = (now.prompt_tokens or 0.0) - (then.prompt_tokens or 0.0)
    parts: tuple[tuple[Code, float, tuple[Sign, ...]], ...] = (
        ("output-length", answers, change.sign("tokens in an answer", "output_tokens")),
        ("prompt-length", prompts, change.sign("tokens in a prompt", "prompt_tokens")),
    )
    return [
        Cause(code=code, contribution=taken * part / (answers + prompts), signs=signs)
        for code, part, signs in parts
        if part
    ]


def configuration(change: Change) -> list[Cause]:
    """Give what is left to what was asked for otherwise, where anything was."""
    then, now = change.then.declared, change.now.declared
    names = [name for name in now if then[name] != now[name]]
    if change.ln("num_gpus"):
        names = [n for n in names if n not in ("tensor_parallel", "ulysses_degree")]
    if not names:
        return []
    rest = change.take("step", change.pools["step"]) + change.take(
        "power", change.pools["power"]
    )
    signs = tuple(Sign(quantity=name, then=then[name], now=now[name]) for name in names)
    timed = change.sign("step time", "step_s", "s")
    powered = change.sign("power", "power_w", "W")
    return [Cause(code="configuration", contribution=rest, signs=(*signs, *timed, *powered))]


def gpu_work(change: Change) -> list[Cause]:
    """Give a step time that nothing else explains to the GPU's own work, if it was busy.

    All else that makes a step longer must have been measured, or it may be that just as well.
    """
    others = ("busy_share", "batch", "prompt_tokens", "output_tokens", "sm_clock_hz")
    if not change.has(*others) or abs(change.pools["step"]) < _BUSY_RESOLUTION:
        return []
    step = change.take("step", change.pools["step"])
    power = change.claim("power", -abs(step), abs(step))
    signs = (
        *change.sign("step time", "step_s", "s"),
        *change.sign("GPU busy", "busy_share", "%"),
    )
    return [Cause(code="gpu-work", contribution=step + power, signs=signs)]
