"""Redis accounts for each kind of process: acl."""

from __future__ import annotations

import hashlib
import os

import click

from smsqueue.ledger.acl import ROLES, user_line
from smsqueue.settings import Settings, secret_text

__all__ = ["acl"]

#: Minimum length of a password; openssl rand -hex 24 prints 48 characters. The file contains
#: unsalted hashes, from which a short password could be guessed.
_MIN_PASSWORD_LENGTH = 24

#: Connections without a login may send PING, as health checks do.
_DEFAULT_USER = "user default on nopass resetkeys resetchannels -@all +ping"


@click.command()
@click.option(
    "--database", default=0, show_default=True, help="Database number in SMSQUEUE_REDIS_URL."
)
def acl(database: int) -> None:
    """Print an ACL file for Redis with an account for each kind of process.

    The passwords are read from REDIS_PASSWORD_SENDER, _WORKER, _RECEIVERS, _FLOWER, _OPERATOR and
    _MONITOR, or from the files that REDIS_PASSWORD_SENDER_FILE and so on name. The ACL file
    contains their hashes. REDIS_PASSWORD_ADMIN adds an account with all permissions, for backups
    and CONFIG. The names of accounts and keys begin with SMSQUEUE_NAMESPACE.
    """
    namespace = Settings().namespace
    hashes = {role.name: _hash_of(role.name) for role in ROLES}
    lines = [user_line(role, namespace, database, hashes[role.name]) for role in ROLES]
    if secret_text(os.environ, "REDIS_PASSWORD_ADMIN"):
        hashes["admin"] = _hash_of("admin")
        lines.append(f"user {namespace}-admin on #{hashes['admin']} ~* &* +@all")
    _refuse_shared(hashes)
    click.echo("\n".join([_DEFAULT_USER, *lines]))


def _refuse_shared(hashes: dict[str, str]) -> None:
    """Refuse a password for two accounts: a process could use the rights of both."""
    roles: dict[str, str] = {}
    for role, hashed in hashes.items():
        if hashed in roles:
            raise click.ClickException(
                f"REDIS_PASSWORD_{roles[hashed].upper()} and REDIS_PASSWORD_{role.upper()} are the "
                "same: give each account a password of its own"
            )
        roles[hashed] = role


def _hash_of(role: str) -> str:
    """The SHA-256 of a role's password.

    Raises:
        click.ClickException: the password is not set or too short.
    """
    variable = f"REDIS_PASSWORD_{role.upper()}"
    password = secret_text(os.environ, variable) or ""
    if len(password) < _MIN_PASSWORD_LENGTH:
        problem = f"has fewer than {_MIN_PASSWORD_LENGTH} characters" if password else "is not set"
        raise click.ClickException(
            f"{variable} {problem}: set it to a random string, for example the output of "
            "openssl rand -hex 24"
        )
    return hashlib.sha256(password.encode()).hexdigest()
