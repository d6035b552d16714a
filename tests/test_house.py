"""Our own rules, as tests: sizes, no TODO, no broad except, nothing heavy at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import pytest_joules

pytestmark = pytest.mark.no_cover

PACKAGE = Path(__file__).parents[1] / "pytest_joules"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 45
HEAVY = ("numpy", "pandas", "scipy", "torch", "zeus", "pynvml", "httptools", "rich", "typer")


def _id(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_sizes(path):
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def _broad(source):
    """Return the lines of handlers that catch all; a name of a tuple stands for its parts."""
    tree = ast.parse(source)
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and ast.unparse(node.body[-1]) != "raise":
            caught = ast.unparse(node.type) if node.type else "BaseException"
            parts = ast.walk(named.get(caught, ast.parse(caught)))
            names = {part.id for part in parts if isinstance(part, ast.Name)}
            found += [node.lineno] if names & {"Exception", "BaseException"} else []
    return found


@pytest.mark.parametrize(
    ("caught", "is_broad"),
    [
        ("except OSError: pass", False),
        ("except: pass", True),
        ("except Exception: pass", True),
        ("except (OSError, Exception): pass", True),
        ("except ALL: pass", True),
        ("except BaseException: raise", False),
        ("except BaseException as e: raise KeyError from e", True),
    ],
)
def test_a_broad_handler_is_seen(caught, is_broad):
    assert bool(_broad(f"ALL = (OSError, Exception)\ntry: go()\n{caught}")) is is_broad


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_exceptions_are_named(path):
    """The rehearsal alone may catch all that a test's body raises: its real run raises it."""
    assert bool(_broad(path.read_text())) is (_id(path) == "run/rehearsal.py")


def test_no_property_is_judged_by_the_time_it_takes():
    """A starved machine drew examples for more than a second, and a test failed once."""
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check


def test_the_plugin_imports_nothing_heavy():
    code = (
        "import sys, pytest_joules.plugin\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'pytest_joules'])\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    ours, heavy = run.stdout.splitlines()
    assert ast.literal_eval(heavy) == []
    assert set(ast.literal_eval(ours)) == {
        "pytest_joules",
        "pytest_joules.plugin",
        "pytest_joules.options",
        "pytest_joules.options.values",
        "pytest_joules.options.declared",
        "pytest_joules.version",
    }


def test_collecting_energy_tests_imports_no_engine_and_no_meter(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "from pytest_joules import Point\n"
        "P = Point(model='a/b', batch_size=4)\n"
        "def test_it(energy_bench): energy_bench.check(P)\n"
        "def test_modules():\n"
        "    assert not {'zeus', 'pynvml', 'torch', 'vllm', 'numpy'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "modules"]
    run = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert run.returncode == 0, run.stdout


def test_the_public_names_are_listed_in_order_and_exist():
    assert pytest_joules.__all__ == sorted(pytest_joules.__all__)
    for name in pytest_joules.__all__:
        assert getattr(pytest_joules, name) is not None
