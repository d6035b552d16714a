"""Find the parameters under which the formulas come closest to measured rows.

First seconds, from throughput and latency; then joules, from energy and power, with the
seconds held. What all GPUs share as shares of their data sheets is found first and is then
what is expected of each GPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from pytest_joules import catalog
from pytest_joules.latent import rendering, step
from pytest_joules.latent.fit import priors
from pytest_joules.latent.fit.priors import Priors
from pytest_joules.latent.fit.rows import Column, Rows
from pytest_joules.latent.parameters import Parameters, with_values
from pytest_joules.latent.rendering import Rendering
from pytest_joules.latent.serving import Serving

Values = Mapping[str, float]

_PRIOR_WEIGHT = 0.3
_OUTLIER = 0.1  # errors beyond about 10 % count by their size, no longer by their square
_LATENCY_WEIGHT = 0.6
_POWER_WEIGHT = 0.7
_SHARED = 0.5  # how much nearer a GPU is to what all share than that is to the guesses
_EVALUATIONS = 60
_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Steady:
    """Some rows' steady state: seconds of one step, on average, and what it makes."""

    seconds: Mapping[str, Column]
    batch: Column
    latency_s: Column
    asked: Mapping[str, Column]
    """Context and prefill of the mean step; empty for diffusion."""

    @property
    def duration_s(self) -> Column:
        """Of one step."""
        return sum(self.seconds.values())


def steady(rows: Rows, p: Parameters, batch: Column | None = None) -> Steady:
    """Evaluate the seconds of all rows.

    Args:
        rows: The rows.
        p: The parameters, of one GPU or of each row's.
        batch: Sequences asked for; those of the rows unless memory holds fewer.
    """
    asked_batch = rows.batch if batch is None else batch
    if isinstance(rows.asked, Rendering):
        seconds = rendering.batch_s(rows.asked, p, asked_batch)
        latency_s = sum(seconds.values())
        return Steady(seconds=seconds, batch=asked_batch, latency_s=latency_s, asked={})
    s = rows.asked
    prompts = step.prompt_tokens(s, p)
    context = prompts + s.output_tokens / 2
    running = step.running_batch(s, p, asked_batch, context=context)
    asked = {"context": context, "prefill": running * prompts / s.output_tokens}
    decode = step.step_s(s, p, running, context=context, prefill=0.0 * running)
    return Steady(
        seconds=step.step_s(s, p, running, **asked),
        batch=running,
        latency_s=sum(decode.values()),
        asked=asked,
    )


def power_w(rows: Rows, p: Parameters, state: Steady) -> Column:
    """Evaluate the power of one GPU of all rows."""
    if isinstance(rows.asked, Rendering):
        joules = rendering.batch_j(rows.asked, p, state.seconds, batch=state.batch)
    else:
        joules = step.step_j(rows.asked, p, state.seconds, batch=state.batch, **state.asked)
    return step.capped_w(sum(joules.values()) / state.duration_s, p.gpu.tdp_w)


def energy_j(rows: Rows, state: Steady, power: Column) -> Column:
    """Return the energy per work unit of all rows."""
    return power * state.duration_s * rows.asked.num_gpus / state.batch


def fitted(rows: Rows) -> dict[str, dict[str, float]]:
    """Return the values of each GPU that the rows are of, by flat names."""
    seconds, joules = _priors(rows.asked)
    shared = _fit(rows, rows.sheets, seconds=seconds, joules=joules)
    values = {}
    for gpu in sorted(set(rows.gpu)):
        values[gpu] = _fit(
            rows.where(rows.gpu == gpu),
            catalog.gpus()[gpu],
            seconds=_around(seconds, shared),
            joules=_around(joules, shared),
        )
    return values


def fitted_near(rows: Rows, gpu: str, near: Values) -> dict[str, float]:
    """Return one GPU's values from a few rows of it, expected to be those of another GPU.

    Args:
        rows: Of this GPU only.
        gpu: Slug.
        near: What is expected, by flat names: a related GPU's values.
    """
    seconds, joules = _priors(rows.asked)
    return _fit(
        rows,
        catalog.gpus()[gpu],
        seconds=_around(seconds, near),
        joules=_around(joules, near),
    )


def _priors(asked: Serving | Rendering) -> tuple[Priors, Priors]:
    if isinstance(asked, Rendering):
        return priors.RENDERING_S, priors.RENDERING_J
    return priors.SERVING_S, priors.SERVING_J


def _around(guesses: Priors, shared: Values) -> Priors:
    return {
        name: guess
        if name.partition(".")[0] in priors.OF_THE_MACHINE
        else (shared[name], guess[1] * _SHARED)
        for name, guess in guesses.items()
    }


def _fit(rows: Rows, sheet: Any, *, seconds: Priors, joules: Priors) -> dict[str, float]:
    def time_errors(values: Values) -> Column:
        state = steady(rows, parameters(sheet, values))
        throughput = state.batch / state.duration_s
        return np.concatenate(
            [
                np.log(throughput / rows.throughput),
                _LATENCY_WEIGHT * np.log(state.latency_s / rows.latency_s),
            ]
        )

    times = _solved(time_errors, seconds)
    state = steady(rows, parameters(sheet, times))

    def energy_errors(values: Values) -> Column:
        power = power_w(rows, parameters(sheet, {**times, **values}), state)
        return np.concatenate(
            [
                np.log(energy_j(rows, state, power) / rows.energy_j),
                _POWER_WEIGHT * np.log(power / rows.power_w),
            ]
        )

    return {**times, **_solved(energy_errors, joules)}


def parameters(sheet: Any, values: Values) -> Parameters:
    """Build parameters; those that ``values`` lacks stand at their expectation."""
    return with_values(sheet, {**_GUESSES, **values})


_GUESSES: Values = {
    name: guess
    for each in (
        priors.SERVING_S,
        priors.SERVING_J,
        priors.RENDERING_S,
        priors.RENDERING_J,
    )
    for name, (guess, _) in each.items()
}


def _solved(errors: Callable[[Values], Column], guesses: Priors) -> dict[str, float]:
    """Minimise errors and distance from the guesses, in logarithms, from the guesses on."""
    names = list(guesses)
    start = np.log([guess for guess, _ in guesses.values()])
    deviation = np.array([each for _, each in guesses.values()])
    highest = np.log([priors.largest(name) for name in names])

    def all_errors(x: Column) -> Column:
        values = dict(zip(names, np.exp(x), strict=True))
        return np.concatenate([errors(values), _PRIOR_WEIGHT * (x - start) / deviation])

    found = least_squares(
        all_errors,
        np.minimum(start, highest - 1e-6),
        bounds=(-np.inf, highest),
        loss="soft_l1",
        f_scale=_OUTLIER,
        max_nfev=_EVALUATIONS,
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
        gtol=_TOLERANCE,
    )
    return {name: float(value) for name, value in zip(names, np.exp(found.x), strict=True)}
