"""What all commands share: errors in one line, the gateway, options, output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from smsqueue import exc
from smsqueue.configuration.loader import LoaderError, load_gateway
from smsqueue.gateway import Gateway
from smsqueue.ledger import diagnosed
from smsqueue.settings import Settings, SettingsError

__all__ = [
    "Group",
    "columns",
    "json_option",
    "kept",
    "loaded",
    "opened",
    "reveal_option",
    "screen",
    "show_json",
]

#: What comes with an extra, and need not be installed.
_OPTIONAL = ("flask", "werkzeug", "gunicorn", "flower")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
reveal_option = click.option("--reveal", is_flag=True, help="Show numbers and texts.")


class Group(click.Group):
    """Commands whose users' mistakes end in one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (exc.ProviderError, SettingsError, LoaderError) as error:
            raise click.ClickException(str(error)) from None
        except LookupError as error:
            if type(error) is not LookupError:  # a KeyError is a mistake of ours
                raise
            raise click.ClickException(str(error)) from None
        except UnicodeError:  # of arguments, on their way to Redis, or of standard input
            raise click.ClickException("an argument, or standard input, is not UTF-8") from None
        except ModuleNotFoundError as error:
            if error.name not in _OPTIONAL:
                raise
            raise click.ClickException(
                f"{error.name} is not installed: "
                "pip install 'smsqueue-gateway[receivers,flower]' brings what this command needs"
            ) from None


@contextmanager
def opened() -> Iterator[Gateway]:
    """A gateway without providers: looking and queueing need none of their secrets."""
    settings = Settings()
    if settings.eager:
        raise SettingsError(
            "SMSQUEUE_EAGER is set: an eager gateway keeps no messages; unset it for this command"
        )
    with Gateway(settings) as gateway:
        try:
            _ = gateway.ledger
        except SettingsError:
            raise
        except ValueError:
            # Without the text: parts of a password may be in it.
            raise SettingsError(
                "SMSQUEUE_REDIS_URL cannot be read: write it as redis://user:password@host:port/0, "
                "special characters of the password as %XX"
            ) from None
        try:
            yield gateway
        except exc.QueueUnavailable as error:
            raise diagnosed(settings, error) from error.__cause__


def loaded(settings: Settings) -> Gateway:
    """The application's gateway, as a worker loads it."""
    with redirect_stdout(sys.stderr):  # what the application prints is no part of a document
        return load_gateway(settings, queued=True)


def kept(settings: Settings) -> str:
    """How long records are kept, in words."""
    return f"records are kept {settings.retention / 86400:g} days after their end"


def screen(*, stderr: bool = False) -> Console:
    """A console that takes no text for markup, and does not cut what goes into a pipe."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 200
    return console


def columns(*names: str) -> Table:
    """A table of which a narrow terminal cuts nothing."""
    table = Table(*names, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def show_json(value: Any) -> None:
    """Print a JSON document, times in ISO format."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
