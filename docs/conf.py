"""Sphinx: pages in Markdown, reference from docstrings, declared options and commands."""

import sys
from pathlib import Path

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

for name, page in (("options", options_page()), ("command", command_page())):
    path = HERE / "reference" / f"{name}.md"
    if not path.exists() or path.read_text(encoding="utf-8") != page:
        path.write_text(page, encoding="utf-8")
