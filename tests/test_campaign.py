"""The campaign's decisions: which step is next, what is carried, what was found."""

import json
import math
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from benchmarks.campaign import bundle, running, steps, telling
from benchmarks.campaign.steps import Done, Step
from pytest_joules import Point, catalog
from pytest_joules.engines import dummies
from pytest_joules.latent import architectures
from pytest_joules.latent.architecture import LanguageArchitecture

HERE = running.HERE
REAL = running.Campaign(out=Path("/nowhere"), gpu="h200")


def make_step(name: str, seconds: float = 60.0, like: str = "") -> Step:
    return Step(name=name, part="same", seconds=seconds, command=("true",), like=like)


def make_done(name: str, took_s: float = 10.0, *, cut_off: bool = False) -> Done:
    return Done(name=name, part="same", exit_code=0, took_s=took_s, cut_off=cut_off)


def test_the_first_step_that_fits_comes_next() -> None:
    long, short = make_step("long", 100), make_step("short", 30)
    assert steps.following([long, short], {}, left_s=100) == long
    assert steps.following([long, short], {}, left_s=99) == short
    assert steps.following([long, short], {}, left_s=29) is None


def test_done_steps_are_not_run_again_but_those_cut_off_are() -> None:
    first, second = make_step("first"), make_step("second")
    assert steps.following([first, second], {"first": make_done("first")}, 100) == second
    cut = {"first": make_done("first", cut_off=True)}
    assert steps.following([first, second], cut, 100) == first


def test_a_timed_step_tells_how_long_its_like_takes() -> None:
    again = make_step("again", 60, like="once")
    assert steps.expected_s(again, {}) == 60
    assert steps.expected_s(again, {"once": make_done("once", 17)}) == 17
    assert steps.expected_s(again, {"once": make_done("once", 17, cut_off=True)}) == 60


@given(seconds=st.lists(st.floats(1, 100), min_size=1, max_size=8), left_s=st.floats(0, 300))
def test_no_step_is_begun_that_would_not_end_in_time(
    seconds: list[float], left_s: float
) -> None:
    listed = [make_step(str(i), s) for i, s in enumerate(seconds)]
    done: dict[str, Done] = {}
    spent_s = 0.0
    while step := steps.following(listed, done, left_s - spent_s):
        spent_s += step.seconds
        done[step.name] = make_done(step.name)
    assert spent_s <= left_s
    assert all(s.seconds > left_s - spent_s for s in listed if s.name not in done)


def test_the_plan_tells_minutes_and_what_is_done() -> None:
    told = steps.told([make_step("a", 90), make_step("b", 30)], {"a": make_done("a", 60)})
    assert told == [
        "a  same           1.0 min  done",
        "b  same           0.5 min",
        "1 of 2 steps to go, about 0 GPU minutes",
    ]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        pytest.param(
            'name="x"\npart="lunch"\nseconds=1\ncommand=["a"]', "unknown part", id="part"
        ),
        pytest.param('name="x"\npart="same"\nseconds=1', "either command or pytest", id="none"),
        pytest.param('name="x"\npart="same"\nsecond=1\ncommand=["a"]', "second", id="field"),
        pytest.param(
            'name="x"\npart="same"\nseconds=1\ncommand=["a"]\nlike="y"', "like='y'", id="like"
        ),
    ],
)
def test_wrong_steps_are_refused(tmp_path: Path, *, row: str, match: str) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(f"[[steps]]\n{row}\n")
    with pytest.raises(ValueError, match=match):
        steps.read(path)


def test_the_real_campaign_holds_together() -> None:
    """Its files exist, no step may last ten minutes, twenty verdicts of itself are asked."""
    listed = REAL.steps()
    for step in listed:
        assert step.seconds <= step.most_seconds < 600, step.name
        for word in REAL.command(step):
            if word.endswith(".py") and "=" not in word:
                assert Path(word).exists(), word
    assert all((HERE / step.beside).exists() for step in listed if step.beside)
    order = [step.part for step in listed]
    assert order.index("same") < order.index("planted")
    names = [step.name for step in listed]
    assert names.index("predict") < names.index("qwen3-14b")


def test_the_first_ten_minutes_tell_of_every_promise() -> None:
    """Sensors, a baseline, the stack against itself, planted changes: a machine may be lent
    for no longer."""
    left_s = 600.0
    told = []
    for step in REAL.steps():
        left_s -= step.seconds
        if left_s >= 0:
            told.append(step.part)
    assert told == ["probe", "probe", "baseline", "same", "planted", "planted", "planted"]


