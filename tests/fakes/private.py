"""Folders of another user, which a test that runs as root cannot have."""

from pathlib import Path
from typing import Any

import pytest


def hide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing inside a folder be looked at, as in a private one of another user."""
    looked = Path.stat

    def stat(self: Path, **options: Any) -> Any:
        if folder in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return looked(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
