"""The ledger's records as they stand in Redis, and the files that the processes write."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

__all__ = ["Record", "read_lines", "records"]


@dataclass(frozen=True)
class Record:
    """A message's hash."""

    id: str
    state: str
    attempts: int
    resend: bool
    timeline: list[dict[str, Any]]
    context: dict[str, Any]

    def __str__(self) -> str:
        began = self.timeline[0]["at"]
        lines = [f"{self.id}: {self.state}, {self.attempts} attempts"]
        for line in self.timeline:
            rest = {k: v for k, v in line.items() if k not in ("at", "state", "next", "last")}
            lines.append(f"  +{(line['at'] - began) / 1000:7.3f} s {line['state']} {rest}")
        return "\n".join(lines)


def records(client: redis.Redis, namespace: str) -> dict[str, Record]:
    """All messages by id."""
    prefix = f"{namespace}:msg:"
    keys = list(client.scan_iter(f"{prefix}*", count=1000))
    found = {}
    for start in range(0, len(keys), 500):
        chunk = keys[start : start + 500]
        pipe = client.pipeline(transaction=False)
        for key in chunk:
            pipe.hgetall(key)
        for key, fields in zip(chunk, pipe.execute(), strict=True):
            id = key.removeprefix(prefix)
            found[id] = Record(
                id,
                fields["state"],
                int(fields.get("attempt", 0)),
                "resend" in fields,
                json.loads(fields["timeline"]),
                json.loads(fields["data"]).get("options", {}).get("context", {}),
            )
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What was written to a file of JSON lines; one that is being written is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]
