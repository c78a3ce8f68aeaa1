"""Providers from the environment: ``SMSQUEUE_PROVIDER_MAIN=twilio://sid:token@default?from=+1555``.

The part after ``SMSQUEUE_PROVIDER_`` is the provider's name, in small letters. The scheme is the
kind of provider, ``default`` its own address. Special characters are written as %XX; a plus is
a plus.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import signature
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from smsqueue.gateway import Gateway
from smsqueue.providers.known import load, names
from smsqueue.settings import SettingsError

__all__ = ["add_providers", "named"]

_PREFIX, _DEFAULT = "SMSQUEUE_PROVIDER_", "SMSQUEUE_DEFAULT_PROVIDER"


def _bool(text: str) -> bool:
    return {"1": True, "true": True, "0": False, "false": False}[text.lower()]


def _secrets(text: str) -> str | list[str]:
    return text.split(",") if "," in text else text


#: How arguments are read that are no texts, by their annotation.
_KINDS: dict[str, Any] = {
    "bool": _bool,
    "float": float,
    "int": int,
    "Secrets": _secrets,
    "Collection[str]": lambda text: text.split(","),
}


def named(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of providers, by the provider's name."""
    return {
        variable.removeprefix(_PREFIX).lower(): variable
        for variable in sorted(environment)
        if variable.startswith(_PREFIX) and variable != _PREFIX
    }


def add_providers(gateway: Gateway, environment: Mapping[str, str]) -> None:
    """Add the providers that the environment names, and set the default one.

    Raises:
        SettingsError: one cannot be made, or its name is taken, or it is open which of several is
            the default one. The text names the variable, never its value.
    """
    found = named(environment)
    for name, variable in found.items():
        if name in gateway.from_environment:
            continue
        if name in gateway.providers:
            raise SettingsError(
                f"{variable}: the gateway's module adds a provider {name!r} itself: remove one"
            )
        kind, config = _read(variable, environment[variable])
        try:
            gateway.add_provider(name, kind, **config)
        except TypeError:
            # Without its text, which may quote the value.
            # Of a value that is not escaped, a part may have become a name.
            known = ", ".join(sorted(set(config) & set(_parameters(kind)))) or "none that it knows"
            raise SettingsError(
                f"{variable}: {kind.__name__} does not take these arguments, or lacks one "
                f"(given: {known})"
            ) from None
        except (ValueError, AssertionError, SettingsError) as error:
            raise SettingsError(f"{variable}: {type(error).__name__}: {error}") from None
        gateway.from_environment.add(name)
    default = environment.get(_DEFAULT)
    if default:
        if default not in gateway.providers:
            raise SettingsError(
                f"{_DEFAULT} is {default!r}, but the providers are: "
                f"{', '.join(gateway.providers) or 'none'}"
            )
        gateway.default_provider = default
    elif len(found) > 1 and len(found) == len(gateway.providers):
        raise SettingsError(
            f"{' and '.join(found.values())}: which one is the default? Set {_DEFAULT} to "
            f"{' or '.join(found)}"
        )


def _parameters(kind: type[Any]) -> dict[str, str]:
    """The arguments of a provider and its bases, each with its annotation."""
    found = (vars(each).get("__init__") for each in reversed(kind.__mro__))
    made = (signature(each).parameters for each in found if inspect.isfunction(each))
    return {
        name: getattr(parameter.annotation, "__name__", str(parameter.annotation))
        for parameters in made
        for name, parameter in parameters.items()
    }


def _read(variable: str, url: str) -> tuple[type[Any], dict[str, Any]]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SettingsError(
            f"{variable} cannot be read: write it as twilio://user:password@default?from=..., "
            "special characters as %XX"
        ) from None
    try:
        kind = load(parts.scheme)
    except LookupError:
        raise SettingsError(
            f"{variable} begins with {parts.scheme!r}, which is no provider: "
            f"there are {', '.join(names())}"
        ) from None
    return kind, _arguments(variable, kind, parts, port)


def _arguments(
    variable: str, kind: type[Any], parts: SplitResult, port: int | None
) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for argument, text in zip(
        getattr(kind, "url_arguments", ("", "")), (parts.username, parts.password), strict=True
    ):
        if text:
            if not argument:
                raise SettingsError(f"{variable}: {kind.__name__} takes no user and password")
            config[argument] = unquote(text)
    host = parts.hostname or "default"
    if host != "default":
        scheme = getattr(kind, "url_scheme", "https")
        place = f"{host}:{port}" if port else host
        config["url"] = f"{scheme}://{place}{parts.path}"
    annotations = _parameters(kind)
    for pair in filter(None, parts.query.split("&")):
        name, _, text = pair.partition("=")
        name = {"from": "sender"}.get(name, name)
        try:
            config[name] = _KINDS.get(annotations.get(name, ""), str)(unquote(text))
        except (ValueError, KeyError):
            raise SettingsError(f"{variable}: {name} cannot be read") from None
    return config
