"""Finds the application's gateway, which SMSQUEUE_GATEWAY names as ``package.module:attribute``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from contextlib import suppress
from types import ModuleType
from typing import Any

from smsqueue.environment import add_providers, named
from smsqueue.gateway import Gateway
from smsqueue.settings import Settings, SettingsError

__all__ = ["LoaderError", "load_gateway"]


class LoaderError(Exception):
    """There is no gateway to work with; the text says what is wrong and what to do.

    It begins with one line; the application's own traceback follows if the error is in there.
    """


def load_gateway(settings: Settings, *, queued: bool = False) -> Gateway:
    """Import, or make, the gateway that ``settings.gateway`` names, and add the providers that the
    environment names. If it names some and no gateway, they are all that the gateway has.

    The current folder is searched too, and Django is set up if DJANGO_SETTINGS_MODULE is set.

    Args:
        queued: The caller works on the queue, so an eager gateway is of no use to it.

    Raises:
        LoaderError: there is none that can be used.
    """
    gateway = _found(settings)
    if queued and gateway.eager:
        raise LoaderError(
            f"SMSQUEUE_GATEWAY is {settings.gateway!r}: that gateway is eager, it has no queue to "
            "work on; unset SMSQUEUE_EAGER and eager=True"
        )
    try:
        add_providers(gateway, os.environ)
    except SettingsError as error:
        raise LoaderError(str(error)) from None
    return gateway


def _found(settings: Settings) -> Gateway:
    where = settings.gateway
    module_name, colon, attribute = where.partition(":")
    if not where and named(os.environ):
        return Gateway(settings)
    if not where:
        raise LoaderError(
            "SMSQUEUE_GATEWAY is not set: set it to where your gateway is, "
            "for example SMSQUEUE_GATEWAY=shop.sms:gateway for 'gateway' in shop/sms.py"
        )
    if not (colon and module_name and attribute) or module_name.startswith("."):
        raise LoaderError(
            f"SMSQUEUE_GATEWAY is {where!r}: write it as package.module:attribute, "
            "for example shop.sms:gateway"
        )
    _search_current_folder()
    _set_up_django()
    found = _attribute(_module(module_name), attribute)
    if not isinstance(found, Gateway) and callable(found):
        found = _make(found, where)
    if not isinstance(found, Gateway):
        raise LoaderError(
            f"SMSQUEUE_GATEWAY is {where!r}: that is of type {_type(found)}, "
            "not a Gateway nor a function that makes one"
        )
    return found


def _search_current_folder() -> None:
    with suppress(FileNotFoundError):  # the folder was deleted
        folder = os.getcwd()
        if folder not in sys.path and "" not in sys.path:
            # Last: a file of the name of an installed package does not take its place.
            sys.path.append(folder)


def _set_up_django() -> None:
    name = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not name:
        return
    try:
        django: Any = importlib.import_module("django")
    except ModuleNotFoundError:
        raise LoaderError(
            f"DJANGO_SETTINGS_MODULE is {name!r}, but Django is not installed: "
            "install it into this environment, or unset the variable"
        ) from None
    try:
        django.setup()
    except Exception as error:
        raise LoaderError(_with_traceback("Django could not be set up", error)) from None


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        # Missing itself, or a package on the way to it: not something that it imports.
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise LoaderError(
                f"SMSQUEUE_GATEWAY names the module {name!r}, but there is no {error.name!r}: "
                f"correct it, or start from the folder that it is in (this is {_here()})"
            ) from None
        text = f"SMSQUEUE_GATEWAY names the module {name!r}, which fails when it is imported"
        raise LoaderError(_with_traceback(text, error)) from None


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        there = [n for n in vars(module) if not n.startswith("_")]
        near = [n for n in there if isinstance(getattr(module, n), Gateway)]
        near = near or difflib.get_close_matches(name, there)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "what is its name?"
        raise LoaderError(
            f"SMSQUEUE_GATEWAY names {name!r}, which {module.__name__!r} does not have: {hint}"
        ) from None


def _make(function: Any, where: str) -> Any:
    try:
        made = function()
    except Exception as error:
        text = f"SMSQUEUE_GATEWAY is {where!r}, a function that fails when it is called"
        raise LoaderError(_with_traceback(text, error)) from None
    if not isinstance(made, Gateway):
        raise LoaderError(
            f"SMSQUEUE_GATEWAY is {where!r}, a function that returns {_type(made)}: "
            "it must return the Gateway that it makes"
        )
    return made


def _type(value: Any) -> str:
    return "None" if value is None else repr(type(value).__name__)


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "a folder that was deleted"


def _with_traceback(text: str, error: Exception) -> str:
    """The text, and the error's traceback without the frames that led to the application."""
    shown = traceback.TracebackException.from_exception(error)
    ours = (__file__, importlib.__file__)
    while shown.stack and (
        shown.stack[0].filename in ours or shown.stack[0].filename.startswith("<frozen importlib")
    ):
        del shown.stack[0]
    lines = shown.format() if shown.stack else shown.format_exception_only()
    return f"{text}:\n{''.join(lines).rstrip()}"
