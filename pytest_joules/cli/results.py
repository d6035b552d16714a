"""Commands about stored results: ``show``, ``compare``, ``explain``, ``export``, ``report``."""

from pathlib import Path
from typing import Annotated

import typer

from pytest_joules.cli.telling import AsJson, tell

STORED = (
    "Stored session ('latest' is the last), file of --joules-export=FILE.json, or folder of "
    "results or baselines."
)
Stack = Annotated[str, typer.Option(help="Whose results, where there are several stacks.")]
Stored = Annotated[str, typer.Argument(help=STORED)]


def show(
    results: Stored = "latest",
    *,
    data: Annotated[
        Path | None, typer.Option(help="Published results to set beside them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show measured results, a session's with its verdicts, beside published ones.

    Example: joules show latest --data leaderboard/public/data
    """
    from pytest_joules.commands import sessions, stored  # noqa: PLC0415  loads the gate
    from pytest_joules.commands.answer import Answer  # noqa: PLC0415  as everywhere: on use

    def job() -> Answer:
        found, comparisons = stored.every_result_at(results), stored.comparisons_at(results)
        return sessions.measured(found, data, comparisons)

    tell(job, as_json=as_json)


def compare(  # noqa: PLR0913  options
    old: Annotated[
        str, typer.Argument(help="Results before; alone, a session whose verdicts to replay.")
    ] = "latest",
    new: Annotated[
        str, typer.Argument(help="Results after; like OLD.", show_default=False)
    ] = "",
    *,
    tolerance: Annotated[
        str, typer.Option(help="Rise that nobody would act on; not for a replay.")
    ] = "3%",
    old_stack: Stack = "",
    new_stack: Stack = "",
    common: Annotated[
        bool, typer.Option("--common", help="Leave out points that only one side holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two sets of results point by point, or compute a session's verdicts again.

    OLD and NEW are stored sessions, files of --joules-export=FILE.json, or folders of
    results or baselines; NEW is judged as a check with OLD as its baseline would. One
    argument alone is a session (.joules/sessions) whose verdicts are computed again. Exits
    with 1 after a regression, or where a verdict is not that of the run; with 6 where
    something is undecided or cannot be compared.

    Examples: joules compare baselines/h200 latest; joules compare old.json new.json;
    joules compare latest
    """
    from pytest_joules import record  # noqa: PLC0415  as everywhere: on use
    from pytest_joules.commands import comparing, sessions, stored  # noqa: PLC0415  the gate
    from pytest_joules.options.marker import share  # noqa: PLC0415  loads pytest

    if not new:
        tell(lambda: sessions.replayed(record.find(old, Path())), as_json=as_json)
    tell(
        lambda: comparing.compared(
            stored.results_at(old, stack=old_stack, option="--old-stack"),
            stored.results_at(new, stack=new_stack, option="--new-stack"),
            tolerance=share(tolerance, "--tolerance"),
            common=common,
        ),
        as_json=as_json,
    )


def explain(
    then: Annotated[
        str,
        typer.Argument(help="Baseline file, export or session: PATH[#POINT_ID][@STACK]."),
    ],
    now: Annotated[str, typer.Argument(help="What it is compared with, likewise.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say why energy per work unit differs: ranked causes, their evidence and what to do.

    Example: joules explain baselines/h200/vllm/text-conversation/qwen-qwen3-8b.json latest
    """
    from pytest_joules.commands import explaining  # noqa: PLC0415  loads the diagnosis
    from pytest_joules.commands.answer import Answer  # noqa: PLC0415  as everywhere: on use

    def job() -> Answer:
        sides = explaining.read_side(then), explaining.read_side(now)
        return Answer(
            lines=explaining.explained(*sides), values=explaining.explained_json(*sides)
        )

    tell(job, as_json=as_json)


def export(
    results: Stored,
    target: Annotated[
        str,
        typer.Argument(help="File to write: PATH, whose suffix is the format, or FORMAT:PATH."),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Write stored results for other tools, one row each, a session's with its verdicts.

    Example: joules export latest energy.csv
    """
    from pytest_joules.commands import exporting  # noqa: PLC0415  loads the gate

    tell(lambda: exporting.exported(results, target), as_json=as_json)


def report(
    session: Annotated[
        str, typer.Argument(help="Folder or name of a stored session.")
    ] = "latest",
    *,
    out: Annotated[Path, typer.Option(help="File to write; its folder must exist.")] = Path(
        "report.html"
    ),
    as_json: AsJson = False,
) -> None:
    """Write a stored session (.joules/sessions) as one HTML page, as --joules-report does.

    Example: joules report latest --out report.html
    """
    from pytest_joules.commands import exporting  # noqa: PLC0415  loads the gate

    tell(lambda: exporting.reported(session, out), as_json=as_json)
