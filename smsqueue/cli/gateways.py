"""The gateways that commands work with: one without providers, and the application's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import click

from smsqueue import exc
from smsqueue.configuration.loader import load_gateway
from smsqueue.gateway import Gateway
from smsqueue.ledger import diagnosed
from smsqueue.ledger.audit_log import checked_name
from smsqueue.settings import Settings, SettingsError

__all__ = ["load_application_gateway", "open_gateway", "parse_operator"]


def parse_operator(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """The name that ``smsqueue --as NAME`` gives.

    Raises:
        click.BadParameter: it cannot be a name in the audit.
    """
    try:
        return None if name is None else checked_name(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _operator() -> str | None:
    """Who runs the command; None: the user of this process."""
    context = click.get_current_context(silent=True)
    name: str | None = context.find_root().params.get("operator") if context else None
    return name


@contextmanager
def open_gateway() -> Iterator[Gateway]:
    """Open a gateway without providers: queries and queueing need none of their secrets.

    Raises:
        SettingsError: a setting is invalid, or the gateway would be eager.
        QueueUnavailable: Redis cannot be used; the text names the cause and the remedy.
    """
    settings = Settings()
    if settings.eager:
        raise SettingsError(
            "SMSQUEUE_EAGER is set, but an eager gateway stores no messages: "
            "unset it for this command"
        )
    with Gateway(settings) as gateway:
        if (operator := _operator()) is not None:
            gateway.operator_name = operator
        try:
            _ = gateway.ledger
        except SettingsError:
            raise
        except ValueError:
            # Its text may contain parts of the password.
            raise SettingsError(
                "SMSQUEUE_REDIS_URL is not a valid URL: write it as "
                "redis://user:password@host:port/0, special characters of the password as %XX"
            ) from None
        try:
            yield gateway
        except exc.QueueUnavailable as error:
            raise diagnosed(settings, error) from error.__cause__


def load_application_gateway(settings: Settings) -> Gateway:
    """Load the gateway that SMSQUEUE_GATEWAY names, as a worker does.

    Raises:
        LoaderError: it cannot be loaded.
    """
    with redirect_stdout(sys.stderr):  # what the application prints must not mix with our output
        return load_gateway(settings, queued=True)
