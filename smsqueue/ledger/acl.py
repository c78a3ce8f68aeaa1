"""Accounts of Redis, one for each kind of process, that may do what its scripts and its broker
connection need and nothing else.

A script of the ledger that writes events declares it: an account that may not write them is refused
before anything is changed (see scripts.py).

The rules are those of Redis 6.2, which knows no separate rights to read and to write a key. Redis
checks every command that a script runs, with its keys, as if the account had sent it itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ROLES", "Role", "user_line"]

#: What a connection needs before it does anything.
_CONNECT = ("auth", "hello", "ping", "select")

#: How a script is run: by its hash, or loaded first.
_SCRIPTS = ("evalsha", "script|load", "script|exists")

#: Commands of the ledger's scripts about messages, and of looking a message up.
_MESSAGES = (
    *("del", "exists", "expire", "get", "hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys"),
    *("hlen", "hmget", "hset", "info", "llen", "object", "pexpire", "rename", "set", "smembers"),
    *("time", "type", "zadd", "zcard", "zrange", "zrem", "zunionstore"),
)

#: All commands of the ledger's scripts, and of what reads the ledger.
_LEDGER = (
    *_MESSAGES,
    *("hsetnx", "lrange", "pttl", "rpush", "sadd", "scard", "srem", "zcount", "zrangebyscore"),
    *("zremrangebyrank", "zremrangebyscore", "zrevrange", "zrevrangebyscore", "zscore"),
)

#: Publishing a trigger and the event that says so. ``eval``: a trigger above maxmemory.
_PUBLISH = ("eval", "lpush", "publish", "sadd", "smembers", "multi", "exec", "pexpire")

#: What kombu's connections of a consumer do, and Flower's.
_CONSUME = (
    *_PUBLISH,
    *("brpop", "rpop", "rpush", "llen", "hset", "hget", "hdel", "hlen", "set", "get", "del"),
    *("exists", "zadd", "zrem", "zrange", "zrangebyscore", "zrevrangebyscore", "srem", "time"),
    *("watch", "unwatch", "discard", "psubscribe", "punsubscribe", "unsubscribe"),
)


@dataclass(frozen=True)
class Role:
    """What the account of one kind of process may do.

    Args:
        name: The account is called ``<namespace>-<name>``.
        purpose: Which processes use it.
        commands: Names of Redis commands, ``command|subcommand`` for a part of one.
        keys: Patterns of keys; "{ns}" is the namespace, "{db}" the number of the database.
        channels: Patterns of channels that it may publish to and subscribe to.
    """

    name: str
    purpose: str
    commands: tuple[str, ...]
    keys: tuple[str, ...]
    channels: tuple[str, ...] = ()


_EVERY_KEY = ("{ns}", "{ns}:*")
_QUEUES = ("{ns}:broker:{ns}.send", "{ns}:broker:{ns}.hook")
#: Where kombu notes which queues there are, as it publishes to one.
_BINDINGS = tuple(
    f"{{ns}}:broker:_kombu.{table}.{{ns}}.{queue}"
    for table in ("binding", "binding_permanent")
    for queue in ("send", "hook")
)
#: Monitors hear there that a task was published.
_TASK_EVENTS = ("{ns}:broker:/{db}.celeryev/task*",)
#: All events of tasks and workers; and remote control of the workers. The pattern of a
#: subscription has to be the very one that is allowed.
_EVENTS = "{ns}:broker:/{db}.celeryev/*"
_CONTROL = "{ns}:broker:/{db}.celery.pidbox"
#: What workers subscribe to of each other, unless they are started with --without-gossip.
_GOSSIP = "{ns}:broker:/{db}.celeryev/worker.*"

ROLES = (
    Role(
        "sender",
        "applications that send messages and look them up",
        (*_CONNECT, *_SCRIPTS, *_MESSAGES, *_PUBLISH),
        (
            "{ns}",
            *(f"{{ns}}:{kind}:*" for kind in ("msg", "state", "due", "number", "idem", "aside")),
            *(f"{{ns}}:{kind}:*" for kind in ("filled", "passed", "pause", "health")),
            *(f"{{ns}}:{name}" for name in ("counts", "damaged", "ends", "pauses", "secret")),
            *_QUEUES,
            *_BINDINGS,
            # Declared by what publishes above maxmemory; it is never there.
            "{ns}:broker:none",
        ),
        _TASK_EVENTS,
    ),
    Role(
        "worker",
        "workers: sending, hooks, upkeep",
        (*_CONNECT, *_SCRIPTS, *_LEDGER, *_CONSUME),
        _EVERY_KEY,
        (_EVENTS, _CONTROL, _GOSSIP),
    ),
    Role(
        "receivers",
        "receivers of webhooks, and their /metrics",
        (*_CONNECT, *_SCRIPTS, *_LEDGER, *_PUBLISH),
        _EVERY_KEY,
        _TASK_EVENTS,
    ),
    Role(
        "flower",
        "Flower, which sees the broker and nothing of the ledger",
        (*_CONNECT, *_SCRIPTS, *_CONSUME),
        ("{ns}:broker:*",),
        (_EVENTS, _CONTROL),
    ),
    Role(
        "operator",
        "the command line",
        (*_CONNECT, *_SCRIPTS, *_LEDGER, *_PUBLISH),
        _EVERY_KEY,
        _TASK_EVENTS,
    ),
    Role(
        "monitor",
        "smsqueue status, which reads counters and no message",
        (
            *_CONNECT,
            *_SCRIPTS,
            *("hget", "hgetall", "hkeys", "hlen", "hmget", "info", "llen", "object"),
            *("smembers", "time"),
            *("get", "zcard", "zcount", "zrange", "zrevrange", "zrevrangebyscore"),
        ),
        (
            "{ns}",
            *(f"{{ns}}:{kind}:*" for kind in ("state", "due", "pause", "health", "filled")),
            *(f"{{ns}}:{name}" for name in ("counts", "damaged", "pauses", "workers")),
            *(f"{{ns}}:{name}" for name in ("unrouted", "unrouted_why", "webhook_bytes")),
            # Sizes of the events of each provider, and their ids.
            "{ns}:webhooks:*",
            *_QUEUES,
        ),
    ),
)


def user_line(role: Role, namespace: str, database: int, password_hash: str) -> str:
    """The line of an ACL file for one account.

    Args:
        database: Number of the database in SMSQUEUE_REDIS_URL, which is a part of the names of
            channels. It limits no keys: Redis has one set of rights for all its databases.
        password_hash: SHA-256 of the password in hex digits.
    """
    names = {"ns": namespace, "db": database}
    rules: Iterable[str] = (
        "on",
        f"#{password_hash}",
        "resetkeys",
        *(f"~{each.format(**names)}" for each in role.keys),
        "resetchannels",
        *(f"&{each.format(**names)}" for each in role.channels),
        "-@all",
        *(f"+{each}" for each in sorted(set(role.commands))),
    )
    return f"user {namespace}-{role.name} {' '.join(rules)}"
