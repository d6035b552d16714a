"""Secrets planted wherever one can stand reach no output, no log and no stored file."""

import sys
from pathlib import Path

import pytest

from tests.fakes.vllm_program import make_stack

LIVE = """
    from dataclasses import replace
    from pytest_joules.engines.vllm import VllmEngine
    from pytest_joules.testing import FakeMachine, source_of

    def pytest_joules_source(options):
        source = source_of(FakeMachine(), window_s=options.window)
        rig = replace(source.rigs["vllm"], engine=VllmEngine())
        return replace(source, rigs={**source.rigs, "vllm": rig})
"""
TELLING = """
    import os

    def test_it(energy_bench):
        result = energy_bench(model="org/model", batch_size=8)
        assert result.energy_per_token_j < 0, "as the test below tells"
"""
PLANTED = {
    "HF_TOKEN": "hf_Planted1xyz",
    "OPENAI_API_KEY": "sk-Planted2xyz",
    "AWS_SECRET_ACCESS_KEY": "Planted3/xyz+w==",
    "DB_PASSWORD": "Planted4\"quoted'and\\back",
    "SSH_KEY": "-----BEGIN-----\nPlanted5\nxyzxyz\n",
    "MY_CREDENTIALS": "Planted6\N{LATIN SMALL LETTER E WITH ACUTE}xyz",
    "HTTPS_PROXY": "http://me:Planted7xyz@127.0.0.1:9",
}
OF_THE_STACK = {"STACK_TOKEN": "Planted8xyz", "STACK_API_KEY": "Planted9xyz"}
OUTPUTS = (
    "--junitxml=junit.xml",
    "--joules-report=report.html",
    "--joules-comment=comment.md",
    *("--joules-export=all.json,all.csv,openmetrics:all.txt",),
)


@pytest.fixture
def planted(joules, monkeypatch, tmp_path):
    """A project in whose environment and stack secrets stand; its fault comes later."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(joules.path / "summary.md"))
    joules.tests(TELLING)

    def write(fault):
        stack = make_stack(tmp_path / "env", fault)
        values = "\n".join(f'{k} = "{v}"' for k, v in {**stack.env, **OF_THE_STACK}.items())
        joules.pyproject(
            f'[tool.pytest-joules.stacks.default]\npython = "{stack.python}"\n'
            f"[tool.pytest-joules.stacks.default.env]\n{values}\n"
        )
        return joules

    return write


def leaks(folder: Path, *outputs: str) -> list[str]:
    """Find what was planted in any file but the one where the user wrote it, or in outputs."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.name != "pyproject.toml"
    ]
    texts = {str(path): path.read_bytes().decode(errors="replace") for path in files}
    texts.update({f"output {index}": text for index, text in enumerate(outputs)})
    return [
        f"{name}: Planted{number}"
        for name, text in texts.items()
        for number in range(1, 10)
        if f"Planted{number}" in text
    ]


@pytest.mark.parametrize("fault", ["tells-and-dies", "tells-when-asked"])
def test_an_engine_that_tells_its_environment_spreads_no_secret(planted, fault):
    """In its log, which the error quotes, or in an answer, which the error quotes."""
    project = planted(fault)
    project.machine(extra=LIVE)

    run = project.pytester.runpytest_subprocess("--gpu=h200", *OUTPUTS)

    run.assert_outcomes(failed=1)
    assert "***" in run.stdout.str()
    assert (project.path / "junit.xml").exists()
    assert (project.path / "all.json").exists()
    if fault == "tells-and-dies":
        (log,) = project.path.glob(".joules/launches/*/vllm.log")
        assert "STACK_TOKEN" in log.read_text()
    assert leaks(project.path, run.stdout.str(), run.stderr.str()) == []


def test_what_a_whole_run_writes_holds_no_secret(planted):
    """A run that measures on the fake machine, is stored, shown, exported and planned."""
    project = planted("")
    runs = [
        project.pytester.runpytest_subprocess("--gpu=h200", *arguments)
        for arguments in (OUTPUTS, ("--joules-record",), ("--joules-plan", "-v"))
    ]
    runs += [
        project.pytester.run(sys.executable, "-m", "pytest_joules", *command)
        for command in (["show", "latest"], ["export", "latest", "again.json"], ["doctor"])
    ]

    assert (project.path / "report.html").exists()
    assert (project.path / "summary.md").exists()
    assert list(project.path.glob(".joules/sessions/*/results.jsonl"))
    texts = [text for run in runs for text in (run.stdout.str(), run.stderr.str())]
    assert leaks(project.path, *texts) == []


UNDER_HARMLESS_NAMES = """
    import os

    def test_it(energy_bench):
        energy_bench(model="org/model", batch_size=8, engine_args={arguments})
"""


@pytest.mark.parametrize("arguments", ["['--x=' + os.environ['HF_TOKEN']]", "[]"])
def test_a_secret_as_an_argument_of_another_name_is_refused(joules, monkeypatch, arguments):
    """Of the point, or of the stack whose variable it is; else points and processes tell it."""
    monkeypatch.setenv("HF_TOKEN", PLANTED["HF_TOKEN"])
    joules.machine()
    joules.tests(UNDER_HARMLESS_NAMES.format(arguments=arguments))
    is_of_stack = arguments == "[]"
    joules.pyproject(
        "[tool.pytest-joules.stacks.default]\n"
        f"args = {['--x=Planted8xyz'] if is_of_stack else []}\n"
        'env = {STACK_TOKEN = "Planted8xyz"}\n'
    )

    run = joules.run(*OUTPUTS)

    assert run.ret != 0
    name = "STACK_TOKEN" if is_of_stack else "HF_TOKEN"
    run.stdout.fnmatch_lines([f"*the value of {name} is refused: a command line is public*"])
    assert "launches made: none" in run.stdout.str()
    assert leaks(joules.path, run.stdout.str()) == []


def test_the_error_of_another_library_takes_no_secret_to_others(joules, monkeypatch):
    """pytest shows it as it is, where the test's own code raised it; outputs are for others."""
    monkeypatch.setenv("HF_TOKEN", PLANTED["HF_TOKEN"])
    joules.machine()
    joules.tests(
        """
        import os
        import pytest

        @pytest.mark.joules
        def test_it(energy_bench):
            energy_bench(model="org/model", batch_size=8)
            raise OSError(f"401 for {os.environ['HF_TOKEN']}")
        """
    )

    joules.run("--joules-report=report.html", "--joules-comment=comment.md")

    assert "401 for ***" in (joules.path / "report.html").read_text()
    assert (joules.path / "comment.md").exists()
    assert leaks(joules.path) == []


def test_a_leak_would_be_found(tmp_path):
    (tmp_path / "x.json").write_text("... Planted3 ...")

    assert leaks(tmp_path, "Planted9") == [
        f"{tmp_path / 'x.json'}: Planted3",
        "output 0: Planted9",
    ]


def test_stored_sessions_are_for_their_user_alone(planted):
    project = planted("")
    project.run()

    (session,) = project.path.glob(".joules/sessions/*")
    assert session.stat().st_mode & 0o077 == 0
