"""Providers that were written for smsframework, on our gateway."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue.compat.errors import guarded
from smsqueue.compat.facade import Facade, lent
from smsqueue.compat.given import remember_addresses
from smsqueue.message.messages import OutgoingMessage
from smsqueue.providers.base import IProvider

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["DEADLINE", "adapted"]

#: Plugins' calls have no time-out. The system gives up on a peer that does not acknowledge what
#: was written after about 15 minutes; only one that acknowledges and never answers takes longer.
DEADLINE = 1200.0


def adapted(Provider: type, *, plugin: bool = False) -> type[IProvider]:
    """A provider class that our gateway can use: the same, if it is one of ours.

    A plugin of smsframework becomes a subclass of itself and of our IProvider.

    Args:
        plugin: It was written for smsframework, though it derives from our IProvider: of an
            application's own providers nothing else tells, where ``import smsframework`` means us.
    """
    theirs = _interface(Provider)
    if theirs is None and plugin and not issubclass(Provider, _Adapted):
        theirs = IProvider
    return Provider if theirs is None else _adapter(Provider, theirs)


def _interface(Provider: object) -> type | None:
    """The IProvider that a plugin derives from; None if the class is not a plugin.

    Smsframework's own, found without importing it. Or ours, if ``import smsframework`` means
    us: a plugin is then known by its package's name.
    """
    if not isinstance(Provider, type) or issubclass(Provider, _Adapted):
        return None
    homes = {each.__module__.partition(".")[0] for each in Provider.__mro__}
    for each in Provider.__mro__:
        if each.__name__ == "IProvider" and each.__module__.partition(".")[0] == "smsframework":
            return each
    if issubclass(Provider, IProvider) and any(home.startswith("smsframework_") for home in homes):
        return IProvider
    return None


class _Adapted(IProvider if TYPE_CHECKING else object):  # type: ignore[misc]
    """What is put before a plugin's own methods."""

    #: The module with the plugin's message classes; None if they are ours.
    _data: ClassVar[ModuleType | None] = None

    def __init__(self, gateway: Any, name: str, **config: Any) -> None:
        super().__init__(Facade(gateway, self._data), name, **config)

    @guarded
    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        with _handed_over(message, self._data):
            sent = super().send(message)
        if sent is not None and sent is not message:
            message.msgid, message.meta = sent.msgid, sent.meta
        return message

    def make_receiver_blueprint(self) -> Blueprint:
        from smsqueue.compat.receiving import around

        return around(super().make_receiver_blueprint())


@contextmanager
def _handed_over(message: OutgoingMessage, data: ModuleType | None) -> Iterator[None]:
    """Lend a message to a plugin, which may do with it what it likes.

    The sender gets back the parameters and options that he gave, and after an error all that he
    gave: the next provider of the route, or the next attempt, must not find what this one left.
    """
    kind, fields, params = type(message), dict(vars(message)), message.provider_params
    asked = vars(message.provider_options)
    options = dict(asked)
    message.provider_params = dict(params)
    if asked.get("expires") is not None:
        asked["expires"] = ceil(asked["expires"])  # smsframework knows whole minutes only
    try:
        yield lent(message, data)
    except BaseException:
        vars(message).clear()
        vars(message).update(fields)
        raise
    finally:
        asked.clear()
        asked.update(options)
        message.provider_params = params
        message.__class__ = kind


@cache
def _adapter(Provider: type, theirs: type) -> type[IProvider]:
    package = theirs.__module__.partition(".")[0]
    # Loaded already: smsframework imports it itself.
    data = None if theirs is IProvider else sys.modules.get(f"{package}.data")
    if data is not None:
        remember_addresses(data)
    own = [each for each in Provider.__mro__ if each not in (object, theirs, IProvider)]
    fields: dict[str, Any] = {
        "__module__": Provider.__module__,
        "__qualname__": Provider.__qualname__,
        "__doc__": Provider.__doc__,
        "_data": data,
        # Those that smsframework has count their message ids anew in each process.
        "unique_msgids": not any(each.__module__ == "smsframework.providers.null" for each in own),
        "deadline": DEADLINE,
    }
    for each in reversed(own):
        for name, value in vars(each).items():
            if name in ("deadline", "unique_msgids", "through_http_layer"):
                fields[name] = value
            elif isinstance(value, FunctionType) and not name.startswith("_"):
                fields[name] = guarded(value)
            elif not name.startswith("_"):  # it may stand for a method of a base class
                fields.pop(name, None)
    for name in ("send", "make_receiver_blueprint"):
        fields.pop(name, None)
    bases: tuple[type, ...] = (_Adapted, Provider)
    if not issubclass(Provider, IProvider):
        bases += (IProvider,)
    made: type[IProvider] = types.new_class(
        Provider.__name__, bases, {}, lambda namespace: namespace.update(fields)
    )
    return made