def cache_of(stack: str) -> tuple[int, int]:
    """Return the blocks of a stack's cache and the tokens of one."""
    project = tomllib.loads(REAL.project_file.read_text(encoding="utf-8"))
    arguments = project["tool"]["pytest-joules"]["stacks"][stack]["args"]
    told = dict(text.split("=") for text in arguments)
    return int(told["num_blocks"]), int(told["block_size"])


@pytest.mark.parametrize(
    "model", ["Qwen3-8B", "Qwen3-14B", "Qwen3-32B", "Qwen3-30B-A3B-Instruct-2507"]
)
@pytest.mark.parametrize("stack", ["default", "slow-attention", "compiled"])
def test_weights_and_cache_fit_an_h100(model: str, stack: str) -> None:
    """81,559 MiB, as nvidia-smi tells of one, less 6 GiB for all else; bf16 has two bytes."""
    shape = architectures()[f"Qwen/{model}"]
    assert isinstance(shape, LanguageArchitecture)
    num_blocks, block_tokens = cache_of(stack)
    token_bytes = 2 * 2 * shape.num_layers * shape.num_kv_heads * shape.head_size
    cache_bytes = num_blocks * block_tokens * token_bytes
    assert 2 * shape.total_params + cache_bytes < (81_559 - 6 * 1024) * 2**20


def test_the_cache_holds_the_largest_batch_and_starves_where_it_is_to() -> None:
    """The engine admits no request that would leave less than 15 % of the blocks free."""
    fields = tomllib.loads(REAL.points_file.read_text(encoding="utf-8"))
    sizes = fields["regression"]["batch_sizes"]
    point = Point.from_json(
        {"model": "Qwen/Qwen3-8B", "batch_size": max(sizes), **fields["text-conversation"]}
    )
    num_blocks, block_tokens = cache_of("default")
    asked = [r.prompt_tokens + r.output_tokens for r in islice(point.requests(), 4 * 128)]
    blocks = mean(math.ceil(tokens / block_tokens) for tokens in asked)
    assert 128 * blocks < 0.85 * num_blocks

    num_blocks, block_tokens = cache_of("starved")
    assert max(asked) < num_blocks * block_tokens  # each one alone can be served
    assert 32 * blocks > 2 * num_blocks


def test_held_out_points_are_those_that_are_measured_later() -> None:
    held = steps.held_out(REAL.steps_file, REAL.points_file)
    points = [Point.from_json(each) for each in held]
    assert [(p.model, p.batch_size) for p in points] == [
        ("Qwen/Qwen3-14B", 8),
        ("Qwen/Qwen3-14B", 32),
    ]
    assert {(p.engine, p.weights) for p in points} == {("transformers", "dummy")}


def test_every_stack_gets_the_engines_interpreter(tmp_path: Path) -> None:
    campaign = running.Campaign(
        out=tmp_path / "out", gpu="h200", engine_python="/envs/e/python"
    )
    campaign.prepare()
    text = (campaign.out / "pyproject.toml").read_text()
    assert text.count('python = "/envs/e/python"') == text.count("[tool.pytest-joules.stacks.")
    held = json.loads((campaign.out / "held-out.json").read_text())
    assert len(held) == 2


def make_campaign(folder: Path, *rows: str) -> running.Campaign:
    listed = folder / "steps.toml"
    listed.write_text("\n".join(f"[[steps]]\n{row}" for row in rows))
    campaign = running.Campaign(out=folder / "out", gpu="h200", steps_file=listed)
    campaign.prepare()
    return campaign


OK = 'name="ok"\npart="probe"\nseconds=1\ncommand=["{python}", "-c", "print(1)"]'
HANGS = (
    'name="hangs"\npart="probe"\nseconds=0.1\nmost_seconds=0.2\n'
    'command=["{python}", "-c", "import signal; signal.pause()"]'
)


def test_steps_run_once_and_a_later_run_goes_on(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, OK)
    assert [d.exit_code for d in running.run(campaign, seconds=60)] == [0]
    assert (campaign.out / "steps" / "ok.log").read_text() == "1\n"
    assert list(running.run(campaign, seconds=60)) == []
    assert [d.name for d in running.run(campaign, seconds=60, names=["ok"])] == ["ok"]


def test_a_step_that_hangs_is_cut_off_and_the_next_one_runs(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, HANGS, OK)
    found = list(running.run(campaign, seconds=60))
    assert [(d.name, d.cut_off) for d in found] == [("hangs", True), ("ok", False)]
    assert campaign.done()["hangs"].cut_off


def test_the_time_holds_the_end_of_a_step_that_is_cut_off(tmp_path: Path) -> None:
    """Whoever ends the whole command after its minutes finds everything stored."""
    campaign = make_campaign(tmp_path, OK)
    assert list(running.run(campaign, seconds=running.ENDING_S)) == []
    assert [d.name for d in running.run(campaign, seconds=running.ENDING_S + 30)] == ["ok"]


