"""One point of the matrix that tests declare: what is launched and what is asked of it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import count, product
from typing import Any

from pytest_joules import catalog
from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.point.checks import LENGTHS, require_consistent, require_types
from pytest_joules.point.vision import FIELDS, Vision, vision_of
from pytest_joules.tasks import Lengths, Task, lengths_from_json, task

__tracebackhide__ = is_expected

_LONGEST_ID = 160  # leaves a file name room for a suffix and a temporary name


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request of a fixed workload."""

    index: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """A configuration whose steady-state energy can be measured.

    Everything that decides how much energy a work unit costs is declared here, except the
    GPU (``--gpu``) and the software (the stack). Two points with equal fields ask for the
    same measurement.

    Raises:
        InvalidPoint: The fields contradict each other; the message has value and remedy.
    """

    model: str
    """Hugging Face repository or local folder."""

    task: str = "text-conversation"
    batch_size: int = 1
    """Requests kept in flight: the paper's batch size, vLLM's ``max_num_seqs``."""

    precision: str = ""
    """Weight precision; empty means the one the catalog knows, else bf16."""

    num_gpus: int = 1
    engine: str = ""
    """Serving stack; empty means the task's own: vllm, or diffusers/xdit for diffusion."""

    weights: str = "real"
    """``real`` or ``dummy`` (random weights from the model's config, no download)."""

    mode: str = "fixed"
    """``fixed``: pinned lengths, the same requests in the same order; ``natural``: the
    model ends its own outputs."""

    num_requests: int | None = None
    """Requests offered; ``None`` offers as many as the window needs."""

    input_tokens: Lengths | None = None
    """Prompt lengths; ``None`` means the task's."""

    output_tokens: Lengths | None = None
    """Output lengths; ``None`` means the task's."""

    seed: int = 0
    """Seed of lengths and prompt tokens."""

    prefix_caching: bool = False
    shared_server: bool = True
    """Whether a server started for a larger batch may serve this point by limiting
    concurrency; ``False`` starts one server per batch size."""

    tensor_parallel: int | None = None
    data_parallel: int = 1
    expert_parallel: bool = False
    max_model_len: int | None = None
    trust_remote_code: bool = False
    engine_args: Sequence[str] = ()
    """Further arguments for the engine, as its command line takes them."""

    num_images: int | None = None
    """Images that each request of ``image-chat`` shows; ``None`` means one."""

    media: str = ""
    """Folder of images or videos to show, in order of their names and again from the first;
    empty makes synthetic ones from the seed."""

    steps: int | None = None
    height: int | None = None
    """Pixels: of what a diffusion model makes, or of synthetic images and videos shown."""

    width: int | None = None
    num_frames: int | None = None
    """Frames: of what a diffusion model makes, or that the model sees of a video."""

    fps: int | None = None
    ulysses_degree: int | None = None
    ring_degree: int | None = None

    def __post_init__(self) -> None:
        require_types(vars(self), may_be_none=_MAY_BE_NONE)
        asked = task(self.task)
        _fill(self, "precision", _default_precision(self.model))
        _fill(self, "engine", _default_engine(asked, self.num_gpus))
        object.__setattr__(self, "engine_args", tuple(self.engine_args))
        require_consistent(vars(self), asked, _set_fields(self))
        _ = self.vision  # raises where its fields contradict each other

    @property
    def spec(self) -> Task:
        """The task's description."""
        return task(self.task)

    @property
    def vision(self) -> Vision | None:
        """What each request shows beside its text; ``None`` where nothing."""
        if self.work_unit != "token":
            return None
        given = {name: getattr(self, name) for name in FIELDS if getattr(self, name)}
        return vision_of(self.spec, given)

    @property
    def work_unit(self) -> str:
        """What energy is divided by: ``token``, ``image`` or ``video``."""
        return self.spec.work_unit

    def __repr__(self) -> str:
        """Write what was set, so that it can be pasted into a test."""
        defaults = {
            "precision": _default_precision(self.model),
            "engine": _default_engine(self.spec, self.num_gpus),
        }
        shown = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if getattr(self, f.name) != defaults.get(f.name, f.default)
        ]
        return f"Point({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002  IPython
        # Hypothesis prints a failing example by this method, or else every field.
        printer.text(repr(self))

    def but(self, **changes: Any) -> "Point":
        """Return this point with some fields changed.

        A precision or engine that was the default stays the default: of the new model, task
        and number of GPUs.

        Raises:
            InvalidPoint: A field is unknown or the changed point contradicts itself.
        """
        _require_known(changes)
        if self.precision == _default_precision(self.model):
            changes.setdefault("precision", "")
        if self.engine == _default_engine(self.spec, self.num_gpus):
            changes.setdefault("engine", "")
        return replace(self, **changes)

    def sweep(self, **axes: Any) -> tuple["Point", ...]:
        """Return one point for each combination of the listed values.

        Raises:
            InvalidPoint: As ``but``; or an axis lists nothing, so nothing would be measured.
        """
        names = list(axes)
        columns = [v if isinstance(v, list | tuple | range) else [v] for v in axes.values()]
        for name, column in zip(names, columns, strict=True):
            if not column:
                raise InvalidPoint(f"{name}={axes[name]!r} lists no value to sweep over.")
        return tuple(
            self.but(**dict(zip(names, row, strict=True))) for row in product(*columns)
        )

    def requests(self) -> Iterator[Request]:
        """Yield the pinned requests in order, without end unless ``num_requests`` is set.

        Raises:
            InvalidPoint: The task draws no token lengths, and the point sets none.
        """
        spec = self.spec
        prompts = self.input_tokens or spec.input_tokens
        outputs = self.output_tokens or spec.output_tokens
        if prompts is None or outputs is None:
            raise InvalidPoint(f"{self.id}: {self.task} has no token lengths to draw.")
        for index in count() if self.num_requests is None else range(self.num_requests):
            yield Request(
                index=index,
                prompt_tokens=prompts.draw(index, seed=self.seed, what="input"),
                output_tokens=outputs.draw(index, seed=self.seed, what="output"),
            )

    @property
    def id(self) -> str:
        """Short readable name, unique within a suite.

        It is safe as the name of a file. Six hex digits of the point's hash are added where
        the readable part does not tell all: a model that the catalog does not know (two
        folders may end alike), or fields beyond model, task, precision, GPUs and batch size
        that were set away from their default.
        """
        shape = f"{self.task}-{self.precision}-{self.num_gpus}gpu-b{self.batch_size}"
        short = f"{_readable(self.model)}-{shape}"
        tells_all = self._is_plain() and len(short) <= _LONGEST_ID
        return short if tells_all else f"{short[:_LONGEST_ID]}-{self.hash[:6]}"

    @property
    def hash(self) -> str:
        """SHA-256 of every field, in hex; equal exactly for equal points."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return the fields that were set away from their defaults, JSON-ready."""
        told = {*_NAMED, *_set_fields(self)}
        values = {name: getattr(self, name) for name, _ in _DEFAULTS if name in told}
        values |= {n: asdict(v) for n, v in values.items() if isinstance(v, Lengths)}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Point":
        """Rebuild a point.

        Raises:
            InvalidPoint: A field is unknown, of a wrong type, or contradicts another.
        """
        _require_known(values)
        if "model" not in values:
            raise InvalidPoint("a point needs model: a Hugging Face repository or a folder.")
        lengths = {
            name: lengths_from_json(name, values[name])
            for name in LENGTHS
            if values.get(name) is not None
        }
        return cls(**{**values, **lengths})

    def _is_plain(self) -> bool:
        is_default = self.engine == _default_engine(self.spec, self.num_gpus)
        return (
            {*_set_fields(self)} <= {*_NAMED}
            and is_default
            and catalog.model(self.model) is not None
        )


