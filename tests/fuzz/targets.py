"""What is attacked: receivers, their genuine webhooks, and what they came to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from smsqueue import Gateway, IncomingMessage, OutgoingMessage, Settings
from smsqueue.providers.base import IProvider
from smsqueue.providers.forward import ForwardClientProvider, ForwardServerProvider
from smsqueue.providers.forward.auth import Signer
from smsqueue.testing.contract import PREFIX, PUBLIC_URL
from smsqueue.testing.examples import Examples, Received, Webhook
from smsqueue.testing.webhook_checks import Request, client_of, request_of
from tests.fuzz.mutations import TRAPS
from tests.providers.test_forged_webhooks import ALL as PROVIDERS
from tests.providers.test_incoming_senders import SIMULATOR, simulator_hook

__all__ = ["ADDRESS", "TARGETS", "Target", "facts"]

SECRET = "a secret that both sides know"
#: Settings with which a receiver knows its own address.
ADDRESS = {"public_url": PUBLIC_URL, "receiver_prefix": (PREFIX,)}


class Carrier(IProvider):
    """Takes every message."""

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        message.msgid = "c1"
        return message


class Target:
    """Receivers of one kind.

    Args:
        config: Of the provider.
        hooks: Genuine webhooks, which are signed as they say.
        signed: Do the webhooks have a signature?
    """

    def __init__(
        self, name: str, kind: type[Any], config: dict[str, Any], hooks: list[Webhook], signed: bool
    ) -> None:
        self.name, self.kind, self.config = name, kind, config
        self.hooks, self.signed = hooks, signed

    def add_to(self, gateway: Gateway) -> Any:
        """A client of the gateway's receivers, which have the provider."""
        if self.kind is ForwardServerProvider:
            gateway.add_provider("carrier", Carrier)
        gateway.add_provider("main", self.kind, **self.config)
        return client_of(gateway)

    def receiver(self) -> tuple[Any, list[Any]]:
        """A client of receivers that have seen nothing yet, and what they report."""
        gateway = Gateway(Settings(eager=True, **ADDRESS))
        heard: list[Any] = []
        gateway.onReceive += heard.append
        gateway.onStatus += heard.append
        gateway.onSend += heard.append
        return self.add_to(gateway), heard

    def genuine(self, random: Random) -> Request:
        """A genuine webhook, mostly with another text than its example."""
        hook = random.choice(self.hooks)
        text = random.choice(TRAPS) + random.choice(("", "hi", "\u00e9 &"))
        for each in hook.events:
            if isinstance(each, Received) and each.body and text and random.random() < 0.8:
                fields = {
                    how: _replaced(getattr(hook, how), each.body, text)
                    for how in ("form", "json")
                    if getattr(hook, how) is not None
                }
                hook = replace(hook, **fields)
        return request_of(hook)


def _replaced(value: Any, old: str, new: str) -> Any:
    """The value with another text wherever the old one stands."""
    if isinstance(value, dict):
        return {name: _replaced(each, old, new) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, old, new) for each in value]
    return new if value == old else copy.copy(value)


def facts(event: Any) -> tuple[Any, ...]:
    """What nobody may change of an event."""
    if isinstance(event, IncomingMessage):
        return ("in", event.src, event.body, event.dst, event.msgid, event.channel, event.media)
    if isinstance(event, OutgoingMessage):
        options = event.provider_options
        return ("out", event.src, event.dst, event.body, options.senderId, event.provider_params)
    told = (event.msgid, event.status, event.status_code, event.reference)
    return (type(event).__name__, *told)


def _of_examples(name: str, examples: Examples) -> Target:
    config = {"url": "http://127.0.0.1:9", **examples.config}
    signed = examples.provider.authenticates
    hooks = [hook for hook in examples.webhooks if (hook.sign is not None or not signed)]
    # Without an event there is nothing that could be changed.
    hooks = [hook for hook in hooks if hook.events]
    return Target(name, examples.provider, config, hooks, signed)


def _forwarded(purpose: str) -> Callable[..., dict[str, str]]:
    def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        return headers | Signer(SECRET).headers(purpose, body)

    return sign


def _forward_targets() -> list[Target]:
    message = {"src": "15550001", "body": "hi there", "dst": "777", "msgid": "m1"}
    status = {"class": "MessageDelivered", "msgid": "m1", "reference": "a.1", "status": "D"}
    received = [Received("15550001", "hi there", "777", "m1")]
    to_client = [
        Webhook(
            "incoming",
            "/im",
            received,
            json={"smsqueue": 1, "id": "e1", "message": message},
            sign=_forwarded("client/im"),
        ),
        Webhook(
            "status",
            "/status",
            [],
            json={"smsqueue": 1, "id": "e2", "status": status},
            sign=_forwarded("client/status"),
        ),
    ]
    sent = {"dst": "15550001", "body": "hi there", "src": "Shop"}
    to_server = [
        Webhook(
            "sending",
            "/im",
            received,
            json={"smsqueue": 1, "message": sent},
            sign=_forwarded("server/im"),
        )
    ]
    address = {"server_url": "http://127.0.0.1:9/", "secret": SECRET}
    return [
        Target("forward client", ForwardClientProvider, address, to_client, True),
        Target("forward server", ForwardServerProvider, {"clients": [], "secret": SECRET},
               to_server, True),
    ]  # fmt: skip


def _all() -> dict[str, Target]:
    found = [_of_examples(name, examples) for name, examples in PROVIDERS.items()]
    came = [Received("15551234567", "hi", "SHOP24", "1")]
    simulated = [replace(simulator_hook("15551234567"), events=came)]
    report = {"id": "p1", "reference": "m1.2", "state": "delivered", "code": 7}
    simulated.append(replace(simulated[0], path="/status", json=report))
    config = {"url": "http://127.0.0.1:9", **SIMULATOR.config}
    found.append(Target("simulator", SIMULATOR.provider, config, simulated, True))
    return {each.name: each for each in [*found, *_forward_targets()]}


TARGETS = _all()
