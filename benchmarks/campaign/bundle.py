"""Wheels for a machine without network: exactly those that it lacks, and how to install them.

Needs are followed from this clone and diffusers, wheel by wheel, for the machine's Python and
platform; what the machine has is taken as it is, unless its version is known not to do.
``install.sh`` lets pip check that all fits.
"""

import subprocess
import sys
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
GLIBC = (40, 39, 38, 35, 34, 31, 28, 27, 24, 17, 12, 5)
"""Newest first; pip takes only the very tags that it is given."""

BESIDE = ("diffusers",)
"""What the campaign needs beside the plugin; torch and transformers must be there."""

INSTALL = "install.sh"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is known of the machine."""

    installed: Mapping[str, str]
    """Versions by canonical name; empty where only the name is known."""

    python: str = "3.12"
    glibc_minor: int = 39

    def tags(self) -> list[str]:
        """Return pip's options that ask for this machine's wheels."""
        minors = [minor for minor in GLIBC if minor <= self.glibc_minor]
        platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in minors]
        named = ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"]
        interpreter = [f"--python-version={self.python}", "--implementation=cp"]
        return ["--only-binary=:all:", *interpreter, *platforms, *named]

    def has(self, wanted: Requirement) -> bool:
        """Tell whether what is installed will do; a version that is not known is trusted."""
        version = self.installed.get(canonicalize_name(wanted.name))
        return version is not None and (
            not version or wanted.specifier.contains(version, prereleases=True)
        )

    def needs(self, requires: Sequence[str], extras: Collection[str] = ()) -> list[Requirement]:
        """Return what of some ``Requires-Dist`` lines holds on this machine."""
        where = {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        asked = [Requirement(line) for line in requires]
        return [
            each
            for each in asked
            if each.marker is None
            or any(each.marker.evaluate({**where, "extra": e}) for e in ("", *extras))
        ]


def installed_from(text: str) -> dict[str, str]:
    """Read ``pip freeze``, or names apart by white space or commas.

    >>> installed_from("torch==2.11.0+cu130\\nRich, PyYAML")
    {'torch': '2.11.0+cu130', 'rich': '', 'pyyaml': ''}
    """
    found = {}
    for line in text.splitlines():
        bare = line.partition(" @ ")[0].partition("#")[0]
        for word in bare.replace(",", " ").split():
            name, _, version = word.partition("==")
            if name[0].isalnum():
                found[canonicalize_name(name)] = version
    return found


def collect(target: Path, machine: Machine, *, limit_mib: float) -> list[Path]:
    """Fill a folder with the wheels that a machine lacks, and with ``install.sh``.

    Raises:
        ValueError: They are larger than the limit; tells the largest.
        subprocess.CalledProcessError: pip found no wheel for the machine, and said which.
    """
    target.mkdir(parents=True)
    _pip("wheel", "--no-deps", f"--wheel-dir={target}", str(ROOT))
    (own,) = target.glob("*.whl")
    carried = {"pytest-joules"}
    waiting = [*machine.needs(_requires(own)), *map(Requirement, BESIDE)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in carried or machine.has(wanted):
            continue
        carried.add(name)
        wheel = _downloaded(wanted, target, machine)
        waiting += machine.needs(_requires(wheel), wanted.extras)
    wheels = sorted(target.glob("*.whl"), key=lambda path: -path.stat().st_size)
    require_small(wheels, limit_mib)
    asked = " ".join([f'"$here/{own.name}"', *BESIDE])
    (target / INSTALL).write_text(
        "# Usage: sh install.sh [PYTHON]; from these files only, nothing is fetched.\n"
        'here=$(cd "$(dirname "$0")" && pwd)\n'
        f'"${{1:-python3}}" -m pip install --no-index --find-links="$here" {asked}\n',
        encoding="utf-8",
    )
    return wheels


def _downloaded(wanted: Requirement, target: Path, machine: Machine) -> Path:
    before = set(target.glob("*.whl"))
    asked = f"{wanted.name}{wanted.specifier}"
    _pip("download", "--no-deps", f"--dest={target}", *machine.tags(), asked)
    (wheel,) = set(target.glob("*.whl")) - before
    return wheel


def _requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        told = HeaderParser().parsestr(archive.read(name).decode())
    return told.get_all("Requires-Dist") or []


def require_small(wheels: Sequence[Path], limit_mib: float) -> None:
    """Refuse more than may be carried.

    Raises:
        ValueError: Tells the largest.
    """
    total = sum(path.stat().st_size for path in wheels) / 2**20
    if total > limit_mib:
        most = ", ".join(f"{p.name} {p.stat().st_size / 2**20:.1f}" for p in wheels[:5])
        raise ValueError(f"{total:.1f} MiB of wheels, but {limit_mib:g} are allowed: {most}.")


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True)
