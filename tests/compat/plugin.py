"""A plugin as people write them for smsframework; each test says what its ``send`` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import smsframework
from smsframework import exc
from smsframework.data import MessageDelivered, MessageStatus

from smsqueue import Gateway


class PluginError(exc.ProviderError):
    """Makes the class that a code stands for, as published plugins do."""

    code: Any = None

    def __new__(cls, code: Any, text: str = "") -> Any:
        kind = next((each for each in cls.__subclasses__() if each.code == code), cls)
        return super().__new__(kind, code, text)

    def __init__(self, code: Any, text: str = "") -> None:
        self.code = code
        super().__init__(f"#{code}: {text}")


class NoMoney(PluginError, exc.CreditError):
    code = 7


class PluginStatus(MessageStatus):
    status = "(unknown)"

    @classmethod
    def of(cls, code: str, **known: Any) -> Any:
        kind = next((each for each in cls.__subclasses__() if each.status_code == code), cls)
        return kind(**known)


class Arrived(PluginStatus, MessageDelivered):
    status_code = "D"
    status = "arrived"


class Plugin(smsframework.IProvider):
    """Its own attributes come before the base class's constructor."""

    def __init__(
        self, gateway: Any, name: str, does: Callable[[Any], Any] = lambda message: message
    ) -> None:
        self._does = does
        self.seen: list[Any] = []
        super().__init__(gateway, name)

    def send(self, message: Any) -> Any:
        self.seen.append(message)
        return self._does(message)

    def balance(self, code: Any = None) -> str:
        """Part of the plugin's public API."""
        if code:
            raise PluginError(code, "cannot tell")
        return f"12.50 at {self.name}"

    def hear(self, text: str) -> Any:
        return self._receive_message(smsframework.IncomingMessage("+1 555 0001", text, 42))

    def tell(self, code: str, msgid: Any) -> Any:
        return self._receive_status(PluginStatus.of(code, msgid=msgid))


def add(gateway: Gateway, does: Any = None, *, name: str = "main") -> Any:
    """The plugin, added to a gateway."""
    return gateway.add_provider(name, Plugin, **({"does": does} if does else {}))
