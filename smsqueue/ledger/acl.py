"""Redis accounts, one for each kind of process, with the rights that its scripts and its broker
connection need.

A script that writes events declares their key, so that Redis refuses it before it changes anything
if the account may not write events (see scripts.py).

The rules are those of Redis 6.2, which has no separate rights to read and to write a key. Redis
checks every command of a script, with its keys, as if the account had sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ROLES", "Role", "user_line"]

#: Commands that every connection needs.
_CONNECT = ("auth", "hello", "ping", "select")

#: Commands that load and run scripts.
_SCRIPTS = ("evalsha", "script|load", "script|exists")

#: Commands of scripts about messages, and of lookups.
_MESSAGES = (
    *("del", "exists", "expire", "get", "hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys"),
    *("hlen", "hmget", "hset", "info", "llen", "object", "pexpire", "rename", "set", "smembers"),
    *("time", "type", "wait", "zadd", "zcard", "zrange", "zrem", "zunionstore"),
)

#: All commands of the ledger.
_LEDGER = (
    *_MESSAGES,
    *("hsetnx", "lrange", "pttl", "rpush", "sadd", "scard", "srem", "zcount", "zrangebyscore"),
    *("zremrangebyrank", "zremrangebyscore", "zrevrange", "zrevrangebyscore", "zscore"),
)

#: Publishing a trigger and its task event. ``eval``: publishing above maxmemory.
_PUBLISH = ("eval", "lpush", "publish", "sadd", "smembers", "multi", "exec", "pexpire")

#: Commands of kombu's consumers, and of Flower.
_CONSUME = (
    *_PUBLISH,
    *("brpop", "rpop", "rpush", "llen", "hset", "hget", "hdel", "hlen", "set", "get", "del"),
    *("exists", "zadd", "zrem", "zrange", "zrangebyscore", "zrevrangebyscore", "srem", "time"),
    *("watch", "unwatch", "discard", "psubscribe", "punsubscribe", "unsubscribe"),
)


@dataclass(frozen=True)
class Role:
    """The rights of the account of one kind of process.

    Args:
        name: The account is called ``<namespace>-<name>``.
        purpose: Which processes use it.
        commands: Redis commands; ``command|subcommand`` for one subcommand.
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
#: Where kombu registers a queue when it publishes to it.
_BINDINGS = tuple(
    f"{{ns}}:broker:_kombu.{table}.{{ns}}.{queue}"
    for table in ("binding", "binding_permanent")
    for queue in ("send", "hook")
)
#: Channels on which monitors learn that a task was published.
_TASK_EVENTS = ("{ns}:broker:/{db}.celeryev/task*",)
#: All events of tasks and workers; and remote control of workers. The pattern of a subscription
#: has to be equal to the allowed one.
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
            *(f"{{ns}}:{kind}:*" for kind in ("tag", "filled", "passed", "pause", "health")),
            *(f"{{ns}}:{name}" for name in ("counts", "damaged", "ends", "pauses", "secret")),
            *_QUEUES,
            *_BINDINGS,
            # Declared by publishing above maxmemory; the key never exists.
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
            *(
                f"{{ns}}:{name}"
                for name in ("unrouted", "unrouted_why", "webhook_bytes", "samples")
            ),
            "{ns}:held",
            "{ns}:held:*",
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
            channels. It does not limit keys: Redis has one set of rights for all databases.
        password_hash: SHA-256 of the password in hex digits.
    """
    names = {"ns": namespace, "db": database}
    rules: Iterable[str] = (
        "on",
        f"#{password_hash}",
        "resetkeys",
        *(f"~{key.format(**names)}" for key in role.keys),
        "resetchannels",
        *(f"&{channel.format(**names)}" for channel in role.channels),
        "-@all",
        *(f"+{command}" for command in sorted(set(role.commands))),
    )
    return f"user {namespace}-{role.name} {' '.join(rules)}"
