"""The gateway of demo and dev: two accounts of the carrier simulator, and an auto-reply."""

from __future__ import annotations

import os

from smsqueue import Gateway, IncomingMessage, MessageStatus, OutgoingMessage, RetryPolicy
from smsqueue.logs import get_logger
from smsqueue.message.masking import mask
from smsqueue.providers.simulator import SimulatorProvider
from smsqueue.providers.twilio import TwilioProvider
from smsqueue.settings import secret_text

__all__ = ["AUTO_REPLY", "clear_settings", "simulator", "twilio"]

log = get_logger("smsqueue.demo")

AUTO_REPLY = "Thank you, we will be in touch."


class _Simulator(SimulatorProvider):
    """With a short deadline: the simulator answers at once or never."""

    deadline = 4.0


class _Twilio(TwilioProvider):
    """Twilio's dialect of the simulator, with the same deadline."""

    deadline = 4.0


_URL = os.environ.get("SMSQUEUE_SIMULATOR_URL", "http://127.0.0.1:8081")
_TOKEN = secret_text(os.environ, "SMSQUEUE_SIMULATOR_TOKEN") or "simulator"


def _route(message: OutgoingMessage, kind: str = "") -> list[str]:
    return ["main", "backup"]


def _answer(gateway: Gateway, message: IncomingMessage) -> None:
    if not message.replyable:
        log.info("incoming from %s, which cannot receive SMS", mask(message.src))
        return
    log.info("incoming from %s: answering", mask(message.src))
    gateway.send(OutgoingMessage(message.src, AUTO_REPLY).options(status_report=True))


def _log_status(status: MessageStatus) -> None:
    log.debug("%s: %s", status.id, ", ".join(sorted(status.states)) or status.status)


def _make_gateway() -> Gateway:
    gateway = Gateway(
        retry=RetryPolicy(
            base=0.3, cap=2.0, pause=0.5, pause_max=2.0, slow_pause=0.5, slow_pause_max=2.0
        )
    )
    gateway.router = _route
    gateway.onReceive.connect(lambda message: _answer(gateway, message), name="demo:answer")
    gateway.onStatus.connect(_log_status, name="demo:status")
    return gateway


def clear_settings() -> None:
    """Remove the settings of other gateways from the environment of this process.

    Above all their accounts: the demo's auto-replies would be sent to real numbers.
    """
    for name in list(os.environ):
        if name.startswith("SMSQUEUE_") and name != "SMSQUEUE_REDIS_SERVER":
            del os.environ[name]


def simulator() -> Gateway:
    """Return the gateway that uses the simulator's own dialect."""
    gateway = _make_gateway()
    for account in ("main", "backup"):
        gateway.add_provider(
            account, _Simulator, url=_URL, account=account, token=_TOKEN, read_timeout=2.0
        )
    return gateway


def twilio() -> Gateway:
    """Return the gateway that uses Twilio's dialect."""
    gateway = _make_gateway()
    for account in ("main", "backup"):
        gateway.add_provider(
            account,
            _Twilio,
            url=_URL,
            account_sid=account,
            auth_token=_TOKEN,
            sender="15550009999",
            read_timeout=2.0,
        )
    return gateway


def __getattr__(name: str) -> Gateway:
    """Create ``gateway`` when it is first used."""
    if name != "gateway":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["gateway"] = simulator()
    gateway: Gateway = globals()["gateway"]
    return gateway
