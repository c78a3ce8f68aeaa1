"""A carrier that is none: it takes messages over HTTP as an SMS provider does, and posts
delivery reports and replies back. The number that a message goes to decides what happens,
see :mod:`smsqueue.simulator.numbers`.

    python -m smsqueue.simulator --port 8800 --webhook main=http://127.0.0.1:8000/PREFIX/main
"""

from smsqueue.simulator.numbers import NUMBERS, Number, number_for
from smsqueue.simulator.server import Simulator, serve

__all__ = ["NUMBERS", "Number", "Simulator", "number_for", "serve"]
