"""``joules export`` and ``joules report``: stored results as files for others."""

from pathlib import Path

from pytest_joules import record
from pytest_joules.commands.answer import Answer
from pytest_joules.commands.stored import every_result_at
from pytest_joules.digest import Digest, rows_of
from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.report import export, html
from pytest_joules.units import counted

__tracebackhide__ = is_expected


def exported(what: str, target: str) -> Answer:
    """Write the results that a name stands for, a session's with its verdicts.

    Args:
        what: As ``stored.every_result_at``.
        target: ``PATH``, whose suffix says the format, or ``FORMAT:PATH``.

    Raises:
        ConfigurationError: There is nothing of that name, the target's format is unknown, or
            it cannot be written.
        FormatError: It cannot be read.
    """
    chosen = export.Target.parse(target, "TARGET")
    digest = _digest(what)
    try:
        export.export(chosen, digest)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{target}: cannot be written: {error}.") from None
    number = sum(len(row.results) for row in digest.rows)
    return Answer(
        lines=[f"{chosen.path}: {counted(number, 'result')}"],
        values={"path": str(chosen.path), "num_results": number},
    )


def _digest(what: str) -> Digest:
    if Path(what).exists() and not record.is_session(Path(what)):
        return Digest(rows=rows_of(every_result_at(what), {}))
    return record.digest_of(record.find(what, Path()))


def reported(session: str, out: Path) -> Answer:
    """Write a stored session as one HTML page.

    Raises:
        ConfigurationError: There is no such session, or the page cannot be written.
        FormatError: The session cannot be read.
    """
    export.require_place(out, f"--out={out}")
    html.write(out, record.digest_of(record.find(session, Path())))
    return Answer(lines=[f"{out}: open it in any browser"], values={"path": str(out)})
