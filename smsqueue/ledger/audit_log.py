"""The audit: who did what, when, to how many messages, and with which result.

An entry is written by the script that changes the first record, see shared/audit_log.lua. It never
holds texts, and numbers only masked.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from smsqueue.message.ids import new_id

__all__ = ["Action", "AuditEntry", "checked_name", "host_name", "parse_entry", "process_user"]

_LONGEST_NAME = 64
_LONGEST_DETAIL = 200
#: An action that was begun and has counted nothing for so many seconds was interrupted.
_SILENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Action:
    """What somebody does to one record or to many. Every script that does a part of it counts that
    in the same entry."""

    #: cancel, requeue, settle, replay, repair, remove, purge, pause, resume ...
    name: str
    #: Who does it, and on which machine.
    by: str
    host: str
    #: Filters and arguments. No texts, and numbers only masked.
    details: Mapping[str, str] = field(default_factory=dict)
    #: It concerns one record: it may continue the entry of the operation before it.
    single: bool = True
    id: str = field(default_factory=new_id)

    def to_json(self) -> str:
        """Its form for scripts."""
        details = json.dumps({k: v[:_LONGEST_DETAIL] for k, v in self.details.items()})
        same = json.dumps([self.name, self.by, self.host, details])
        values = {
            "id": self.id,
            "action": self.name,
            "by": self.by,
            "host": self.host,
            "details": details,
            "single": self.single,
            "same": hashlib.sha256(same.encode()).hexdigest()[:16],
        }
        return json.dumps(values)


@dataclass(frozen=True)
class AuditEntry:
    """What somebody did."""

    id: str
    #: Its first and last operation.
    at: datetime
    last: datetime
    by: str
    host: str
    action: str
    #: Filters and arguments.
    details: Mapping[str, str]
    #: How many records it was about, as counted before it began; None: they were not counted.
    matched: int | None
    #: How many records were changed, and how many could not be.
    done: int
    refused: int
    #: Ids of the first ten records that were changed.
    ids: tuple[str, ...]
    #: done | refused (nothing was changed) | running | interrupted
    result: str


def parse_entry(id: str, fields: Mapping[str, str], now: float) -> AuditEntry | None:
    """The entry in a hash; None if it is gone or cannot be read.

    Args:
        now: Redis's clock, in seconds.
    """
    try:
        at = int(fields["at"]) / 1000
        last = int(fields.get("last", fields["at"])) / 1000
        done, refused = int(fields.get("done", 0)), int(fields.get("refused", 0))
        result = fields.get("result", "")
        if not result and not fields.get("single"):
            result = "interrupted" if now - last > _SILENCE_SECONDS else "running"
        elif result != "interrupted":
            result = "refused" if refused and not done else "done"
        return AuditEntry(
            id,
            datetime.fromtimestamp(at, UTC),
            datetime.fromtimestamp(last, UTC),
            fields["by"],
            fields["host"],
            fields["action"],
            {str(k): str(v) for k, v in json.loads(fields["details"]).items()},
            int(fields["matched"]) if fields.get("matched") else None,
            done,
            refused,
            tuple(fields.get("ids", "").split()),
            result,
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, OSError):
        return None


def checked_name(name: object) -> str:
    """The name of a person, for the audit.

    Raises:
        ValueError: it is not 1 to 64 printable characters.
    """
    if isinstance(name, str) and name.isprintable() and 0 < len(name.strip()) <= _LONGEST_NAME:
        return name.strip()
    raise ValueError(
        f"a name for the audit has 1 to {_LONGEST_NAME} printable characters: write it as alice "
        "or alice@example.com"
    )


def process_user() -> str:
    """The user that the operating system runs this process as, by its id if it has no name."""
    try:
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # not Unix, or a container without this user
        try:
            name = getpass.getuser()
        except (OSError, KeyError, ImportError):
            name = ""
    try:
        return checked_name(name)
    except ValueError:
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def host_name() -> str:
    """The name of this machine, in the form of :func:`checked_name`."""
    try:
        return checked_name(socket.gethostname()[:_LONGEST_NAME])
    except (ValueError, OSError):
        return "unknown"
