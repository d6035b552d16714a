"""Processes that tests look for after they should have ended."""

from pathlib import Path


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that only waits for init to reap it does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
