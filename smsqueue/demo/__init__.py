"""``smsqueue demo`` and ``smsqueue dev``: all processes on this machine, a simulated carrier."""

from smsqueue.demo.dev import run_dev
from smsqueue.demo.run import run

__all__ = ["run", "run_dev"]
