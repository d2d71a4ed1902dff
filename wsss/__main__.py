"""``python -m wsss``."""

from wsss.cli.start import run

run()
