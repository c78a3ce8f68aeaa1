"""A provider with its arguments in one text: ``twilio://sid:token@default?from=+15551234567``.

Any part of it may be a secret, or a piece of one that was not escaped. So no error quotes it: of
names only those are shown that the provider's class has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from smsqueue.providers.arguments import OF_EVERY_PROVIDER, parameters, unknown_argument
from smsqueue.providers.known import load, names
from smsqueue.settings import SettingsError

__all__ = ["complaint", "hide_values", "read"]

_HOW = "write it as twilio://user:password@default?from=..., special characters as %XX"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]{0,40}")
_HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
#: Shorter values are no secrets, and may stand in any sentence.
_TELLING = 4


def read(variable: str, address: str) -> tuple[type[Any], dict[str, Any]]:
    """The class of a provider, and its arguments.

    Args:
        variable: Where the address comes from, for errors.

    Raises:
        SettingsError: it cannot be understood. One line, which begins with the variable.
    """
    name, mark, rest = address.strip().partition("://")
    try:
        if not (mark and _NAME.fullmatch(name)):
            raise ValueError
        host, path, query, account = _parts(rest)
    except ValueError:
        raise SettingsError(f"{variable} cannot be read: {_HOW}") from None
    kind = _loaded(variable, name)
    config: dict[str, Any] = {}
    for argument, text in zip(getattr(kind, "url_arguments", ("", "")), account, strict=True):
        if text and not argument:
            raise SettingsError(f"{variable}: {kind.__name__} takes no user and password")
        config |= {argument: text} if text else {}
    if host:
        argument = getattr(kind, "url_name", "url")
        config[argument] = f"{getattr(kind, 'url_scheme', 'https')}://{host}{path}"
    takes = parameters(kind) | OF_EVERY_PROVIDER
    for pair in filter(None, query.split("&")):
        field, _, text = pair.partition("=")
        field = "sender" if field == "from" else field
        where = f"{variable}: {field}" if field in takes else f"{variable}: an argument"
        if field in config:
            raise SettingsError(f"{where} is given twice")
        config[field] = _value(where, text, takes.get(field, "str"))
    return kind, config


def _parts(rest: str) -> tuple[str, str, str, list[str]]:
    """Host (none: the provider's own), path, query, and user with password."""
    parts = urlsplit(f"//{rest}")
    host = parts.netloc.rpartition("@")[2]
    own = parts.hostname in (None, "default")
    # Signs of a secret that was not escaped, and is cut off there.
    torn = "#" in rest or "@" in parts.path or (own and (parts.port or parts.path.strip("/")))
    if torn or parts.port == 0 or not (own or _HOST.fullmatch(host)):
        raise ValueError
    account = [_text(each or "") for each in (parts.username, parts.password)]
    return "" if own else host, parts.path, parts.query, account


def _loaded(variable: str, name: str) -> type[Any]:
    there = names()
    try:
        kind = load(name if name in there else name.lower())
    except Exception as error:  # the module of another package may raise anything
        if type(error) is LookupError:
            why = f"begins with {name!r}, which is no provider: there are {', '.join(there)}"
        else:
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            why = f"names the provider {name!r}, which cannot be loaded ({said})"
        raise SettingsError(f"{variable} {why}") from None
    if not isinstance(kind, type):
        raise SettingsError(f"{variable} names the provider {name!r}, which is no class")
    return kind


# --- Values ----------------------------------------------------------------------------------


def _text(text: str) -> str:
    """a text with special characters as %XX"""
    return unquote(text, errors="strict")


def _bool(text: str) -> bool:
    """true or false"""
    return {"1": True, "true": True, "0": False, "false": False}[text.lower()]


def _int(text: str) -> int:
    """a whole number, not below 0"""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError
    return int(text)


def _float(text: str) -> float:
    """a number, not below 0"""
    if not 0 <= (number := float(text)) < math.inf:
        raise ValueError
    return number


def _list(text: str) -> list[str]:
    """texts with commas between them"""
    return [_text(each) for each in text.split(",")]


def _pair(text: str) -> tuple[str, ...]:
    """two texts with a comma between them"""
    first, second = _list(text)
    return first, second


#: By the annotation of an argument, or one of its alternatives; the docstring says what it reads.
_READERS: dict[str, Callable[[str], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "Secrets": _list,
    "Sequence[str]": _list,
    "Collection[str]": _list,
    "Iterable[str]": _list,
    "list[str]": _list,
    "tuple[str, str]": _pair,
    "str": _text,
    "Any": _text,
}


def _value(where: str, text: str, annotation: str) -> Any:
    """What a text stands for; ``where`` begins what is wrong with it."""
    kinds = annotation.split(" | ")
    reader = next((_READERS[each] for each in _READERS if each in kinds), None)
    reader = _text if annotation.startswith("Literal[") else reader
    if reader is None:
        raise SettingsError(f"{where} cannot be written there: add the provider in a module")
    try:
        return reader(text)
    except (ValueError, KeyError):
        raise SettingsError(f"{where} cannot be read: it must be {reader.__doc__}") from None


# --- Errors ----------------------------------------------------------------------------------


def complaint(kind: type[Any], config: dict[str, Any], error: Exception) -> str:
    """Why a provider could not be made: one line, without the values that it was given."""
    text = str(error).partition("\n")[0]
    if isinstance(error, TypeError):
        lacks = re.search(r"missing \d+ required .*arguments?: (.+)", text)
        if lacks:
            return f"{kind.__name__} lacks {lacks[1]}"
        takes = parameters(kind) | OF_EVERY_PROVIDER
        unknown = [name for name in config if name not in takes]
        if unknown:
            return unknown_argument(kind, unknown[0], reveal=False)
        text = hide_values(text, [*config])
    if not isinstance(error, TypeError | ValueError | AssertionError):
        return f"{kind.__name__} cannot be made ({type(error).__name__})"
    return hide_values(text, config)


def hide_values(text: str, config: Any) -> str:
    """A text without the values of a provider's arguments that stand in it."""
    values = {each for value in _texts(config) for each in (value, repr(value)[1:-1])}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "...") if len(value) >= _TELLING else text
    return text


def _texts(value: Any) -> list[str]:
    """The texts in an argument."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return [text for each in value for text in _texts(each)]
    if isinstance(value, bytes):
        return [value.decode(errors="replace")]
    return [str(value)] if isinstance(value, str | int) and not isinstance(value, bool) else []
