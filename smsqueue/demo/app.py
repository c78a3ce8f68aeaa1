"""The gateway of demo and dev: two accounts at the carrier simulator, and an auto-reply."""

from __future__ import annotations

import logging
import os

from smsqueue import Gateway, IncomingMessage, MessageStatus, OutgoingMessage, RetryPolicy
from smsqueue.masking import mask
from smsqueue.providers.simulator import SimulatorProvider

__all__ = ["AUTO_REPLY", "gateway"]

log = logging.getLogger("smsqueue.demo")

AUTO_REPLY = "Thank you, we will be in touch."


class _Account(SimulatorProvider):
    """The simulator answers at once or never, so that nobody has to wait for a minute."""

    deadline = 4.0


gateway = Gateway(
    retry=RetryPolicy(
        base=0.3, cap=2.0, pause=0.5, pause_max=2.0, slow_pause=0.5, slow_pause_max=2.0
    )
)

for _account in ("main", "backup"):
    gateway.add_provider(
        _account,
        _Account,
        url=os.environ.get("SMSQUEUE_SIMULATOR_URL", "http://127.0.0.1:8081"),
        account=_account,
        token=os.environ.get("SMSQUEUE_SIMULATOR_TOKEN", "simulator"),
        read_timeout=2.0,
    )


def _route(message: OutgoingMessage, kind: str = "") -> list[str]:
    return ["main", "backup"]


def _answer(message: IncomingMessage) -> None:
    log.info("incoming from %s: answering", mask(message.src))
    gateway.send(OutgoingMessage(message.src, AUTO_REPLY).options(status_report=True))


def _status(status: MessageStatus) -> None:
    log.info("%s: %s", status.id, ", ".join(sorted(status.states)) or status.status)


gateway.router = _route
gateway.onReceive.connect(_answer, name="demo:answer")
gateway.onStatus.connect(_status, name="demo:status")
