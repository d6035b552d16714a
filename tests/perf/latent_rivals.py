"""The latent model beside regressions on the same columns, on models that none had seen.

Run: JOULES_MLENERGY_DATA=... python tests/perf/latent_rivals.py

Gradient boosting and quadratic ridge see what the latent model sees of a row (the catalog's
parameters, GPU, GPUs, batch size, precision, task, steps and size) and predict the logarithm
of energy per work unit; rows of one model are left out together. Seeds are fixed.
"""

import os
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from pytest_joules import catalog
from pytest_joules.latent.fit.errors import held_out
from pytest_joules.latent.fit.rows import rendered, served
from pytest_joules.sources.mlenergy import read_leaderboard

CHATS = ("image-chat", "video-chat")
TASKS = sorted({task for model in catalog.models().values() for task in model.tasks})


def columns(result):
    point, known = result.point, catalog.models()[result.point.model]
    sizes = (point.steps, point.height, point.width, point.num_frames)
    return [
        np.log(known.total_params_b),
        np.log(known.active_params_b),
        np.log(point.batch_size),
        np.log(point.num_gpus),
        np.log(point.data_parallel),
        float(result.gpu == "b200"),
        float(point.precision == "fp8"),
        float(point.precision == "mxfp4"),
        float(known.architecture == "hybrid"),
        *(np.log(size or 1) for size in sizes),
        *(float(point.task == task) for task in TASKS),
    ]


RIVALS = {
    "gradient boosting": HistGradientBoostingRegressor(random_state=0),
    "quadratic ridge": make_pipeline(
        StandardScaler(), PolynomialFeatures(2), StandardScaler(), Ridge(alpha=10.0)
    ),
}


def told(name, errors):
    median, p90 = 100 * np.median(errors), 100 * np.quantile(errors, 0.9)
    print(f"  {name:20s} median {median:5.1f} %   90th percentile {p90:6.1f} %")


def compare(title, rows, latent_errors):
    print(f"{title}, {len(rows)} rows, one model left out at a time: energy")
    features = np.array([columns(result) for result in rows.results])
    logs = np.log(rows.energy_j)
    for name, rival in RIVALS.items():
        found = cross_val_predict(
            rival, features, logs, groups=rows.model, cv=LeaveOneGroupOut()
        )
        told(name, np.abs(np.exp(found - logs) - 1))
    told("latent model", latent_errors)


def main():
    board = read_leaderboard(Path(os.environ["JOULES_MLENERGY_DATA"]))
    language, diffusion = served(board.results), rendered(board.results)
    text = ~np.isin(language.task, CHATS)
    errors = held_out(language, language.model).error("energy")
    compare("text tasks", language.where(text), errors[text])
    compare("all language tasks", language, errors)
    compare("diffusion", diffusion, held_out(diffusion, diffusion.model).error("energy"))


if __name__ == "__main__":
    main()
