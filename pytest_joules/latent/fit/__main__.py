"""Fit, store the parameters with their errors, and print the errors on unseen models."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pytest_joules.latent.fit.errors import (
    QUANTITIES,
    Predicted,
    bands,
    family_of,
    held_out,
    known,
    summary,
)
from pytest_joules.latent.fit.priors import CHATS
from pytest_joules.latent.fit.rows import Rows, rendered, served
from pytest_joules.latent.fit.solve import Values, fitted
from pytest_joules.report.text import table
from pytest_joules.sources.mlenergy import Leaderboard, read_leaderboard
from pytest_joules.units import significant

_DIGITS = 4


def main(
    data: Annotated[Path, typer.Argument(help="The ML.ENERGY Leaderboard's folder.")],
    *,
    store: Annotated[Path | None, typer.Option(help="Write latent.json here.")] = None,
    families: Annotated[bool, typer.Option(help="Also leave out whole families.")] = True,
    by_band: Annotated[bool, typer.Option(help="Also tell errors by batch band.")] = True,
) -> None:
    """Fit the latent model; print the errors on models that the fit had not seen."""
    board = read_leaderboard(data)
    language, diffusion = served(board.results), rendered(board.results)
    unseen = [held_out(rows, rows.model) for rows in (language, diffusion)]
    _tell("leave one model out", unseen)
    if by_band:
        for predicted in unseen:
            _print(summary(predicted, bands(predicted.rows)))
    if families:
        _tell(
            "leave one family out", [held_out(r, _families(r)) for r in (language, diffusion)]
        )
    if store:
        values = [fitted(rows) for rows in (language, diffusion)]
        store.write_text(document(board, values, unseen), encoding="utf-8")


def _tell(title: str, unseen: list[Predicted]) -> None:
    typer.echo(f"\n{title}: median / 90th percentile of absolute errors, in percent")
    text, diffusion = unseen
    kinds = np.where(np.isin(text.rows.task, CHATS), "all chat with images", "all text")
    _print(
        [
            *summary(text, kinds),
            *summary(text, np.full(len(text.rows), "all language")),
            *summary(diffusion, np.full(len(diffusion.rows), "all diffusion")),
        ]
    )
    _print([row for each in unseen for row in summary(each, _named(each.rows))])


def _print(cells: list[tuple[str, ...]]) -> None:
    typer.echo("\n".join(["", *table([("", "rows", *QUANTITIES), *cells])]))


def _named(rows: Rows) -> Any:
    return np.array([f"{task} {gpu}" for task, gpu in zip(rows.task, rows.gpu, strict=True)])


def _families(rows: Rows) -> Any:
    return np.array([family_of(result) for result in rows.results])


def document(
    board: Leaderboard, values: list[dict[str, dict[str, float]]], unseen: list[Predicted]
) -> str:
    """Return the text of ``latent.json``: parameters, their errors, and where from."""
    gpus = sorted({result.gpu for result in board.results})
    stored = {
        "provenance": {
            "data": "ML.ENERGY Benchmark v3, github.com/ml-energy/leaderboard, Apache-2.0",
            "updated": board.updated,
            "num_rows": len(board.results),
            "rows_sha256": digest(board),
            "engines": "vLLM 0.11.1, xDiT 0.4.5 (arXiv:2601.22076, section 2)",
        },
        "gpus": {
            gpu: {
                "parameters": _rounded({**values[0][gpu], **values[1][gpu]}),
                "errors": _errors(unseen, gpu),
            }
            for gpu in gpus
        },
    }
    return json.dumps(stored, indent=1, sort_keys=True) + "\n"


def _rounded(values: Values) -> dict[str, float]:
    return {name: significant(value, _DIGITS) for name, value in values.items()}


def _errors(unseen: list[Predicted], gpu: str) -> Mapping[str, Any]:
    errors: dict[str, Any] = {}
    for predicted in unseen:
        of_gpu = predicted.rows.gpu == gpu
        for task in sorted(set(predicted.rows.task[of_gpu])):
            chosen = of_gpu & (predicted.rows.task == task)
            errors[task] = {
                quantity: _rounded(asdict(known(predicted, chosen, quantity)))
                for quantity in QUANTITIES
            }
    return errors


def digest(board: Leaderboard) -> str:
    """Identify the rows."""
    told = [[r.point.hash, r.gpu, r.energy_per_work_unit_j] for r in board.results]
    return sha256(json.dumps(told).encode()).hexdigest()


if __name__ == "__main__":
    typer.run(main)
