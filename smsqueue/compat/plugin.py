"""Adapts provider plugins that were written for smsframework.

The adapted class is a subclass of the plugin's class and of our IProvider. Its gateway has
smsframework's interface, messages and reports are instances of the plugin's classes too, and the
requests of its webhooks have a charset that can be set.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import ceil
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl

from smsqueue.compat.combined_classes import add_class, combined_class
from smsqueue.compat.error_translation import translating_errors
from smsqueue.lib import digits_only
from smsqueue.message import messages, statuses
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.numbers import incoming_address
from smsqueue.providers.base import IProvider

if TYPE_CHECKING:
    from flask import Blueprint, Request
    from werkzeug.datastructures import ImmutableMultiDict

__all__ = ["adapted"]

#: Seconds. Plugins call without a timeout. The operating system gives up on a peer that does not
#: acknowledge what was written after about 15 minutes; only a peer that acknowledges and never
#: answers takes longer.
_DEADLINE = 1200.0
#: Our classes of what plugins report, by name; smsframework's have the same names.
_REPORTED_CLASSES: dict[str, type] = {
    "IncomingMessage": messages.IncomingMessage,
    **{name: getattr(statuses, name) for name in statuses.__all__},
}
#: Constructor arguments of smsframework's messages that hold addresses.
_ADDRESSES = {"IncomingMessage": ("src", "dst"), "OutgoingMessage": ("dst",)}
#: Attribute of a plugin's message with the addresses as they were passed to its constructor.
_KEPT_ADDRESSES = "_smsqueue_addresses"
#: Plugins whose views decode texts themselves, from the bytes that Latin-1 preserves.
_DECODING_PLUGINS = ("smsframework_clickatell",)


def adapted(Provider: type, *, plugin: bool = False) -> type[IProvider]:
    """A provider class for our gateway; our own classes are returned as they are.

    Args:
        plugin: The class was written for smsframework although it derives from our IProvider.
            Needed for an application's own providers if ``install_as_smsframework()`` was called:
            nothing in such a class shows it.
    """
    interface = _plugin_interface(Provider)
    if interface is None and plugin and not issubclass(Provider, _AdaptedProvider):
        interface = IProvider
    return Provider if interface is None else _adapt(Provider, interface)


def _plugin_interface(Provider: object) -> type | None:
    """The IProvider that a plugin derives from; None if the class is not a plugin.

    It is smsframework's, recognized without importing it, or ours, if ``import smsframework``
    imports smsqueue: plugins are then recognized by the name of their package.
    """
    if not isinstance(Provider, type) or issubclass(Provider, _AdaptedProvider):
        return None
    packages = {base.__module__.partition(".")[0] for base in Provider.__mro__}
    for base in Provider.__mro__:
        if base.__name__ == "IProvider" and base.__module__.partition(".")[0] == "smsframework":
            return base
    if issubclass(Provider, IProvider) and any(p.startswith("smsframework_") for p in packages):
        return IProvider
    return None


class _AdaptedProvider(IProvider if TYPE_CHECKING else object):  # type: ignore[misc]
    """Methods that come before the plugin's own."""

    #: The module with the plugin's message classes; None if they are ours.
    _data: ClassVar[ModuleType | None] = None

    def __init__(self, gateway: Any, name: str, **config: Any) -> None:
        super().__init__(PluginGateway(gateway, self._data), name, **config)

    @translating_errors
    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        with _lent_message(message, self._data) as lent:
            sent = super().send(lent)
        if sent is not None and sent is not message:
            message.msgid, message.meta = sent.msgid, sent.meta
        return message

    def make_receiver_blueprint(self) -> Blueprint:
        return _wrap_blueprint(super().make_receiver_blueprint())


