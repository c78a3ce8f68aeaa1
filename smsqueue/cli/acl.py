"""Accounts of Redis for each kind of process: acl."""

from __future__ import annotations

import hashlib
import os

import click

from smsqueue.ledger.acl import ROLES, user_line
from smsqueue.settings import Settings, secret_text

__all__ = ["acl"]

#: Characters that a password must have at least; openssl rand -hex 24 gives 48. Their unsalted
#: hash stands in the file, so that a short one could be guessed from it.
_SHORTEST = 24

#: Who has not logged in may ask whether Redis is there, as health checks do.
_DEFAULT = "user default on nopass resetkeys resetchannels -@all +ping"


@click.command()
@click.option("--database", default=0, show_default=True, help="Its number in SMSQUEUE_REDIS_URL.")
def acl(database: int) -> None:
    """Print an ACL file for Redis: an account for each kind of process.

    The passwords are those of REDIS_PASSWORD_SENDER, _WORKER, _RECEIVERS, _FLOWER, _OPERATOR and
    _MONITOR, or stand in files that REDIS_PASSWORD_SENDER_FILE and so on name; what is printed has
    their hashes. With REDIS_PASSWORD_ADMIN there is an account that may
    do everything, for backups and CONFIG. Names and keys begin with SMSQUEUE_NAMESPACE.
    """
    namespace = Settings().namespace
    lines = [user_line(role, namespace, database, _hash_of(role.name)) for role in ROLES]
    if secret_text(os.environ, "REDIS_PASSWORD_ADMIN"):
        lines.append(f"user {namespace}-admin on #{_hash_of('admin')} ~* &* +@all")
    click.echo("\n".join([_DEFAULT, *lines]))


def _hash_of(role: str) -> str:
    """The SHA-256 of a role's password.

    Raises:
        click.ClickException: it is not set, or can be guessed.
    """
    variable = f"REDIS_PASSWORD_{role.upper()}"
    password = secret_text(os.environ, variable) or ""
    if len(password) < _SHORTEST:
        what = f"has fewer than {_SHORTEST} characters" if password else "is not set"
        raise click.ClickException(
            f"{variable} {what}: set it to a random word, for example the output of "
            "openssl rand -hex 24"
        )
    return hashlib.sha256(password.encode()).hexdigest()
