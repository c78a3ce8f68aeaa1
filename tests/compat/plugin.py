"""A plugin as they are written for smsframework; its ``send`` calls a function of the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import smsframework
from smsframework import exc
from smsframework.data import MessageDelivered, MessageStatus

from smsqueue import Gateway


class PluginError(exc.ProviderError):
    """Instantiates the subclass of a code, as published plugins do."""

    code: Any = None

    def __new__(cls, code: Any, text: str = "") -> Any:
        kind = next((c for c in cls.__subclasses__() if c.code == code), cls)
        return super().__new__(kind, code, text)

    def __init__(self, code: Any, text: str = "") -> None:
        self.code = code
        super().__init__(f"#{code}: {text}")


class NoMoney(PluginError, exc.CreditError):
    code = 7


class PluginStatus(MessageStatus):
    status = "(unknown)"

    @classmethod
    def of(cls, code: str, **fields: Any) -> Any:
        kind = next((c for c in cls.__subclasses__() if c.status_code == code), cls)
        return kind(**fields)


class Arrived(PluginStatus, MessageDelivered):
    status_code = "D"
    status = "arrived"


class Plugin(smsframework.IProvider):
    """Sets its own attributes before it calls the base class's constructor, as some do."""

    def __init__(
        self, gateway: Any, name: str, on_send: Callable[[Any], Any] = lambda message: message
    ) -> None:
        self._on_send = on_send
        self.messages: list[Any] = []
        super().__init__(gateway, name)

    def send(self, message: Any) -> Any:
        self.messages.append(message)
        return self._on_send(message)

    def balance(self, code: Any = None) -> str:
        """Part of the plugin's public API."""
        if code:
            raise PluginError(code, "unknown balance")
        return f"12.50 at {self.name}"

    def report_message(self, text: str) -> Any:
        return self._receive_message(smsframework.IncomingMessage("+1 555 0001", text, 42))

    def report_status(self, code: str, msgid: Any) -> Any:
        return self._receive_status(PluginStatus.of(code, msgid=msgid))


def add_plugin(gateway: Gateway, on_send: Any = None, *, name: str = "main") -> Any:
    """Add the plugin to a gateway."""
    return gateway.add_provider(name, Plugin, **({"on_send": on_send} if on_send else {}))
