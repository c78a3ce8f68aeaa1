"""Providers from the environment: ``SMSQUEUE_PROVIDER_MAIN=twilio://sid:token@default?from=+1555``.

The part after ``SMSQUEUE_PROVIDER_`` is the provider's name, in small letters. The scheme is the
kind of provider, ``default`` its own address. ``SMSQUEUE_PROVIDER_MAIN_FILE=/run/secrets/main``
names a file in which the same stands. Special characters are written as %XX; a plus is
a plus. Every kind of provider takes ``webhook_prefix`` and ``webhook_sources`` as well, see
:meth:`smsqueue.gateway.Gateway.add_provider`.
"""

from __future__ import annotations

from collections.abc import Mapping

from smsqueue.gateway import Gateway
from smsqueue.providers.base.provider_from_url import describe_error, parse_provider_url
from smsqueue.settings import SettingsError, read_secret_file

__all__ = ["add_providers", "named"]

_PREFIX, _DEFAULT = "SMSQUEUE_PROVIDER_", "SMSQUEUE_DEFAULT_PROVIDER"
_FILE = "_FILE"


def named(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The providers' names, and the variables that they are in.

    A variable that is empty, as Compose sets what is not there, is none if the other one of the
    value and its file is set.
    """
    variables = sorted(
        variable
        for variable, text in environment.items()
        if variable.startswith(_PREFIX) and (text or not environment.get(_other(variable)))
    )
    return [
        (variable.removeprefix(_PREFIX).removesuffix(_FILE).lower(), variable)
        for variable in variables
    ]


def _other(variable: str) -> str:
    """The variable of the file for that of a value, and the other way round."""
    return variable.removesuffix(_FILE) if variable.endswith(_FILE) else variable + _FILE


def add_providers(gateway: Gateway, environment: Mapping[str, str]) -> None:
    """Add the providers that the environment names, and set the default one.

    Raises:
        SettingsError: one cannot be made, or its name is taken, or it is open which of several is
            the default one. The text names the variable, never its value.
    """
    pairs, variable_of = named(environment), dict[str, str]()
    for name, variable in pairs:
        if name in variable_of:
            raise SettingsError(
                f"{variable_of[name]} and {variable} are one name: remove one of them"
            )
        variable_of[name] = variable
        if name in gateway.from_environment:
            continue
        if name in gateway.providers:
            raise SettingsError(
                f"{variable}: the gateway's module adds a provider {name!r} itself: remove one"
            )
        text = environment[variable]
        if variable.endswith(_FILE):
            text = read_secret_file(variable, text)
        kind, config = parse_provider_url(variable, text)
        try:
            gateway.add_provider(name, kind, **config)
        except Exception as error:  # without its traceback, which may show the value
            raise SettingsError(f"{variable}: {describe_error(kind, config, error)}") from None
        gateway.from_environment.add(name)
    default = environment.get(_DEFAULT)
    if default:
        if default not in gateway.providers:
            raise SettingsError(
                f"{_DEFAULT} is {default!r}, but the providers are: "
                f"{', '.join(gateway.providers) or 'none'}"
            )
        gateway.default_provider = default
    elif len(variable_of) > 1 and len(variable_of) == len(gateway.providers):
        raise SettingsError(
            f"{' and '.join(variable_of.values())}: which one is the default? Set {_DEFAULT} to "
            f"{' or '.join(variable_of)}"
        )
