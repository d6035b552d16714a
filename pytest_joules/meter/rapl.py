"""CPU and DRAM energy from Linux's powercap files (Intel's RAPL, AMD's too).

Reported beside the GPUs' energy, never added to it. Kernels since 5.10 let only root read
the files; where they cannot be read there is no figure, not a zero.
"""

from dataclasses import dataclass, field
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One counter: a CPU package or the memory behind it."""

    path: Path
    is_dram: bool
    wraps_at_uj: int
    """The counter starts again from zero here, on some machines every few minutes."""

    def read_uj(self) -> int:
        return int((self.path / "energy_uj").read_text(encoding="ascii"))


def domains(root: Path = POWERCAP) -> tuple[Domain, ...]:
    """Return the readable package and DRAM counters; none where there are no such files.

    Cores and graphics are parts of a package, and ``intel-rapl-mmio`` shows a package a
    second time: neither is counted.

    Raises:
        PermissionError: There are counters that this user may not read.
    """
    found = []
    for path in sorted(root.glob("intel-rapl:*")):
        name = (path / "name").read_text(encoding="ascii").strip()
        if name.startswith("package") or name == "dram":
            wraps_at_uj = int((path / "max_energy_range_uj").read_text(encoding="ascii"))
            found.append(Domain(path=path, is_dram=name == "dram", wraps_at_uj=wraps_at_uj))
            found[-1].read_uj()
    return tuple(found)


@dataclass
class Total:
    """Joules since the first update; update more often than the counters wrap."""

    domains: tuple[Domain, ...]
    _last_uj: dict[Path, int] = field(default_factory=dict)
    _drawn_uj: dict[Path, int] = field(default_factory=dict)

    def update(self) -> None:
        """Read every counter.

        Raises:
            OSError: One cannot be read any more.
        """
        for domain in self.domains:
            now_uj = domain.read_uj()
            grown_uj = now_uj - self._last_uj.get(domain.path, now_uj)
            if grown_uj < 0:
                grown_uj += domain.wraps_at_uj
            self._last_uj[domain.path] = now_uj
            self._drawn_uj[domain.path] = self._drawn_uj.get(domain.path, 0) + grown_uj

    def energy_j(self, *, dram: bool) -> float | None:
        """Joules of all packages or all DRAM; ``None`` without such a counter."""
        drawn = [self._drawn_uj[d.path] for d in self.domains if d.is_dram is dram]
        return sum(drawn) / 1e6 if drawn else None
