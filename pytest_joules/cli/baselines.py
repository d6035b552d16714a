"""``joules baseline``: list, show, accept, prune."""

from pathlib import Path
from typing import Annotated

import typer

from pytest_joules.cli.results import STORED, Stack
from pytest_joules.cli.telling import AsJson, tell
from pytest_joules.commands.answer import Answer

app = typer.Typer(
    rich_markup_mode="markdown",
    help="Look at recorded baselines, and change them for a stated reason.",
    no_args_is_help=True,
)
Root = Annotated[Path, typer.Option("--baselines", help="Folder of the baselines.")]


@app.command("list")
def list_baselines(*, root: Root = Path("baselines"), as_json: AsJson = False) -> None:
    """List recorded points, their energy and how many runs they rest on.

    Example: joules baseline list
    """
    from pytest_joules.commands import baselines  # noqa: PLC0415  loads the gate

    tell(lambda: baselines.listed(root), as_json=as_json)


@app.command()
def show(
    point: Annotated[str, typer.Argument(help="Id of a point.")],
    *,
    root: Root = Path("baselines"),
    as_json: AsJson = False,
) -> None:
    """Draw the runs of one point, and show its moves and calibration.

    Example: joules baseline show qwen3-8b-text-conversation-bf16-1gpu-b64
    """
    from pytest_joules.commands import baselines  # noqa: PLC0415  loads the gate

    tell(lambda: baselines.shown(point, root), as_json=as_json)


@app.command()
def accept(
    what: Annotated[
        str, typer.Argument(help="Id of a point, or a baseline file for all of its points.")
    ],
    *,
    reason: Annotated[str, typer.Option(help="Why the new level is right; stored with it.")],
    results: Annotated[str, typer.Option(help=STORED)] = "latest",
    stack: Stack = "",
    root: Root = Path("baselines"),
    as_json: AsJson = False,
) -> None:
    """Move baselines to newly measured runs; nothing else ever moves one up or down.

    Example: joules baseline accept POINT_ID --reason="new default attention backend"
    """
    from pytest_joules.commands import baselines, stored  # noqa: PLC0415  loads the gate

    def job() -> Answer:
        runs = stored.runs_of_stack(stored.every_result_at(results), stack)
        return baselines.accept(what, runs, root=root, reason=reason)

    tell(job, as_json=as_json)


@app.command()
def prune(  # noqa: PLR0913  options
    what: Annotated[
        str, typer.Argument(help="Id of a point, or a baseline file; empty for all of them.")
    ] = "",
    *,
    reason: Annotated[str, typer.Option(help="Why; stored with what stays.")],
    keep: Annotated[int | None, typer.Option(help="Keep only so many newest runs.")] = None,
    board: Annotated[str, typer.Option(help="Keep only runs of the GPU with this UUID.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only told.")] = False,
    root: Root = Path("baselines"),
    as_json: AsJson = False,
) -> None:
    """Drop old runs, or those of other boards, from baselines.

    Example: joules baseline prune --keep=16 --reason="a year of runs is enough" --yes
    """
    from pytest_joules.commands import pruning  # noqa: PLC0415  loads the gate

    tell(
        lambda: pruning.pruned(
            what, pruning.Rule(newest=keep, board=board), root=root, reason=reason, does=yes
        ),
        as_json=as_json,
    )
