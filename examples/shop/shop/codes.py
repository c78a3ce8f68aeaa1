"""The one-time passwords, in a SQLite file that web processes and workers share."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["VALID_MINUTES", "Code", "Codes", "TooMany"]

#: A code is good for this long, and for so many guesses.
VALID_MINUTES = 5
GUESSES = 5
#: A number gets so many codes in this many minutes.
CODES, PER_MINUTES = 3, 15

SCHEMA = """
CREATE TABLE IF NOT EXISTS codes (
    id TEXT PRIMARY KEY, number TEXT, hash TEXT, made REAL,
    guesses INTEGER DEFAULT 0, state TEXT DEFAULT 'on its way'
);
CREATE TABLE IF NOT EXISTS stopped (number TEXT PRIMARY KEY);
"""


class TooMany(Exception):
    """The number had its codes for now."""


@dataclass(frozen=True)
class Code:
    """A code that is to be sent."""

    id: str
    number: str
    digits: str


class Codes:
    """Makes codes and knows them again; they are stored as keyed hashes.

    Args:
        path: The database; made if it is not there.
        secret: The key.
    """

    def __init__(self, path: str, secret: str) -> None:
        self.path, self._secret = path, secret
        with self._database() as database:
            database.executescript(SCHEMA)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=10)
        try:
            with database:  # commits, or rolls back
                yield database
        finally:
            database.close()

    def _hash(self, *parts: str) -> str:
        text = "/".join(parts).encode()
        return hmac.new(self._secret.encode(), text, hashlib.sha256).hexdigest()

    def make(self, form: str, number: str) -> Code:
        """The code of one form and number: always the same, so that a form that is sent twice
        asks for one code.

        Raises:
            TooMany: not now.
        """
        id = self._hash("id", form, number)[:32]
        code = Code(id, number, f"{int(self._hash('digits', id), 16) % 1_000_000:06}")
        now = time.time()
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")  # so that nobody else counts meanwhile
            database.execute("DELETE FROM codes WHERE made < ?", (now - PER_MINUTES * 60,))
            others = "SELECT count(*) FROM codes WHERE number = ? AND id != ?"
            if database.execute(others, (number, id)).fetchone()[0] >= CODES:
                raise TooMany
            row = "INSERT OR IGNORE INTO codes (id, number, hash, made) VALUES (?, ?, ?, ?)"
            database.execute(row, (id, number, self._hash("code", id, code.digits), now))
        return code

    def check(self, id: str, digits: str) -> bool:
        """Is this the code? It is so once, until it expires, and within a few guesses."""
        given, since = self._hash("code", id, digits.strip()), time.time() - VALID_MINUTES * 60
        with self._database() as database:
            guess = "UPDATE codes SET guesses = guesses + 1 WHERE id = ? AND guesses < ?"
            if not database.execute(guess, (id, GUESSES)).rowcount:
                return False
            use = "UPDATE codes SET hash = '' WHERE id = ? AND hash = ? AND made > ?"
            return bool(database.execute(use, (id, given, since)).rowcount)

    def state(self, id: str) -> str:
        """``on its way``, ``delivered`` or ``failed``; ``unknown`` if there is no such code."""
        with self._database() as database:
            row = database.execute("SELECT state FROM codes WHERE id = ?", (id,)).fetchone()
        return str(row[0]) if row else "unknown"

    def note(self, id: str, state: str) -> None:
        """What became of the message. Reports have no order: what was delivered stays so."""
        with self._database() as database:
            update = "UPDATE codes SET state = ? WHERE id = ? AND state != 'delivered'"
            database.execute(update, (state, id))

    def stop(self, number: str) -> None:
        """The number wants no more messages."""
        with self._database() as database:
            database.execute("INSERT OR IGNORE INTO stopped VALUES (?)", (number,))

    def start(self, number: str) -> None:
        """It wants them again."""
        with self._database() as database:
            database.execute("DELETE FROM stopped WHERE number = ?", (number,))

    def stopped(self, number: str) -> bool:
        """Did it say STOP?"""
        with self._database() as database:
            row = database.execute("SELECT 1 FROM stopped WHERE number = ?", (number,)).fetchone()
        return row is not None