_NAMED = ("model", "task", "batch_size", "precision", "num_gpus", "engine")


def _set_fields(point: Point) -> list[str]:
    """Return the names of the fields that were set away from their defaults."""
    return [name for name, default in _DEFAULTS if getattr(point, name) != default]


_DEFAULTS = tuple((each.name, each.default) for each in fields(Point))  # once: it is slow
_KNOWN = frozenset(name for name, _ in _DEFAULTS)
_MAY_BE_NONE = frozenset(name for name, default in _DEFAULTS if default is None)


def _fill(point: Point, name: str, value: str) -> None:
    if not getattr(point, name):
        object.__setattr__(point, name, value)


def _readable(model: str) -> str:
    last = model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    # Some folders have no letter that survives: "..", or names in other alphabets.
    return catalog.slug(last) if any(c.isascii() and c.isalnum() for c in last) else "model"


def _default_precision(model: str) -> str:
    known = catalog.model(model)
    return known.precision if known else "bf16"


def _default_engine(spec: Task, num_gpus: int) -> str:
    return "xdit" if spec.engine == "diffusers" and num_gpus > 1 else spec.engine


def _require_known(values: Any) -> None:
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise InvalidPoint(
            f"Point has no field {', '.join(unknown)}; "
            f"its fields are {', '.join(sorted(_KNOWN))}."
        )
