"""Sphinx: pages in Markdown, reference from docstrings, declared options and commands."""

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from generated import command_page, options_page  # noqa: E402  needs the path above

from pytest_joules.version import __version__  # noqa: E402

project = "pytest-joules"
author = "The pytest-joules developers"
copyright = author  # noqa: A001  Sphinx's own name
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_custom_sections = ["Source"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pytest-joules {__version__}"
suppress_warnings = ["misc.highlighting_failure"]

_COLON = "\N{ARMENIAN FULL STOP}"
"""Stands for a colon while napoleon reads: text ahead of one would be a type."""


def _hidden(_app: object, what: str, _name: str, _thing: object, *rest: Any) -> None:
    lines = rest[-1]
    if what in ("attribute", "property"):
        lines[:] = [line.replace(": ", f"{_COLON} ") for line in lines]


def _shown(_app: object, _what: str, _name: str, _thing: object, *rest: Any) -> None:
    lines = rest[-1]
    lines[:] = [line.replace(f"{_COLON} ", ": ") for line in lines]


def setup(app: Sphinx) -> None:
    """Let docstrings of attributes be sentences; types stand in annotations."""
    app.connect("autodoc-process-docstring", _hidden, priority=400)  # napoleon is 500
    app.connect("autodoc-process-docstring", _shown, priority=600)


for name, page in (("options", options_page()), ("command", command_page())):
    path = HERE / "reference" / f"{name}.md"
    if not path.exists() or path.read_text(encoding="utf-8") != page:
        path.write_text(page, encoding="utf-8")
