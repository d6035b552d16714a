"""Which of the visible GPUs are measured."""

from collections import Counter
from collections.abc import Collection, Sequence

from pytest_joules.catalog import gpu_slug
from pytest_joules.errors import MeterError, is_expected
from pytest_joules.leases.allocation import Request, allocate
from pytest_joules.meter import Meter
from pytest_joules.plan import Launch
from pytest_joules.trace import GpuIdentity

__tracebackhide__ = is_expected


def choose_gpus(visible: Sequence[GpuIdentity], launch: Launch) -> tuple[GpuIdentity, ...]:
    """Choose the launch's GPUs among the visible ones, as if nobody else wanted any.

    Raises:
        MeterError: As ``request``.
    """
    asked = request(visible, launch)
    chosen = allocate((), asked, asked.usable)
    assert chosen is not None
    return tuple(gpu for gpu in visible if gpu.uuid in chosen)


def request(visible: Sequence[GpuIdentity], launch: Launch) -> Request:
    """Say which of the visible GPUs would do for a launch.

    Raises:
        MeterError: Fewer GPUs of the asked model are visible than the launch needs, or not
            those that its earlier launches ran on.
    """
    fitting = tuple(gpu.uuid for gpu in _fitting(visible, launch))
    count, boards = launch.largest.num_gpus, launch.boards
    if boards.fixed and not {*fitting}.issuperset(boards.fixed):
        raise MeterError(
            f"{launch.largest.id}: its launches so far ran on {', '.join(boards.fixed)}, which "
            f"are not all visible any more ({', '.join(fitting)} are). Launches that are "
            "compared must run on the same GPUs: look after the GPU, and run again."
        )
    wanted = (boards.fixed,) if boards.fixed else boards.preferred
    here = tuple(each for each in wanted if len(each) == count and {*fitting}.issuperset(each))
    return Request(
        count=count,
        gpus=fitting,
        boards=here,
        only_boards=bool(here) and (boards.waits or bool(boards.fixed)),
    )


def _fitting(visible: Sequence[GpuIdentity], launch: Launch) -> list[GpuIdentity]:
    told = launch.stack.gpus
    fitting = [
        gpu
        for gpu in visible
        if gpu_slug(gpu.name) == launch.gpu and (not told or gpu.uuid in told)
    ]
    needed = launch.largest.num_gpus
    if len(fitting) < needed:
        raise _too_few(
            visible, f"{launch.largest.id} needs {needed} x {launch.gpu}", launch.gpu
        )
    return fitting


def require_gpu(visible: Sequence[GpuIdentity], gpu: str) -> None:
    """Refuse a machine without any GPU of the asked model.

    Raises:
        MeterError: None of the visible GPUs is one.
    """
    if not any(gpu_slug(each.name) == gpu for each in visible):
        raise _too_few(visible, f"--gpu={gpu} asks for another machine", gpu)


def _too_few(visible: Sequence[GpuIdentity], wish: str, gpu: str) -> MeterError:
    names = Counter(each.name for each in visible)
    seen = ", ".join(f"{n} x {name} ({gpu_slug(name)})" for name, n in names.items()) or "none"
    is_here = any(gpu_slug(name) == gpu for name in names)
    remedy = "Declare fewer (num_gpus)" if is_here else "Name the GPU that is there (--gpu)"
    return MeterError(
        f"{wish}, but the visible GPUs are: {seen}. {remedy}, or make more visible "
        "(CUDA_VISIBLE_DEVICES)."
    )


def gpus_of(
    process_ids: Collection[int], launch: Launch, meter: Meter
) -> tuple[GpuIdentity, ...]:
    """Find the GPUs that a running server uses: by its processes, or as its stack tells.

    Raises:
        MeterError: It uses others than it should, fewer or more, or nobody can tell which.
    """
    visible, told = meter.identify(), launch.stack.gpus
    unknown = sorted(set(told) - {gpu.uuid for gpu in visible})
    if unknown:
        raise MeterError(
            f"stack {launch.stack.name!r}: gpus names {', '.join(unknown)}, which is not among "
            f"the visible GPUs {', '.join(gpu.uuid for gpu in visible)}."
        )
    with meter.recording([gpu.uuid for gpu in visible]) as recording:
        pass
    used = tuple(
        trace.gpu
        for trace in recording.trace().gpus
        if any({*process_ids} & {*(reading.process_ids or ())} for reading in trace.readings)
    )
    if not used and not told:
        raise MeterError(
            f"NVML shows none of the processes {', '.join(map(str, sorted(process_ids)))} of "
            f"the server at {launch.stack.url} on any GPU, so its energy cannot be found. In a "
            "container, share the host's process ids (--pid=host), or tell its GPUs: gpus = "
            f'["GPU-..."] in [tool.pytest-joules.stacks.{launch.stack.name}].'
        )
    if used and told and {gpu.uuid for gpu in used} != {*told}:
        raise MeterError(
            f"stack {launch.stack.name!r} tells that the server uses {', '.join(told)}, but "
            f"NVML shows it on {', '.join(gpu.uuid for gpu in used)}; correct gpus."
        )
    found = used or tuple(gpu for gpu in visible if gpu.uuid in told)
    _require_asked(found, launch)
    return found


def _require_asked(found: Sequence[GpuIdentity], launch: Launch) -> None:
    point = launch.largest
    models = {gpu_slug(gpu.name) for gpu in found}
    if models != {launch.gpu} or len(found) != point.num_gpus:
        seen = ", ".join(f"{gpu.uuid} ({gpu.name})" for gpu in found)
        raise MeterError(
            f"{point.id} asks for {point.num_gpus} x {launch.gpu}, but the server at "
            f"{launch.stack.url} runs on {seen}. Declare what it runs on (num_gpus, --gpu)."
        )