@pytest.mark.parametrize(
    ("cut_off", "boot", "end", "goes_on"),
    [
        pytest.param(True, running.boot(), None, True, id="cut-off"),
        pytest.param(False, running.boot(), None, False, id="ended"),
        pytest.param(True, "another-start", None, False, id="another-machine"),
        pytest.param(True, "", None, False, id="untold-machine"),
        pytest.param(True, running.boot(), {"failed": [], "spent_gpu_s": 1}, False, id="whole"),
    ],
)
def test_a_step_that_was_cut_off_goes_on_with_what_it_had_measured(
    tmp_path: Path, *, cut_off: bool, boot: str, end: object, goes_on: bool
) -> None:
    """On the same start of the machine: another board would be refused."""
    row = 'name="x"\npart="same"\nseconds=1\npytest=["test_regression.py"]'
    campaign = make_campaign(tmp_path, row)
    session = campaign.out / ".joules" / "sessions" / "s1"
    session.mkdir(parents=True)
    (session / "session.json").write_text("{}")
    (session / "results.jsonl").write_text("")
    if end is not None:
        (session / "end.json").write_text(json.dumps({"schema": 1, **end}))
    before = Done(
        name="x",
        part="same",
        exit_code=2,
        took_s=9,
        cut_off=cut_off,
        boot=boot,
        sessions=("s1",),
    )
    write_step(campaign, before, tests=1)

    (step,) = campaign.steps()
    assert ("--joules-resume=s1" in campaign.command(step)) is goes_on


def test_a_step_that_went_on_took_the_time_of_both_and_a_refused_one_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign(tmp_path, OK)
    write_step(campaign, make_done("ok", 100.0, cut_off=True), tests=0)
    told = [sys.executable, "-c", "raise SystemExit(4)", "--joules-resume=s1"]
    monkeypatch.setattr(running.Campaign, "command", lambda *_: told)

    (done,) = running.run(campaign, seconds=60)

    assert done.took_s >= 100
    assert done.cut_off
    assert done.sessions == ()


