"""``python -m wsss``."""

from wsss.cli.main import run

run()
