"""Parses provider URLs of settings: ``twilio://sid:token@default?from=+15551234567``.

Any part of a URL may be a secret, or a piece of one that was not escaped. So no error quotes it,
and only names that the provider's class accepts are shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from smsqueue.providers.base.installed_providers import load, provider_names
from smsqueue.providers.base.provider_arguments import (
    COMMON_ARGUMENTS,
    accepted_arguments,
    describe_unknown_argument,
)
from smsqueue.settings import SettingsError

__all__ = ["describe_error", "hide_values", "parse_provider_url"]

_HOW = "write it as twilio://user:password@default?from=..., special characters as %XX"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]{0,40}")
_HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
#: Shorter values are not secrets, and may be part of any sentence.
_MIN_HIDDEN = 4


def parse_provider_url(variable: str, url: str) -> tuple[type[Any], dict[str, Any]]:
    """The class of a provider, and its arguments.

    Args:
        variable: Name of the setting, for errors.

    Raises:
        SettingsError: the URL is invalid. One line that begins with the variable.
    """
    name, mark, rest = url.strip().partition("://")
    try:
        if not (mark and _NAME.fullmatch(name)):
            raise ValueError
        host, path, query, account = _split(rest)
    except ValueError:
        raise SettingsError(f"{variable} is not a provider URL: {_HOW}") from None
    kind = _load_class(variable, name)
    config: dict[str, Any] = {}
    for argument, text in zip(getattr(kind, "url_arguments", ("", "")), account, strict=True):
        if text and not argument:
            raise SettingsError(f"{variable}: {kind.__name__} takes no user and password")
        config |= {argument: text} if text else {}
    if host:
        argument = getattr(kind, "url_name", "url")
        config[argument] = f"{getattr(kind, 'url_scheme', 'https')}://{host}{path}"
    accepted = accepted_arguments(kind) | COMMON_ARGUMENTS
    for pair in filter(None, query.split("&")):
        field, _, text = pair.partition("=")
        field = "sender" if field == "from" else field
        where = f"{variable}: {field}" if field in accepted else f"{variable}: an argument"
        if field in config:
            raise SettingsError(f"{where} is set twice")
        config[field] = _parse_value(where, text, accepted.get(field, "str"))
    return kind, config


def _split(rest: str) -> tuple[str, str, str, list[str]]:
    """Host ("" for the provider's default), path, query, and user with password."""
    parts = urlsplit(f"//{rest}")
    host = parts.netloc.rpartition("@")[2]
    is_default = parts.hostname in (None, "default")
    has_path = bool(parts.port or parts.path.strip("/"))
    # Signs of a secret that was not escaped, and was cut off there.
    unescaped = "#" in rest or "@" in parts.path or (is_default and has_path)
    if unescaped or parts.port == 0 or not (is_default or _HOST.fullmatch(host)):
        raise ValueError
    account = [_text(part or "") for part in (parts.username, parts.password)]
    return "" if is_default else host, parts.path, parts.query, account


def _load_class(variable: str, name: str) -> type[Any]:
    installed = provider_names()
    try:
        kind = load(name if name in installed else name.lower())
    except Exception as error:  # the module of another package may raise anything
        if type(error) is LookupError:
            why = f"begins with {name!r}, which is not a provider; choose {', '.join(installed)}"
        else:
            text = f"{type(error).__name__}: {error}".partition("\n")[0]
            why = f"names the provider {name!r}, which cannot be loaded ({text})"
        raise SettingsError(f"{variable} {why}") from None
    if not isinstance(kind, type):
        raise SettingsError(f"{variable} names the provider {name!r}, which is not a class")
    return kind


# --- Values ----------------------------------------------------------------------------------


def _text(text: str) -> str:
    """a string with special characters as %XX"""
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
    """strings separated by commas"""
    return [_text(part) for part in text.split(",")]


def _pair(text: str) -> tuple[str, ...]:
    """two strings separated by a comma"""
    first, second = _list(text)
    return first, second


#: Parsers by the annotation of an argument. Their docstrings are part of error messages.
_PARSERS: dict[str, Callable[[str], Any]] = {
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


def _parse_value(where: str, text: str, annotation: str) -> Any:
    """The value of an argument; ``where`` is the beginning of errors."""
    kinds = annotation.split(" | ")
    parser = next((_PARSERS[kind] for kind in _PARSERS if kind in kinds), None)
    parser = _text if annotation.startswith("Literal[") else parser
    if parser is None:
        raise SettingsError(f"{where} cannot be set in a URL: add the provider in a module")
    try:
        return parser(text)
    except (ValueError, KeyError):
        raise SettingsError(f"{where} is invalid: it must be {parser.__doc__}") from None


# --- Errors ----------------------------------------------------------------------------------


def describe_error(kind: type[Any], config: dict[str, Any], error: Exception) -> str:
    """Why the constructor of a provider failed: one line, without the values of arguments."""
    text = str(error).partition("\n")[0]
    if isinstance(error, TypeError):
        missing = re.search(r"missing \d+ required .*arguments?: (.+)", text)
        if missing:
            return f"{kind.__name__} lacks {missing[1]}"
        accepted = accepted_arguments(kind) | COMMON_ARGUMENTS
        unknown = [name for name in config if name not in accepted]
        if unknown:
            return describe_unknown_argument(kind, unknown[0], reveal=False)
        text = hide_values(text, [*config])
    if not isinstance(error, TypeError | ValueError | AssertionError):
        return f"{kind.__name__} cannot be created ({type(error).__name__})"
    return hide_values(text, config)


def hide_values(text: str, config: Any) -> str:
    """A text with the values of a provider's arguments replaced by "..."."""
    values = {form for value in _strings(config) for form in (value, repr(value)[1:-1])}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "...") if len(value) >= _MIN_HIDDEN else text
    return text


def _strings(value: Any) -> list[str]:
    """All strings in an argument."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return [text for item in value for text in _strings(item)]
    if isinstance(value, bytes):
        return [value.decode(errors="replace")]
    return [str(value)] if isinstance(value, str | int) and not isinstance(value, bool) else []
