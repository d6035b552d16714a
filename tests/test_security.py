"""The promises of SECURITY.md that can be seen without a run."""

import ast
import json
import os
import re
import stat
import sys
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pytest_joules
from pytest_joules import baseline, hiding, storage
from pytest_joules.assess.validity import trust_note
from pytest_joules.baseline.format import parse_entries
from pytest_joules.engines import folders, vllm_command
from pytest_joules.engines.worker.channel import Channel
from pytest_joules.errors import ConfigurationError, FormatError, InvalidPoint, LaunchError
from pytest_joules.options.stacks import stacks_of
from pytest_joules.plan import Launch, Stack, plan
from pytest_joules.point import Point
from pytest_joules.point.engine_arguments import refused
from pytest_joules.process import supervised
from pytest_joules.process.supervisor import _Veil
from pytest_joules.report.text import describe_plan
from tests.fakes.results import make_run

ROOT = Path(__file__).parents[1]
PACKAGE = Path(pytest_joules.__file__).parent
QWEN = Point(model="Qwen/Qwen3-8B")
SECRET = "hf_planted9Secret\"with'quotes"

# --- no shell, no code from data ------------------------------------------------------------

FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
    *("tempfile.mktemp", "yaml.load", "pd.read_pickle", "pandas.read_pickle", "torch.load"),
    *("np.load", "numpy.load", "joblib.load", "ctypes.string_at"),
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "yaml", "pty"}


