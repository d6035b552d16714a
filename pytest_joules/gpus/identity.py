"""What GPUs are, as far as energies are compared only where it is equal."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from pytest_joules.errors import MeterError, is_expected
from pytest_joules.load.media import digest
from pytest_joules.point import Point
from pytest_joules.provenance import Identity
from pytest_joules.trace import GpuIdentity, MeterTrace

__tracebackhide__ = is_expected


def identity_of(gpus: Sequence[GpuIdentity], point: Point) -> Identity:
    """Return what must be equal before a result of the point on these GPUs is compared.

    Raises:
        MeterError: The GPUs differ, so that no one identity describes them.
        InvalidPoint: The files that the point shows are not there.
    """
    first = gpus[0]
    for name in ("name", "memory_bytes", "power_limit_w", "mig"):
        seen = {gpu.uuid: getattr(gpu, name) for gpu in gpus}
        if len(set(seen.values())) > 1:
            raise MeterError(
                f"the GPUs differ in {name}: {seen}. Set them alike (`nvidia-smi -pl WATTS`, "
                "`-mig`), or choose equal ones (CUDA_VISIBLE_DEVICES)."
            )
    return Identity(
        gpu_model=first.name,
        num_gpus=len(gpus),
        memory_bytes=first.memory_bytes,
        power_limit_w=first.power_limit_w,
        mig=first.mig,
        topology=_topology(gpus),
        inputs_sha256=digest(point),
    )


def as_recorded(gpus: Sequence[GpuIdentity], meter: MeterTrace) -> list[GpuIdentity]:
    """Return the GPUs as they were set when the recording began, which is after the launch."""
    seen = {trace.gpu.uuid: trace.gpu for trace in meter.gpus}
    then = [(gpu, seen.get(gpu.uuid, gpu)) for gpu in gpus]
    return [replace(gpu, power_limit_w=at.power_limit_w, mig=at.mig) for gpu, at in then]


def _topology(gpus: Sequence[GpuIdentity]) -> str | None:
    """Say how the GPUs reach each other, as ``2 x host-bridge, 4 x nvlink-18``.

    ``None`` for a single one, and where NVML did not tell of every pair.
    """
    kinds = [dict(one.links).get(two.uuid) for one, two in combinations(gpus, 2)]
    counts = Counter(kind for kind in kinds if kind)
    if not counts or None in kinds:
        return None
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items()))
