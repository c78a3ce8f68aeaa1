"""The command line: ``smsqueue COMMAND``. Each command is in the file of its duty."""

from __future__ import annotations

import io
import sys

import click

from smsqueue.cli.acl import acl
from smsqueue.cli.bulk import cancel, repair, replay, requeue, settle
from smsqueue.cli.checking import check
from smsqueue.cli.development import demo, dev, simulator
from smsqueue.cli.looking import find, show
from smsqueue.cli.messages import list_
from smsqueue.cli.output import Group
from smsqueue.cli.providers import providers
from smsqueue.cli.purge import purge
from smsqueue.cli.send import send
from smsqueue.cli.status import status

__all__ = ["main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="smsqueue-gateway", message="smsqueue %(version)s")
def main() -> None:
    """A two-way SMS gateway: send, look, repair, rehearse.

    Redis and namespace are those of SMSQUEUE_REDIS_URL and SMSQUEUE_NAMESPACE. Numbers are masked
    and texts hidden unless --reveal is given.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal need not know every letter
            stream.reconfigure(errors="backslashreplace")


for _command in (dev, demo, simulator, send, show, find, list_):
    main.add_command(_command)
for _command in (cancel, requeue, settle, replay, repair, purge):
    main.add_command(_command)
for _command in (status, check, providers, acl):
    main.add_command(_command)