def unsafe(source: str) -> list[str]:
    """Name what runs a shell, or makes code or objects of data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [each.name for each in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            found += [m for m in modules if m.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            shell = [k for k in node.keywords if k.arg == "shell"]
            found += [called] if called in FORBIDDEN or shell else []
    return found


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from yaml import load", "eval('1')", "import os\nos.system('x')"),
        *("subprocess.run('x', shell=True)", "np.load('x')", "import marshal"),
    ],
)
def test_what_is_unsafe_is_recognised(source):
    assert unsafe(source)


def test_no_module_uses_a_shell_or_makes_objects_of_data():
    found = {str(p): unsafe(p.read_text()) for p in PACKAGE.rglob("*.py")}

    assert len(found) > 100
    assert not {path: each for path, each in found.items() if each}


def test_the_rules_of_bandit_are_on():
    config = storage_toml()["lint"]

    assert "ALL" in config["select"]
    assert not [each for each in config["ignore"] if each in ("S", "S102", "S301", "S307")]
    package = [rules for glob, rules in config["per-file-ignores"].items() if "joules" in glob]
    assert not [rule for rules in package for rule in rules if rule.startswith("S")]


def storage_toml() -> dict[str, Any]:
    import tomllib  # noqa: PLC0415

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]


def test_a_small_series_that_unpacks_to_much_is_refused():
    """8 MB of zeros are 11 kB of base64."""
    run = make_run(1.0, batch_size=8, gpu="h200")
    text = baseline.dump("h200", {run.point: [run]})
    bomb = b64encode(zlib.compress(bytes(8 << 20), 9)).decode()
    harmed = re.sub(r'"series_energy_j": "[^"]*"', f'"series_energy_j": "{bomb}"', text)

    assert harmed != text
    with pytest.raises(FormatError, match=r"x\.json.*runs\[0\].*longer than"):
        parse_entries(storage.parse(harmed, name="x.json"), name="x.json")


# --- arguments that would open what is closed -----------------------------------------------

OPENING = [
    *("--host", "--host=0.0.0.0", "--ho", "--port", "--uds=/tmp/x", "--config=x.yaml"),
    *("--api-key", "--api_key=abc", "--hf-token", "--HF_TOKEN=x", "--trust-remote-code"),
    *("--trust_remote_code", "--trust-remote", "--no-trust-remote-code", "trust_remote_code=1"),
    *('--speculative-config={"trust_remote_code": true}', "--model", "--middleware=x.y"),
    *("--served-model-name=x", "--data-parallel-address=0.0.0.0", "--grpc", "--ssl-keyfile=/x"),
]
# Of vLLM 0.32's --help=all: each looks like a refused one.
HARMLESS = [
    *("--tokenizer", "--tokenizer-mode=slow", "--max-num-batched-tokens=8192", "-tp", "8192"),
    *("--long-prefill-token-threshold=4", "--return-tokens-as-token-ids", "--model-impl=vllm"),
    *("--config-format=hf", "--dbo-decode-token-threshold", "--code-revision=main", "model"),
    *("--model-loader-extra-config", "--hf-overrides", "--tokens-only", "max_batch_tokens=64"),
]


@pytest.mark.parametrize("argument", OPENING)
def test_an_argument_that_opens_what_is_closed_is_refused_wherever_it_stands(argument):
    with pytest.raises(InvalidPoint, match=r"engine_args: .* is refused; ") as by_point:
        QWEN.but(engine_args=[argument])
    with pytest.raises(ConfigurationError, match=r"stacks\.new\] args: .* is refused; "):
        Stack(name="new", args=(argument,))
    with pytest.raises(ConfigurationError, match="is refused"):
        stacks_of({"new": {"args": ["--enforce-eager", argument]}}, ROOT)

    value = argument.partition("=")[2]
    assert not value or value not in str(by_point.value)


@pytest.mark.parametrize("argument", HARMLESS)
def test_an_argument_that_only_looks_like_one_is_passed_on(argument):
    assert not list(refused([argument]))
    assert QWEN.but(engine_args=[argument]).engine_args == (argument,)


def test_a_secret_in_a_run_command_is_refused_and_a_name_alone_is_not():
    with pytest.raises(ConfigurationError, match=r"HF_TOKEN=\.\.\. is refused") as refusal:
        Stack(
            name="new", python="python3", command=("docker", "run", "-e", "HF_TOKEN=abcdefgh")
        )

    assert "abcdefgh" not in str(refusal.value)
    assert Stack(name="new", command=("docker", "run", "-e", "HF_TOKEN", "-e", "A=b"))


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_remote_code_runs_only_where_a_point_says_so_and_is_then_shown(engine):
    plain = QWEN.but(engine=engine)
    trusting = plain.but(trust_remote_code=True)

    assert not plain.trust_remote_code
    assert plain.hash != trusting.hash
    assert plain.id != trusting.id
    assert Point.from_json(trusting.as_json()) == trusting
    (note,) = trust_note(trusting)
    assert note.code == "remote-code"
    assert trust_note(plain) == ()
    shown = describe_plan(plan([trusting], stack=Stack(), gpu="h200"))
    assert any("trust_remote_code" in line for line in shown)
    assert len(plan([plain, trusting], stack=Stack(), gpu="h200").launches) == 2
    assert "trust" not in str(describe_plan(plan([plain], stack=Stack(), gpu="h200")))


@pytest.mark.parametrize("engine", ["diffusers", "xdit", "endpoint"])
def test_an_engine_that_could_not_heed_it_is_not_said_to_trust(engine):
    task = "text-conversation" if engine == "endpoint" else "text-to-image"

    with pytest.raises(InvalidPoint, match="trust_remote_code cannot be set"):
        Point(model="a/b", task=task, engine=engine, trust_remote_code=True)


def test_vllm_is_told_to_listen_on_loopback_and_never_its_key():
    key = "k" * 32
    launch = Launch(points=(QWEN,), stack=Stack(), gpu="h200")
    argv = vllm_command.argv(launch, 8000)

    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv.count("--host") == 1
    assert "--trust-remote-code" not in argv
    assert vllm_command.variables(key, [])["VLLM_API_KEY"] == key


def test_no_module_listens_but_to_find_a_free_port():
    """The load, the sampler and the workers connect, or talk by pipes."""
    listening = re.compile(r"\.(bind|listen|start_server|create_server)\(|HTTPServer|TCPServer")
    found = {
        path.name: listening.findall(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if listening.search(path.read_text())
    }

    assert found == {"vllm.py": ["bind"]}


# --- names lead nowhere ---------------------------------------------------------------------

NAMES = [
    *(
        "../../x",
        "/etc/passwd",
        "..",
        ".",
        "~root/.ssh",
        "C:\\Windows\\x",
        "..\\..\\x",
        "a/../b",
    ),
    *("CON", "nul.json", "x" * 300, "a" * 300 + "/b", "x:y", "x|y", "\u202e/x", " x ", "x\ny"),
    *("\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x", "\N{DIVISION SLASH}x", "\u0430bc"),
    *("e\u0301/x", "%2e%2e%2fx", "x?y*z", "....//x", "$(touch x)", "`x`", "x;y"),
]


@pytest.mark.parametrize("source", ["live", "simulated"])
@settings(max_examples=40)
@given(name=st.one_of(st.sampled_from(NAMES), st.text(min_size=1)), gpu=st.sampled_from(NAMES))
@example(name="../../x", gpu="../../h200")
def test_no_name_leads_out_of_its_folder(source, name, gpu):
    root = Path("/srv/baselines")
    try:
        point = Point(model=name)
        path = baseline.path_for(root, point, gpu, source=source)
    except (InvalidPoint, ConfigurationError):
        return  # a name of nothing, told as such

    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(root)
    for part in (*path.relative_to(root).parts, point.id):
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,200}", part), part


def test_a_name_with_a_nul_is_refused():
    with pytest.raises(InvalidPoint):
        Point(model="a\0b")


def test_models_whose_names_differ_in_case_share_a_file_and_keep_their_runs(tmp_path):
    """On a file system that ignores case they would overwrite each other otherwise."""
    runs = [
        make_run(1.0, model=name, batch_size=8, gpu="h200", launch_id=name)
        for name in ("org/Model", "ORG/model", "org-model")
    ]

    (path,) = baseline.record(tmp_path, runs)

    assert {point.model: each for point, (each,) in baseline.load(path).items()}.keys() == {
        "org/Model",
        "ORG/model",
        "org-model",
    }


def test_results_of_hostile_names_stay_in_their_folder(tmp_path):
    from pytest_joules.sources.store import read_results, write_results  # noqa: PLC0415

    target = tmp_path / "inner" / "results"
    runs = [
        make_run(1.0, model=name, batch_size=8, gpu=gpu)
        for name in ("../../x", "/abs", "x" * 300, "\u0430")
        for gpu in ("../../gpu", "/abs/gpu", "h200", "x" * 300)
    ]

    write_results(target, runs)

    assert len(read_results(target)) == len(runs)
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["results"]


# --- private files --------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_launch_has_a_private_folder_and_a_private_log(tmp_path):
    launch = Launch(points=(QWEN,), stack=Stack(), gpu="h200")
    folder = folders.new_folder(tmp_path / "launches", launch, keep=5)
    log = folder / "engine.log"
    with supervised(["echo", "said"], env=dict(os.environ), log_path=log) as child:
        assert child.wait(30) == 0

    assert mode(folder) == 0o700
    assert "said" in log.read_text()


@pytest.mark.parametrize(("mask", "wanted"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_a_file_for_others_has_the_mode_that_the_umask_says(tmp_path, mask, wanted):
    before = os.umask(mask)
    try:
        storage.write_atomically(tmp_path / "x.json", "{}")
    finally:
        os.umask(before)

    assert mode(tmp_path / "x.json") == wanted


# --- secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "OPENAI_API_KEY", "aws_secret_access_key", "DB_PASSWORD", "MYTOKEN", "KEY_1"],
)
def test_a_variable_named_as_a_secret_holds_one(name):
    assert hiding.secrets_of({name: "abcdefgh"}) == {"abcdefgh"}


def test_numbers_short_values_and_tokenizers_are_no_secrets():
    environ = {
        "MAX_TOKENS": "abcdefgh",
        "TOKENIZERS_PARALLELISM": "forbidden",
        "KEY": "1",
        "API_TOKEN": "131072.5",
        "HOME": "/home/someone",
    }

    assert hiding.secrets_of(environ) == frozenset()
    assert hiding.secrets_of({"HTTPS_PROXY": "http://me:pass-word@proxy:1"}) == {"pass-word"}


@pytest.mark.parametrize("said", [SECRET, repr(SECRET), ascii({"HF_TOKEN": SECRET})])
def test_an_error_tells_no_secret_of_the_environment(monkeypatch, said):
    monkeypatch.setenv("HF_TOKEN", SECRET)

    shown = str(LaunchError(f"the log ends with {said}"))

    assert "planted9" not in shown
    assert "***" in shown


def test_a_text_is_cut_after_its_secrets_are_hidden(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")

    assert hiding.beginning("no such token: hf_abcdefghij", 19) == "no such token: ***"
    assert vllm_command.cause("ValueError: " + "x" * 280 + "hf_abcdefghij").endswith("x***")


def test_a_worker_cuts_what_it_tells_after_its_secrets_are_hidden(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    (tmp_path / "orders.0").touch()

    channel = Channel(tmp_path, rank=0)
    ends = channel._events, channel._orders  # noqa: SLF001  to be closed
    with pytest.raises(ValueError, match="hf_"), ends[0], ends[1], channel:
        raise ValueError("x" * 1980 + "hf_abcdefghij")

    (event,) = (tmp_path / "events.0").read_text().splitlines()
    assert json.loads(event)["text"] == "ValueError: " + "x" * 1980 + "***"


def test_an_error_about_a_table_of_variables_tells_none_of_them():
    table = {"new": {"env": {"HF_TOKEN": "abcdefgh", "X": []}}}

    with pytest.raises(ConfigurationError, match=r"stacks\.new\] env: give") as refusal:
        stacks_of(table, ROOT)

    assert "abcdefgh" not in str(refusal.value)


SECRETS = st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=4)


@given(SECRETS, st.lists(st.text("abcx", max_size=12), max_size=8))
def test_a_stream_is_masked_however_it_is_torn(secrets, pieces):
    """Against masking the whole text at once: no secret is left that stood in it unmasked."""
    ordered = sorted(secrets, key=lambda each: (-len(each), each))
    veil = _Veil(ordered)

    shown = b"".join(veil.shown(piece.encode()) for piece in pieces)
    shown += veil.shown(b"", is_last=True)

    for secret in ordered:
        assert secret.encode() not in shown
    assert shown.replace(b"***", b"").count(b"x") == "".join(pieces).count("x")


def test_a_program_that_tells_its_environment_leaves_no_secret_in_its_log(tmp_path):
    """As text, as Python's repr, as JSON, in pieces, and to both streams."""
    script = (
        "import json, os, sys, time\n"
        "print(os.environ)\n"
        "print(json.dumps(dict(os.environ)), file=sys.stderr)\n"
        "for piece in os.environ['HF_TOKEN']:\n"
        "    os.write(1, piece.encode())\n"
        "print('\\nends with', os.environ['HF_TOKEN'][:5])\n"
    )
    env = {**os.environ, "HF_TOKEN": SECRET, "PLAIN": "stays"}
    with supervised(
        [sys.executable, "-c", script], env=env, log_path=tmp_path / "engine.log"
    ) as child:
        assert child.wait(60) == 0
        tail = child.log_tail()

    log = (tmp_path / "engine.log").read_text()
    assert "planted9" not in log
    assert log.count("***") == 3
    assert "stays" in log
    assert tail.endswith("ends with hf_pl")


