"""How wrong the model is on models that it has not seen: leave one out, or one family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pytest_joules import catalog
from pytest_joules.latent.architecture import LanguageArchitecture, architecture_of
from pytest_joules.latent.fit.rows import Column, Rows
from pytest_joules.latent.fit.solve import (
    Values,
    energy_j,
    fitted,
    parameters,
    power_w,
    steady,
)
from pytest_joules.latent.fitted import KnownError
from pytest_joules.latent.machine import machine
from pytest_joules.result import Result

QUANTITIES = ("energy", "latency", "power")
BANDS = ((1, 16), (17, 64), (65, 256), (257, 1 << 20))


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Predicted values of some rows, to be set beside the measured ones."""

    rows: Rows
    energy_j: Column
    latency_s: Column
    power_w: Column

    def ratio(self, quantity: str) -> Column:
        """Return measured over predicted."""
        match quantity:
            case "energy":
                return self.rows.energy_j / self.energy_j
            case "latency":
                return self.rows.latency_s / self.latency_s
            case "power":
                return self.rows.power_w / self.power_w
            case _:
                raise ValueError(f"{quantity!r} is none of {', '.join(QUANTITIES)}")

    def error(self, quantity: str) -> Column:
        """Return the absolute relative errors: predicted over measured, less one."""
        return np.abs(1 / self.ratio(quantity) - 1)


def held_out(
    rows: Rows, groups: Column, fit: Callable[[Rows], Mapping[str, Values]] = fitted
) -> Predicted:
    """Predict each group's rows from a fit to all other rows."""
    values = {name: np.zeros(len(rows)) for name in ("energy_j", "latency_s", "power_w")}
    for group in sorted(set(groups)):
        left_out = groups == group
        found = predictions(rows.where(left_out), fit(rows.where(~left_out)))
        for name, column in values.items():
            column[left_out] = getattr(found, name)
    return Predicted(rows=rows, **values)


def predictions(rows: Rows, values: Mapping[str, Values]) -> Predicted:
    """Predict rows from the values of their GPUs, batches bounded by memory."""
    columns = {name: np.zeros(len(rows)) for name in ("energy_j", "latency_s", "power_w")}
    for gpu in sorted(set(rows.gpu)):
        chosen = rows.gpu == gpu
        part, p = rows.where(chosen), parameters(catalog.gpus()[gpu], values[gpu])
        fits = np.array(
            [
                machine(result.point, gpu, parameters=p).max_batch_size()
                for result in part.results
            ]
        )
        state = steady(part, p, np.minimum(part.batch, np.maximum(1.0, fits)))
        power = power_w(part, p, state)
        columns["energy_j"][chosen] = energy_j(part, state, power)
        columns["latency_s"][chosen] = state.latency_s
        columns["power_w"][chosen] = power
    return Predicted(rows=rows, **columns)


def family_of(result: Result) -> str:
    """Name what models of one size and family share: the shape of their transformer.

    BF16 and FP8 of one model, Llama 3.1 and 3.3, and the text and vision variants of one
    size are one family.
    """
    shape = architecture_of(result.point.model)
    own: tuple[int, ...] = (shape.num_layers, shape.hidden_size)
    if isinstance(shape, LanguageArchitecture):
        own += (shape.intermediate_size, shape.expert_intermediate_size)
    return "-".join(str(each) for each in own)


def known(predicted: Predicted, chosen: Column, quantity: str) -> KnownError:
    """Summarise the errors of some rows."""
    errors = predicted.error(quantity)[chosen]
    ratios = predicted.ratio(quantity)[chosen]
    low, high = np.quantile(ratios, [0.05, 0.95])
    return KnownError(
        num_rows=int(chosen.sum()),
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
        low=float(low),
        high=float(high),
    )


def summary(predicted: Predicted, names: Column) -> list[tuple[str, ...]]:
    """Return rows of median / 90th percentile errors, in percent, by name."""
    cells = []
    for name in dict.fromkeys(names):
        chosen = names == name
        found = [known(predicted, chosen, quantity) for quantity in QUANTITIES]
        told = [f"{100 * each.median:.1f} / {100 * each.p90:.1f}" for each in found]
        cells.append((str(name), str(int(chosen.sum())), *told))
    return cells


def bands(rows: Rows) -> Column:
    """Name each row's task, GPU and batch band."""
    names = []
    for task, gpu, batch in zip(rows.task, rows.gpu, rows.batch, strict=True):
        low, high = next(band for band in BANDS if band[0] <= batch <= band[1])
        told = f"{low}-{high}" if high < BANDS[-1][1] else f"{low}+"
        names.append(f"{task} {gpu} batch {told}")
    return np.array(names)
