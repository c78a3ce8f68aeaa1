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
    hashes = {role.name: _hash_of(role.name) for role in ROLES}
    lines = [user_line(role, namespace, database, hashes[role.name]) for role in ROLES]
    if secret_text(os.environ, "REDIS_PASSWORD_ADMIN"):
        hashes["admin"] = _hash_of("admin")
        lines.append(f"user {namespace}-admin on #{hashes['admin']} ~* &* +@all")
    _refuse_shared(hashes)
    click.echo("\n".join([_DEFAULT, *lines]))


def _refuse_shared(hashes: dict[str, str]) -> None:
    """Refuse accounts with one password: who has one account's would have the other's rights."""
    first: dict[str, str] = {}
    for role, hashed in hashes.items():
        if hashed in first:
            raise click.ClickException(
                f"REDIS_PASSWORD_{first[hashed].upper()} and REDIS_PASSWORD_{role.upper()} are the "
                "same: give each account a password of its own"
            )
        first[hashed] = role


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
