"""Wheels for a machine without network: exactly those that it lacks, and how to install them.

pip resolves what this clone and diffusers need for the machine's Python and platform, held to
the versions that the machine has; what it has is left out, the rest is downloaded.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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

    def constraints(self) -> str:
        """Return pip's constraints; local versions are no public release to hold to."""
        held = {n: v for n, v in self.installed.items() if v and "+" not in v}
        return "".join(f"{name}=={version}\n" for name, version in held.items())


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


def missing(resolved: Mapping[str, str], installed: Mapping[str, str]) -> dict[str, str]:
    """Return what the machine lacks of what is needed, by name."""
    return {name: version for name, version in resolved.items() if name not in installed}


def collect(target: Path, machine: Machine, *, limit_mib: float) -> list[Path]:
    """Fill a folder with the wheels that a machine lacks, and with ``install.sh``.

    Raises:
        ValueError: They are larger than the limit; tells the largest.
        subprocess.CalledProcessError: pip found no wheel for the machine, and said which.
    """
    target.mkdir(parents=True)
    _pip("wheel", "--no-deps", f"--wheel-dir={target}", str(ROOT))
    (own,) = target.glob("*.whl")
    lacking = missing(_resolved([str(own), *BESIDE], machine), machine.installed)
    wanted = [f"{n}=={v}" for n, v in lacking.items() if n != "pytest-joules"]
    _pip("download", "--no-deps", f"--dest={target}", *machine.tags(), *wanted)
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


def _resolved(asked: Sequence[str], machine: Machine) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        held, told = Path(folder) / "held.txt", Path(folder) / "told.json"
        held.write_text(machine.constraints(), encoding="utf-8")
        place = f"--target={folder}/nowhere"  # pip wants one for a foreign platform
        options = ["--dry-run", "--ignore-installed", f"--report={told}", f"-c{held}", place]
        _pip("install", *options, *machine.tags(), *asked)
        report = json.loads(told.read_text(encoding="utf-8"))
    both = [each["metadata"] for each in report["install"]]
    return {canonicalize_name(each["name"]): each["version"] for each in both}


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