def test_the_driver_is_kept_loaded_between_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without persistence mode each program would wait until the GPU is set up again."""
    opened: list[str] = []

    @contextmanager
    def session() -> Iterator[None]:
        opened.append("open")
        yield
        opened.append("closed")

    monkeypatch.setattr("pytest_joules.meter.nvml.session", session)
    monkeypatch.setattr("pytest_joules.meter.nvml.handles", lambda: opened.append("asked"))
    campaign = make_campaign(tmp_path, OK, OK.replace('"ok"', '"ok2"'))

    for _ in running.run(campaign, seconds=60):
        assert opened == ["open", "asked"]
    assert opened == ["open", "asked", "closed"]


def test_a_packed_campaign_goes_on_elsewhere(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, OK)
    list(running.run(campaign, seconds=60))
    (campaign.out / ".joules" / "launches" / "x").mkdir(parents=True)
    archive = tmp_path / "packed" / "campaign.tar.gz"
    running.pack(campaign, archive)
    with tarfile.open(archive) as packed:
        assert not [name for name in packed.getnames() if "launches" in name]
    elsewhere = running.Campaign(
        out=tmp_path / "elsewhere", gpu="h200", steps_file=campaign.steps_file
    )
    running.unpack(archive, elsewhere.out)
    assert list(running.run(elsewhere, seconds=60)) == []


def test_a_report_of_nothing_says_nothing_was_found(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path)
    text = "\n".join(telling.lines(campaign.out))
    assert "0 verdicts asked; 0 false alarms" in text
    assert "0 undisturbed launches" in text
    assert "No prediction was written down." in text


def write_session(out: Path, name: str, verdicts: list[str], *, spent_gpu_s: float) -> None:
    folder = out / ".joules" / "sessions" / name
    folder.mkdir(parents=True)
    rows = [json.dumps({"comparison": {"verdict": v}}) for v in verdicts]
    (folder / "verdicts.jsonl").write_text("".join(row + "\n" for row in rows))
    (folder / "end.json").write_text(json.dumps({"spent_gpu_s": spent_gpu_s}))


def write_step(campaign: running.Campaign, values: Done, tests: int) -> None:
    folder = campaign.out / "steps"
    cases = "".join(f'<testcase classname="b.t" name="t[{i}]"/>' for i in range(tests))
    (folder / f"{values.name}.xml").write_text(f"<testsuite>{cases}</testsuite>")
    (folder / f"{values.name}.json").write_text(
        json.dumps({**values.__dict__, "sessions": list(values.sessions)})
    )


def test_false_alarms_are_counted_and_what_was_not_decided_too(tmp_path: Path) -> None:
    """Four tests asked, three verdicts, one of them false, in 120 GPU seconds."""
    campaign = make_campaign(tmp_path)
    write_session(
        campaign.out, "s1", ["unchanged", "regression", "inconclusive"], spent_gpu_s=120.0
    )
    write_step(
        campaign,
        Done(name="x", part="same", exit_code=1, took_s=150, sessions=("s1",)),
        tests=4,
    )
    text = "\n".join(telling.lines(campaign.out))
    assert "4 verdicts asked; 1 false alarms; 1 not decided in time" in text
    assert "30 GPU seconds a verdict (120 in all)" in text


@pytest.mark.parametrize(
    ("exit_code", "state"),
    [
        pytest.param(0, "**missed**", id="green"),
        pytest.param(1, "found (red)", id="red"),
        pytest.param(6, "found (not green)", id="undecided"),
        pytest.param(3, "failed, exit code 3", id="failed"),
    ],
)
def test_a_planted_change_is_missed_where_the_gate_is_green(
    tmp_path: Path, *, exit_code: int, state: str
) -> None:
    campaign = make_campaign(tmp_path)
    write_step(campaign, Done(name="x", part="planted", exit_code=exit_code, took_s=9), tests=1)
    assert f"- x: {state}" in "\n".join(telling.lines(campaign.out))


def test_what_a_machine_has_is_read_as_people_write_it() -> None:
    text = "torch==2.11.0+cu130\nRich, PyYAML\n# comment\nzope.event @ file:///x"
    found = bundle.installed_from(text)
    assert found == {"torch": "2.11.0+cu130", "rich": "", "pyyaml": "", "zope-event": ""}


def test_a_machine_is_asked_for_by_its_tags() -> None:
    tags = bundle.Machine(installed={}, glibc_minor=28).tags()
    assert "--platform=manylinux_2_28_x86_64" in tags
    assert "--platform=manylinux_2_31_x86_64" not in tags
    assert "--python-version=3.12" in tags


def test_needs_are_those_of_the_machine_not_of_this_one() -> None:
    requires = [
        "plain>=1",
        "old; python_version < '3.12'",
        "new; python_version >= '3.12'",
        "windows; sys_platform == 'win32'",
        "more; extra == 'all'",
    ]
    machine = bundle.Machine(installed={}, python="3.12")
    assert [r.name for r in machine.needs(requires)] == ["plain", "new"]
    assert [r.name for r in machine.needs(requires, {"all"})] == ["plain", "new", "more"]


@pytest.mark.parametrize(
    ("text", "will_do"),
    [
        pytest.param("pandas==2.2.0", True, id="new-enough"),
        pytest.param("pandas==2.3.0+local", True, id="local-build"),
        pytest.param("pandas==1.5.3", False, id="too-old"),
        pytest.param("pandas", True, id="version-not-known"),
        pytest.param("numpy==2.5.2", False, id="not-there"),
    ],
)
def test_what_is_too_old_on_the_machine_is_carried(*, text: str, will_do: bool) -> None:
    """Left out, pip would refuse all that was carried, where nothing can be fetched."""
    machine = bundle.Machine(installed=bundle.installed_from(text))
    assert machine.has(Requirement("pandas>=2.2")) is will_do


def test_too_many_wheels_are_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "large-1.whl"
    wheel.write_bytes(b"x" * 2**20)
    bundle.require_small([wheel], 1.0)
    with pytest.raises(ValueError, match=r"1\.0 MiB of wheels, but 0\.5"):
        bundle.require_small([wheel], 0.5)


@pytest.mark.parametrize("model", dummies.known())
def test_dummy_models_have_a_shape_and_a_row_in_the_catalog(model: str) -> None:
    config, shape = dummies.config(model), architectures()[model]
    assert config is not None
    assert catalog.model(model) is not None
    assert config["num_hidden_layers"] == shape.num_layers
    assert config["num_attention_heads"] * config["head_dim"] == (
        shape.num_heads * shape.head_size
    )
    assert ("num_experts" in config) == (catalog.model(model).architecture == "moe")


def test_real_weights_and_unknown_models_are_left_to_the_engine(tmp_path: Path) -> None:
    known, unknown = Point(model="Qwen/Qwen3-8B"), Point(model="maker/unknown", weights="dummy")
    assert dummies.located(known, tmp_path) == "Qwen/Qwen3-8B"
    assert dummies.located(unknown, tmp_path) == "maker/unknown"
    made = Path(dummies.located(known.but(weights="dummy"), tmp_path))
    assert json.loads((made / "config.json").read_text())["model_type"] == "qwen3"
