"""Folders of another user, which a test that runs as root cannot have."""

import os
from pathlib import Path
from typing import Any

import pytest


def hide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing inside a folder be looked at, as in a private one of another user."""
    looked = os.stat

    def stat(path: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(path, str | Path) and folder in Path(path).absolute().parents:
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path, *rest, **options)

    monkeypatch.setattr(os, "stat", stat)