@cache
def _adapt(Provider: type, interface: type) -> type[IProvider]:
    package = interface.__module__.partition(".")[0]
    # smsframework itself imports its data module, so it is loaded.
    data = None if interface is IProvider else sys.modules.get(f"{package}.data")
    if data is not None:
        _keep_addresses(data)
    own = [base for base in Provider.__mro__ if base not in (object, interface, IProvider)]
    fields: dict[str, Any] = {
        "__module__": Provider.__module__,
        "__qualname__": Provider.__qualname__,
        "__doc__": Provider.__doc__,
        "_data": data,
        # smsframework's bundled providers count message ids from 1 in each process.
        "unique_msgids": not any(base.__module__ == "smsframework.providers.null" for base in own),
        "deadline": _DEADLINE,
    }
    for base in reversed(own):
        for name, value in vars(base).items():
            if name in ("deadline", "unique_msgids", "through_http_layer"):
                fields[name] = value
            elif isinstance(value, FunctionType) and not name.startswith("_"):
                fields[name] = translating_errors(value)
            elif not name.startswith("_"):  # it may replace a method of a base class
                fields.pop(name, None)
    for name in ("send", "make_receiver_blueprint"):
        fields.pop(name, None)
    bases: tuple[type, ...] = (_AdaptedProvider, Provider)
    if not issubclass(Provider, IProvider):
        bases += (IProvider,)
    adapter: type[IProvider] = types.new_class(
        Provider.__name__, bases, {}, lambda namespace: namespace.update(fields)
    )
    return adapter


# --- The gateway as plugins know it --------------------------------------------------------------


class PluginGateway:
    """A gateway with smsframework's interface; other attributes are those of the real gateway.

    Args:
        data: The module with the plugin's message classes; None if they are ours.
    """

    def __init__(self, gateway: Any, data: ModuleType | None) -> None:
        self._gateway = gateway
        self._data = data
        self.onSend = _PluginHook(gateway, "onSend", "onSend", data)
        self.onReceive = _PluginHook(gateway, "onReceive", "receive_message", data)
        self.onStatus = _PluginHook(gateway, "onStatus", "receive_status", data)

    def receive_message(self, message: Any) -> None:
        self.onReceive(message)

    def receive_status(self, status: Any) -> None:
        self.onStatus(status)

    def send(self, message: Any) -> Any:
        """Send a message of smsframework's class, and set its ids, provider and meta."""
        if isinstance(message, OutgoingMessage):
            return self._gateway.send(message)
        dst = _original_address(message, "dst")
        ours = OutgoingMessage(dst, message.body, message.src, message.provider)
        ours.options(**vars(message.provider_options)).params(**message.provider_params)
        ours.routing_values = message.routing_values
        self._gateway.send(ours)
        message.id, message.provider = ours.id, ours.provider
        message.msgid, message.meta = ours.msgid, ours.meta
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)


class _PluginHook:
    """A hook of the gateway: plugins report by calling it, and connect handlers with ``+=``."""

    def __init__(self, gateway: Any, name: str, reporter: str, data: ModuleType | None) -> None:
        self._gateway, self._name, self._reporter, self._data = gateway, name, reporter, data

    def __call__(self, obj: Any) -> None:
        getattr(self._gateway, self._reporter)(_as_ours(obj))

    def __iadd__(self, handler: Callable[[Any], Any]) -> _PluginHook:
        getattr(self._gateway, self._name).connect(_PluginHandler(handler, self._data))
        return self

    def __isub__(self, handler: Callable[[Any], Any]) -> _PluginHook:
        getattr(self._gateway, self._name).disconnect(_PluginHandler(handler, self._data))
        return self


@dataclass(frozen=True)
class _PluginHandler:
    """Calls a plugin's handler with objects of the plugin's classes.

    The ledger names a handler after its attribute ``func``.
    """

    func: Callable[[Any], Any]
    data: ModuleType | None

    def __call__(self, obj: Any) -> Any:
        return self.func(_as_theirs(obj, self.data))


# --- Messages and reports ------------------------------------------------------------------------


@contextmanager
def _lent_message(message: OutgoingMessage, data: ModuleType | None) -> Iterator[Any]:
    """A message for a plugin, which may change it.

    Afterwards it has the caller's parameters and options again, and after an error all of the
    caller's attributes: the next provider or attempt must not see what this one changed.
    """
    message_class, fields, params = type(message), dict(vars(message)), message.provider_params
    options_set = vars(message.provider_options)
    options = dict(options_set)
    message.provider_params = dict(params)
    if options_set.get("expires") is not None:
        options_set["expires"] = ceil(options_set["expires"])  # smsframework has whole minutes
    try:
        yield _as_theirs(message, data)
    except BaseException:
        vars(message).clear()
        vars(message).update(fields)
        raise
    finally:
        options_set.clear()
        options_set.update(options)
        message.provider_params = params
        message.__class__ = message_class


