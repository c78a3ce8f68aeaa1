"""The command line: ``smsqueue COMMAND``. Each family of commands has a module here."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from smsqueue import exc
from smsqueue.cli.acl import acl
from smsqueue.cli.audit_log import audit
from smsqueue.cli.bulk import cancel, repair, replay, requeue, settle
from smsqueue.cli.check import check
from smsqueue.cli.development import demo, dev, simulator
from smsqueue.cli.gateways import parse_operator
from smsqueue.cli.messages import find, list_, show
from smsqueue.cli.opt_outs import optout
from smsqueue.cli.pauses import pause, resume
from smsqueue.cli.providers import providers
from smsqueue.cli.purge_webhooks import purge
from smsqueue.cli.send import send
from smsqueue.cli.status import status
from smsqueue.configuration.loader import LoaderError
from smsqueue.logs import log_json
from smsqueue.settings import SettingsError, log_format

__all__ = ["main"]

#: Modules that belong to an extra and may be missing.
_OPTIONAL_MODULES = ("flask", "werkzeug", "gunicorn", "flower")


class CommandGroup(click.Group):
    """Reports expected errors in one line on stderr, with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the selected command."""
        try:
            return super().invoke(ctx)
        except (exc.ProviderError, SettingsError, LoaderError) as error:
            raise click.ClickException(str(error)) from None
        except LookupError as error:
            if type(error) is not LookupError:  # KeyError and IndexError are bugs
                raise
            raise click.ClickException(str(error)) from None
        except UnicodeError:  # from arguments sent to Redis, or from standard input
            raise click.ClickException(
                "an argument, a file or standard input is not UTF-8"
            ) from None
        except ModuleNotFoundError as error:
            if error.name not in _OPTIONAL_MODULES:
                raise
            raise click.ClickException(
                f"{error.name} is not installed, and this command needs it: "
                "run pip install 'smsqueue-gateway[receivers,flower]'"
            ) from None


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="smsqueue-gateway", message="smsqueue %(version)s")
@click.option(
    "--as",
    "operator",
    metavar="NAME",
    callback=parse_operator,
    help="Who runs the command, for the audit. Default: the user of this process.",
)
def main(operator: str | None) -> None:
    """A two-way SMS gateway: send messages, inspect them, resolve failures, try it locally.

    Most commands use the Redis and the namespace of SMSQUEUE_REDIS_URL and SMSQUEUE_NAMESPACE.
    Numbers are masked and texts hidden unless --reveal is given.
    """
    if log_format(os.environ) == "json":
        log_json()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the terminal's encoding may lack a character
            stream.reconfigure(errors="backslashreplace")


for _command in (dev, demo, simulator, send, show, find, list_):
    main.add_command(_command)
for _command in (pause, resume, cancel, requeue, settle, replay, repair, purge):
    main.add_command(_command)
for _command in (status, check, providers, audit, acl, optout):
    main.add_command(_command)
