"""A real browser, without a head and without a network."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

VARIABLE = "JOULES_BROWSER"


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} does not name a Chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  not in the test extra

    with sync_playwright() as playwright:
        # As root, which continuous integration often is, Chromium has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")
