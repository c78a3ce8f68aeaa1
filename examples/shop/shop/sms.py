"""The shop's gateway: its providers, who sends what, and what happens to what comes back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from shop.codes import VALID_MINUTES, Code, Codes
from smsqueue import Gateway, IncomingMessage, MessageStatus, OutgoingMessage, Settings
from smsqueue.providers import LogProvider
from smsqueue.providers.simulator import SimulatorProvider

__all__ = ["code_message", "make_gateway"]

log = logging.getLogger(__name__)

STOPPED = "You will get no more messages from us. Answer START to change that."
STARTED = "Welcome back."
HELP = "This is the shop. Answer STOP to get no more messages."


def make_gateway(config: Mapping[str, Any], codes: Codes) -> Gateway:
    """The gateway of one process, be it a web server, a worker or the receivers."""
    gateway = Gateway(Settings.from_mapping(config))
    for name in ("primary", "backup"):
        if config["SIMULATOR_URL"]:
            url, token = config["SIMULATOR_URL"], str(config["SIMULATOR_TOKEN"])
            gateway.add_provider(name, SimulatorProvider, url=url, account=name, token=token)
        else:  # for trying it out: real numbers and codes do not belong in logs
            gateway.add_provider(name, LogProvider, show_body=True)
    gateway.router = route
    handlers = Handlers(gateway, codes)
    gateway.onReceive.connect(handlers.on_receive, name="shop:receive")
    gateway.onStatus.connect(handlers.on_status, name="shop:status")
    return gateway


def code_message(code: Code) -> OutgoingMessage:
    """The message that brings a code. Sending it again for the same click sends nothing."""
    message = OutgoingMessage(code.number, f"Your code for the shop is {code.digits}")
    return message.route("otp").options(
        status_report=True,
        expires=VALID_MINUTES,  # later it would only confuse
        idempotency_key=f"code/{code.id}",
        context={"code": code.id},
    )


def route(message: OutgoingMessage, kind: str) -> list[str] | None:
    """A code may go out over either provider, the rest over the default one."""
    return ["primary", "backup"] if kind == "otp" else None


class Handlers:
    """What runs in the workers. Handlers may run twice: these do no harm then."""

    def __init__(self, gateway: Gateway, codes: Codes) -> None:
        self.gateway, self.codes = gateway, codes

    def on_receive(self, message: IncomingMessage) -> None:
        """Somebody answered. Only known words are answered in turn: two robots must not chat."""
        if not message.replyable:
            log.info("%s: its sender takes no SMS", message.id)
            return
        match message.body.strip().upper():
            case "STOP":
                self.codes.stop(message.src)
                text = STOPPED
            case "START":
                self.codes.start(message.src)
                text = STARTED
            case "HELP":
                text = HELP
            case _:
                log.info("%s: not a word that we know", message.id)
                return
        self.gateway.send(OutgoingMessage(message.src, text))

    def on_status(self, status: MessageStatus) -> None:
        """A code arrived, or will not. Other messages have no code, and nobody waits for them."""
        code = status.context.get("code", "")
        if status.delivered:
            self.codes.note(code, "delivered")
        elif status.error or status.expired:
            self.codes.note(code, "failed")
