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

from smsqueue.configuration.environment_providers import add_providers, named
from smsqueue.gateway import Gateway
from smsqueue.providers.base.provider_from_url import hide_values
from smsqueue.settings import Settings, SettingsError

__all__ = ["LoaderError", "load_gateway"]

_ADD_PROVIDER = Gateway.add_provider.__code__


class LoaderError(Exception):
    """There is no gateway to work with; the text says what is wrong and what to do.

    It begins with one line; the frames of the application's own code follow, without source lines,
    if an error is in there.
    """


def load_gateway(settings: Settings, *, queued: bool = False) -> Gateway:
    """Import, or make, the gateway that ``settings.gateway`` names, and add the providers that the
    environment names. If it names some and no gateway, they are all that the gateway has.

    The current folder is searched too, and Django is set up if DJANGO_SETTINGS_MODULE is set.

    Args:
        queued: The caller works on the queue, so an eager gateway is of no use to it.

    Raises:
        LoaderError: The gateway cannot be found or used.
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
    gateway = _attribute(_module(module_name), attribute)
    if not isinstance(gateway, Gateway) and callable(gateway):
        gateway = _make(gateway, where)
    if not isinstance(gateway, Gateway):
        raise LoaderError(
            f"SMSQUEUE_GATEWAY is {where!r}: that is of type {_type(gateway)}, "
            "not a Gateway nor a function that makes one"
        )
    return gateway


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
        raise LoaderError(_failure("Django could not be set up", error)) from None


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
        raise LoaderError(_failure(text, error)) from None


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
        result = function()
    except Exception as error:
        text = f"SMSQUEUE_GATEWAY is {where!r}, a function that fails when it is called"
        raise LoaderError(_failure(text, error)) from None
    if not isinstance(result, Gateway):
        raise LoaderError(
            f"SMSQUEUE_GATEWAY is {where!r}, a function that returns {_type(result)}: "
            "it must return the Gateway that it makes"
        )
    return result


def _type(value: Any) -> str:
    return "None" if value is None else repr(type(value).__name__)


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "a folder that was deleted"


def _failure(text: str, error: Exception) -> str:
    """The text, and what the application's own code failed with.

    Of a mistake in what it gave to ``add_provider`` or to a setting: where that is, and what is
    wrong, in one line. Of anything else: its frames, without their source lines and without the
    frames that led to the application. Secrets may stand in those lines, and among the values of
    a provider's arguments; so neither are shown.
    """
    calls = [frame for each in _chain(error) for frame, _ in traceback.walk_tb(each.__traceback__)]
    values = [
        [frame.f_locals.get("config"), frame.f_locals.get("webhook_prefix")]
        for frame in calls
        if frame.f_code is _ADD_PROVIDER
    ]
    if _mistaken_argument(error):
        message = hide_values(" ".join(str(error).split()), values)
        return f"{text}{_place(error)}: {message}"
    shown = traceback.TracebackException.from_exception(error, lookup_lines=False)
    _drop_source_lines(shown)
    ours = (__file__, importlib.__file__)
    while shown.stack and (
        shown.stack[0].filename in ours or shown.stack[0].filename.startswith("<frozen importlib")
    ):
        del shown.stack[0]
    lines = shown.format() if shown.stack else shown.format_exception_only()
    safe = [line if line.startswith('  File "') else hide_values(line, values) for line in lines]
    return f"{text}:\n{''.join(safe).rstrip()}"


def _mistaken_argument(error: Exception) -> bool:
    """Is it a setting, or an argument of ``add_provider``, that this package refused?"""
    if isinstance(error, SettingsError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    codes = [frame.f_code for frame in frames]
    if not isinstance(error, TypeError | ValueError | AssertionError) or _ADD_PROVIDER not in codes:
        return False
    inside = frames[codes.index(_ADD_PROVIDER) :]
    # The second: ours called the standard library, such as to decode a key.
    return any(_is_ours(frame.f_code.co_filename) for frame in (inside[-1], *inside[1:2]))


def _place(error: Exception) -> str:
    """Where the application's code is that called ours."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    for frame, line in reversed(frames):
        file = frame.f_code.co_filename
        # "<": importlib, and what dataclasses generate.
        if not (_is_ours(file) or file == importlib.__file__ or file.startswith("<")):
            return f" at {file}:{line}"
    return ""


def _is_ours(file: str) -> bool:
    package = os.path.dirname(os.path.dirname(__file__))
    return file.startswith(package + os.sep)


def _chain(error: BaseException) -> list[BaseException]:
    """An error with its causes, and with those during which it was raised."""
    chain: list[BaseException] = []
    remaining: list[BaseException | None] = [error]
    while remaining:
        cause = remaining.pop()
        if cause is not None and cause not in chain:
            chain.append(cause)
            remaining += [cause.__cause__, cause.__context__]
            remaining += cause.exceptions if isinstance(cause, BaseExceptionGroup) else []
    return chain


def _drop_source_lines(shown: traceback.TracebackException) -> None:
    for cause in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if cause is not None:
            _drop_source_lines(cause)
    shown.stack = traceback.StackSummary.from_list(
        [(frame.filename, frame.lineno or 0, frame.name, "") for frame in shown.stack]
    )
    vars(shown)["text"] = None  # the line of a SyntaxError, which its annotation says is a text