# --- the workflows --------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
PINNED = re.compile(r"[\w./-]+@[0-9a-f]{40}")


def faults(document: dict[Any, Any]) -> list[str]:
    """Name what would let other people's code or text act with a machine or a token."""
    found = []
    triggers = document.get("on", document.get(True, {}))  # YAML 1.1 reads ``on`` as true
    names = [triggers] if isinstance(triggers, str) else list(triggers)
    found += [name for name in ("pull_request_target", "workflow_run") if name in names]
    jobs = document.get(
        "jobs", {"action": {"steps": document.get("runs", {}).get("steps", [])}}
    )
    for job in jobs.values():
        found += _job_faults(job, names, document.get("permissions"))
    return found


def _job_faults(job: dict[str, Any], triggers: list[str], whole: Any) -> list[str]:
    found = []
    guard = re.sub(r"\s+", " ", str(job.get("if", "")))
    if "self-hosted" in str(job.get("runs-on")) and {"pull_request", "issue_comment"} & {
        *triggers
    }:
        same = "github.event.pull_request.head.repo.full_name == github.repository"
        found += [] if same in guard else ["a fork's code on a self-hosted machine"]
    granted = job.get("permissions", whole)
    if "runs-on" in job and granted not in ({}, {"contents": "read"}):
        found.append(f"permissions {granted}")
    for step in job["steps"]:
        uses = step.get("uses", "./")
        if not (uses.startswith("./") or PINNED.fullmatch(uses)):
            found.append(f"{uses} is not pinned")
        if "actions/checkout" in uses and step["with"].get("persist-credentials") is not False:
            found.append("checkout leaves its token")
        if re.search(r"\$\{\{(?!\s*matrix\.)", step.get("run", "")):
            found.append("an expression within a script")
        if "secrets." in str(step):
            found.append("a secret")
    return found


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + path.stem
)
def test_a_workflow_runs_nobody_elses_code_with_a_gpu_or_a_token(path):
    assert faults(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("github.event.pull_request.head.repo.full_name == github.repository", "true", "fork"),
        ("pull_request:", "pull_request_target:", "pull_request_target"),
        ("11bd71901bbe5b1630ceea73d27597364c9af683", "v4", "not pinned"),
        ("contents: read", "contents: write", "permissions"),
        ("persist-credentials: false", "persist-credentials: true", "leaves its token"),
    ],
)
def test_a_careless_change_of_the_workflow_is_noticed(old, new, fault):
    text = (ROOT / ".github" / "workflows" / "energy.yml").read_text()

    assert old in text
    assert fault in str(faults(yaml.safe_load(text.replace(old, new))))


def test_an_input_within_a_script_is_noticed():
    text = (
        ACTIONS[0].read_text().replace('"$PYTHON" -m pytest', "${{ inputs.python }} -m pytest")
    )

    assert faults(yaml.safe_load(text)) != []


def test_only_the_gate_runs_on_a_machine_of_ones_own():
    owned = [path.name for path in WORKFLOWS if "self-hosted" in path.read_text()]

    assert owned == ["energy.yml"]


def test_dependencies_are_audited_and_what_was_not_looked_up_is_red():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["audit"]
    commands = "\n".join(step.get("run", "") for step in job["steps"])

    assert "pip-audit --strict" in commands
    assert "continue-on-error" not in str(job)
