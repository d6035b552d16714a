"""Which GPUs ``CUDA_VISIBLE_DEVICES`` names, each once; no guess where CUDA would guess."""

from collections.abc import Mapping, Sequence

from pytest_joules.errors import MeterError, is_expected

__tracebackhide__ = is_expected

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_indices(
    environ: Mapping[str, str], uuids: Sequence[str], names: Sequence[str]
) -> tuple[int, ...]:
    """Resolve the variable to NVML indices, in the order it names them.

    CUDA itself stops silently at the first entry it does not understand, and Zeus counts a
    GPU twice that is named twice; here both are errors.

    Args:
        environ: The environment; without the variable every GPU is visible.
        uuids: UUID of every GPU of the machine, by NVML index.
        names: Device name of every GPU, by NVML index.

    Raises:
        MeterError: It names no GPU, an unknown one, a MIG slice, or one GPU twice, or its
            numbers may mean other GPUs to CUDA than to NVML.
    """
    if _VARIABLE not in environ:
        return tuple(range(len(uuids)))
    value = environ[_VARIABLE]
    if not value.strip():
        raise _wrong(value, "names no GPU", "Unset it, or name the GPUs to measure.")
    entries = [entry.strip() for entry in value.split(",")]
    indices = tuple(_index(entry, value, uuids) for entry in entries)
    if len(set(indices)) < len(indices):
        twice = next(i for i in indices if indices.count(i) > 1)
        raise _wrong(value, f"names GPU {twice} twice", "Name every GPU once.")
    if any(entry.isdigit() for entry in entries):
        _require_one_numbering(environ, value, names)
    return indices


def _index(entry: str, value: str, uuids: Sequence[str]) -> int:
    if entry.startswith("MIG"):
        raise _wrong(
            value,
            f"names the MIG slice {entry!r}, whose energy no counter tells apart",
            "Measure a whole GPU: disable MIG with `nvidia-smi -mig 0`.",
        )
    if entry.isdecimal():
        if int(entry) < len(uuids):
            return int(entry)
        raise _wrong(
            value, f"names GPU {entry}, but there are {len(uuids)}", "See `nvidia-smi -L`."
        )
    # CUDA takes any unambiguous beginning of a UUID.
    found = [i for i, uuid in enumerate(uuids) if entry != "GPU-" and uuid.startswith(entry)]
    if entry.startswith("GPU-") and len(found) == 1:
        return found[0]
    reason = f"holds {entry!r}, which is {len(found) or 'no'} GPU of this machine"
    raise _wrong(value, reason, "Use numbers or UUIDs as `nvidia-smi -L` lists them.")


def _require_one_numbering(
    environ: Mapping[str, str], value: str, names: Sequence[str]
) -> None:
    """CUDA numbers the fastest GPU first, NVML goes by PCI bus: unequal GPUs differ."""
    if len(set(names)) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise _wrong(
            value,
            f"numbers GPUs of several models ({', '.join(sorted(set(names)))}), which CUDA "
            "and NVML number differently",
            "Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPUs by UUID.",
        )


def _wrong(value: str, reason: str, remedy: str) -> MeterError:
    return MeterError(f"{_VARIABLE}={value!r} {reason}. {remedy}")
