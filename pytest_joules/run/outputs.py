"""What a run leaves behind besides its tests: exports, report, comment, GitHub's summary."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pytest_joules.digest import Digest
from pytest_joules.errors import is_expected
from pytest_joules.options.frozen import Options
from pytest_joules.report import export, github, html
from pytest_joules.storage import write_atomically
from pytest_joules.version import __version__

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the outputs of one run go; known, and known to be possible, before it begins."""

    exports: tuple[export.Target, ...] = ()
    report: Path | None = None
    comment: Path | None = None
    step_summary: Path | None = None
    """GitHub's file of this step, which is appended to."""

    workspace: Path | None = None
    """Where GitHub checked out; annotations are only written there."""

    @classmethod
    def chosen(cls, options: Options, environ: Mapping[str, str]) -> "Outputs":
        """Read where to write; a run that only plans writes nothing.

        Raises:
            ConfigurationError: A place cannot be written.
            MissingDependency: A format needs a package that is not installed.
        """
        targets = tuple(export.Target.parse(text) for text in options.export)
        if options.report is not None:
            export.require_place(options.report, f"--joules-report={options.report}")
            html.require_library()
        if options.comment is not None:
            export.require_place(options.comment, f"--joules-comment={options.comment}")
        if options.plan:
            return cls()
        summary = environ.get("GITHUB_STEP_SUMMARY")
        acts = environ.get("GITHUB_ACTIONS") == "true"
        return cls(
            exports=targets,
            report=options.report,
            comment=options.comment,
            step_summary=Path(summary) if summary else None,
            workspace=Path(environ.get("GITHUB_WORKSPACE", ".")) if acts else None,
        )

    def write(self, digest: Digest) -> list[str]:
        """Write all; return a line for each that could not be written."""
        lines = []
        for name, job in self._jobs(digest):
            try:
                job()
            except (OSError, UnicodeError) as error:  # a name may hold half a character
                lines.append(f"{name}: cannot be written: {error}.")
        return lines

    def annotations(self, digest: Digest, root: Path) -> list[str]:
        """Return what GitHub reads from the log to mark failed tests; empty elsewhere."""
        if self.workspace is None:
            return []
        return list(github.annotations(digest, root=root, workspace=self.workspace))

    def _jobs(self, digest: Digest) -> Iterator[tuple[str, Callable[[], None]]]:
        for target in self.exports:
            name = f"--joules-export={target.path}"
            yield name, lambda target=target: export.export(target, digest)  # type: ignore[misc]
        if (report := self.report) is not None:
            yield f"--joules-report={report}", lambda: html.write(report, digest)
        if (path := self.comment) is not None:
            text = github.comment(digest)
            yield f"--joules-comment={path}", lambda: write_atomically(path, text)
        if (summary := self.step_summary) is not None and (digest.rows or digest.failed):
            yield f"GITHUB_STEP_SUMMARY={summary}", lambda: _append(summary, digest)


def _append(path: Path, digest: Digest) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(github.markdown(digest))


def settings_of(options: Options, source: str) -> Mapping[str, object]:
    """Return what decides verdicts besides the data, for people.

    Raises:
        ConfigurationError: The stack is not declared.
    """
    return {
        "against": options.against,
        "baselines": str(options.baselines),
        "begun_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": options.gpu,
        "plugin": __version__,
        "source": source,
        "stack": options.stack_named(options.stack).name,
        "tolerance": options.tolerance,
        "window_s": options.window,
    }
