"""``smsqueue demo`` and ``smsqueue dev``: everything at once, on this machine only."""

from smsqueue.demo.dev import run_dev
from smsqueue.demo.run import run

__all__ = ["run", "run_dev"]
