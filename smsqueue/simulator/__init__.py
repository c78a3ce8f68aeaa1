"""A simulated carrier: accepts messages over HTTP as an SMS provider does, and posts delivery
reports and replies to webhooks. The recipient's number selects what happens to a message, see
:mod:`smsqueue.simulator.magic_numbers`.

    python -m smsqueue.simulator --port 8800 --webhook main=http://127.0.0.1:8000/PREFIX/main
"""

from smsqueue.simulator.magic_numbers import NUMBERS, Number, number_for
from smsqueue.simulator.server import Simulator, serve

__all__ = ["NUMBERS", "Number", "Simulator", "number_for", "serve"]
