"""The gateway of demo and dev: two accounts at the carrier simulator, and an auto-reply."""

from __future__ import annotations

import os

from smsqueue import Gateway, IncomingMessage, MessageStatus, OutgoingMessage, RetryPolicy
from smsqueue.logs import get_logger
from smsqueue.message.masking import mask
from smsqueue.providers.simulator import SimulatorProvider
from smsqueue.providers.twilio import TwilioProvider
from smsqueue.settings import secret_text

__all__ = ["AUTO_REPLY", "simulator", "twilio"]

log = get_logger("smsqueue.demo")

AUTO_REPLY = "Thank you, we will be in touch."


class _Account(SimulatorProvider):
    """The simulator answers at once or never, so that nobody has to wait for a minute."""

    deadline = 4.0


class _Twilio(TwilioProvider):
    """Twilio, as the simulator plays it."""

    deadline = 4.0


_URL = os.environ.get("SMSQUEUE_SIMULATOR_URL", "http://127.0.0.1:8081")
_TOKEN = secret_text(os.environ, "SMSQUEUE_SIMULATOR_TOKEN") or "simulator"


def _route(message: OutgoingMessage, kind: str = "") -> list[str]:
    return ["main", "backup"]


def _answer(gateway: Gateway, message: IncomingMessage) -> None:
    if not message.replyable:
        log.info("incoming from %s, which takes no SMS", mask(message.src))
        return
    log.info("incoming from %s: answering", mask(message.src))
    gateway.send(OutgoingMessage(message.src, AUTO_REPLY).options(status_report=True))


def _status(status: MessageStatus) -> None:
    log.info("%s: %s", status.id, ", ".join(sorted(status.states)) or status.status)


def _made() -> Gateway:
    made = Gateway(
        retry=RetryPolicy(
            base=0.3, cap=2.0, pause=0.5, pause_max=2.0, slow_pause=0.5, slow_pause_max=2.0
        )
    )
    made.router = _route
    made.onReceive.connect(lambda message: _answer(made, message), name="demo:answer")
    made.onStatus.connect(_status, name="demo:status")
    return made


def simulator() -> Gateway:
    """The gateway that sends in the simulator's own dialect."""
    made = _made()
    for account in ("main", "backup"):
        made.add_provider(
            account, _Account, url=_URL, account=account, token=_TOKEN, read_timeout=2.0
        )
    return made


def twilio() -> Gateway:
    """The gateway that sends in Twilio's."""
    made = _made()
    for account in ("main", "backup"):
        made.add_provider(
            account,
            _Twilio,
            url=_URL,
            account_sid=account,
            auth_token=_TOKEN,
            sender="15550009999",
            read_timeout=2.0,
        )
    return made


def __getattr__(name: str) -> Gateway:
    """``gateway`` is made when it is asked for."""
    if name != "gateway":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["gateway"] = simulator()
    found: Gateway = globals()["gateway"]
    return found
