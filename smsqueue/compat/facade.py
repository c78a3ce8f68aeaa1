"""What a plugin sees of the gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from smsqueue.compat.classes import join
from smsqueue.compat.given import given
from smsqueue.message import messages, statuses
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.numbers import incoming_address

__all__ = ["Facade", "lent"]

#: What plugins report, by the names that smsframework has for it, too.
_OURS: dict[str, type] = {
    "IncomingMessage": messages.IncomingMessage,
    **{name: getattr(statuses, name) for name in statuses.__all__},
}


class Facade:
    """The gateway as smsframework's plugins know it; what it lacks is asked of the real one.

    Args:
        data: The module that the plugin's messages come from; None if they are ours.
    """

    def __init__(self, gateway: Any, data: ModuleType | None) -> None:
        self._gateway = gateway
        self._data = data
        self.onSend = _Hook(gateway, "onSend", "onSend", data)
        self.onReceive = _Hook(gateway, "onReceive", "receive_message", data)
        self.onStatus = _Hook(gateway, "onStatus", "receive_status", data)

    def receive_message(self, message: Any) -> None:
        self.onReceive(message)

    def receive_status(self, status: Any) -> None:
        self.onStatus(status)

    def send(self, message: Any) -> Any:
        """Send a message of the plugin's class; it is noted there what became of it."""
        if isinstance(message, OutgoingMessage):
            return self._gateway.send(message)
        dst = given(message, "dst")
        ours = OutgoingMessage(dst, message.body, message.src, message.provider)
        ours.options(**vars(message.provider_options)).params(**message.provider_params)
        ours.routing_values = message.routing_values
        self._gateway.send(ours)
        message.id, message.provider = ours.id, ours.provider
        message.msgid, message.meta = ours.msgid, ours.meta
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)


class _Hook:
    """A hook of the gateway: calling it reports, and handlers get objects of their own classes."""

    def __init__(self, gateway: Any, name: str, report: str, data: ModuleType | None) -> None:
        self._gateway, self._name, self._report, self._data = gateway, name, report, data

    def __call__(self, thing: Any) -> None:
        getattr(self._gateway, self._report)(_adopted(thing))

    def __iadd__(self, handler: Callable[[Any], Any]) -> _Hook:
        getattr(self._gateway, self._name).connect(_Handler(handler, self._data))
        return self

    def __isub__(self, handler: Callable[[Any], Any]) -> _Hook:
        getattr(self._gateway, self._name).disconnect(_Handler(handler, self._data))
        return self


@dataclass(frozen=True)
class _Handler:
    """A plugin's handler. Its name in the ledger is taken from ``func``."""

    func: Callable[[Any], Any]
    data: ModuleType | None

    def __call__(self, thing: Any) -> Any:
        return self.func(lent(thing, self.data))


def lent(thing: Any, data: ModuleType | None) -> Any:
    """One of our objects, which now is of the plugin's class of the same name, too."""
    ours = [each for each in type(thing).__mro__ if each.__module__.startswith("smsqueue.")]
    names = [each.__name__ for each in ours]
    theirs = next((getattr(data, name) for name in names if hasattr(data, name)), None)
    return thing if theirs is None else join(thing, theirs)


def _adopted(thing: Any) -> Any:
    """What a plugin reports, which now is of our class of the same name, too.

    The nearest one: plugins override the fields of a status in subclasses of their own.
    """
    names = [each.__name__ for each in type(thing).__mro__]
    ours = next((_OURS[name] for name in names if name in _OURS), None)
    if ours is messages.IncomingMessage:
        thing.src, thing.dst = given(thing, "src"), given(thing, "dst")
        thing.src, thing.dst = incoming_address(thing.src), incoming_address(thing.dst) or None
    return thing if ours is None else join(thing, ours)
