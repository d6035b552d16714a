"""What a reader of an engine's log need not see."""

import re
import signal
from typing import Final

_NOISE: Final = re.compile(r"nanobind: | - leaked | - \.\.\. skipped|See https://nanobind")
# What torchrun adds once a rank has failed; it would fill the end of any log.
_LAUNCHER: Final = re.compile(r"[EWI]\d{4} [^\n]*torch/distributed/elastic/")


_KILLED: Final = re.compile(r"rank +: (\d+)[^\n]*\n\s*exitcode +: -(\d+) ")


def ended(code: int) -> str:
    """Say how a process ended: with which code, or by which signal."""
    if code >= 0:
        return f"ended with code {code}"
    known = {each.value: f" ({each.name})" for each in signal.Signals}
    return f"was ended by signal {-code}{known.get(-code, '')}"


def why(code: int | None) -> str:
    """Say what to do about an end that leaves no words in the log; else nothing."""
    if code != -signal.SIGKILL:
        return ""
    return (
        "SIGKILL that nobody sent is the kernel's, when the machine or the container is out of "
        "memory: see `dmesg`, and give it more."
    )


def killed(log: str) -> list[str]:
    """Name the ranks that a signal ended, as torchrun says: their own log ends in silence."""
    found = dict.fromkeys(_KILLED.findall(log))
    return [f"rank {rank} was ended by signal {number}" for rank, number in found]


def without_noise(log: str) -> str:
    """Drop what a library says at every exit, which would fill the end of any log."""
    return "\n".join(line for line in log.splitlines() if not _NOISE.match(line))


def of_ranks(log: str) -> str:
    """Drop what torchrun says of ranks that failed: it names everything but the cause."""
    return without_noise(_LAUNCHER.split(log)[0])
