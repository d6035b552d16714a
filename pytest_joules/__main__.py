"""``python -m pytest_joules``: the ``joules`` command of this very interpreter."""

from pytest_joules.cli import app

app(prog_name="joules")