def _as_theirs(obj: Any, data: ModuleType | None) -> Any:
    """Make one of our objects an instance of the plugin's class of the same name too."""
    ours = [base for base in type(obj).__mro__ if base.__module__.startswith("smsqueue.")]
    names = [base.__name__ for base in ours]
    theirs = next((getattr(data, name) for name in names if hasattr(data, name)), None)
    return obj if theirs is None else add_class(obj, theirs)


def _as_ours(obj: Any) -> Any:
    """Make an object that a plugin reports an instance of our class of the same name too.

    The nearest base class counts: plugins subclass the statuses to override their fields.
    """
    names = [base.__name__ for base in type(obj).__mro__]
    ours = next((_REPORTED_CLASSES[name] for name in names if name in _REPORTED_CLASSES), None)
    if ours is messages.IncomingMessage:
        obj.src, obj.dst = _original_address(obj, "src"), _original_address(obj, "dst")
        obj.src, obj.dst = incoming_address(obj.src), incoming_address(obj.dst) or None
    return obj if ours is None else add_class(obj, ours)


def _keep_addresses(data: ModuleType) -> None:
    """Patch smsframework's messages to keep the addresses that their constructor gets.

    They reduce addresses to digits: the sender id ``INFO4242`` would become the number 4242,
    which belongs to somebody else.
    """
    for class_name, arguments in _ADDRESSES.items():
        message_class: Any = getattr(data, class_name, None)
        if not isinstance(message_class, type):
            continue
        if not hasattr(vars(message_class).get("__init__"), _KEPT_ADDRESSES):
            _patch_constructor(message_class, arguments)


def _patch_constructor(message_class: Any, arguments: tuple[str, ...]) -> None:
    original = message_class.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        passed = signature.bind(self, *args, **kwargs).arguments
        vars(self)[_KEPT_ADDRESSES] = {name: passed.get(name) for name in arguments}

    setattr(init, _KEPT_ADDRESSES, True)
    message_class.__init__ = init


def _original_address(message: Any, name: str) -> Any:
    """An address as it was passed to the constructor, unless the attribute was changed since."""
    current = getattr(message, name)
    original = vars(message).get(_KEPT_ADDRESSES, {}).get(name)
    unchanged = isinstance(original, str) and digits_only(original) == (current or "")
    return original if unchanged else current


# --- Webhooks ------------------------------------------------------------------------------------


def _wrap_blueprint(views: Blueprint) -> Blueprint:
    """A blueprint that prepares each request for a plugin's views."""
    from flask import Blueprint, request

    parent = Blueprint("smsframework", __name__)

    def prepare() -> None:
        current: Any = request._get_current_object()  # type: ignore[attr-defined]
        request_class: Any = type(current)
        current.__class__ = combined_class(_RequestWithCharset, request_class)
        if views.import_name.startswith(_DECODING_PLUGINS):
            current.charset = "latin-1"

    parent.before_request(prepare)
    parent.register_blueprint(views)
    return parent


class _RequestWithCharset(Request if TYPE_CHECKING else object):  # type: ignore[misc]
    """A request whose charset can be set, as before Werkzeug 3.

    Setting it decodes the fields of the query, and of a form in the body, again.
    """

    @property
    def charset(self) -> str:
        charset: str = self.__dict__.get("_charset", "utf-8")
        return charset

    @charset.setter
    def charset(self, name: str) -> None:
        cached = self.__dict__
        cached["_charset"] = name
        _ = self.form  # parse form and files first: that would overwrite the form below
        if self.mimetype == "application/x-www-form-urlencoded":
            cached["form"] = _decode_fields(self.get_data(), name)
        cached["args"] = _decode_fields(self.query_string, name)
        cached.pop("values", None)


def _decode_fields(data: bytes, charset: str) -> ImmutableMultiDict[str, str]:
    from werkzeug.datastructures import ImmutableMultiDict

    pairs = parse_qsl(
        data.decode(charset, "replace"),
        keep_blank_values=True,
        encoding=charset,
        errors="replace",
    )
    return ImmutableMultiDict(pairs)
