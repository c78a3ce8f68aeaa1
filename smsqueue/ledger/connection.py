"""The connection to Redis: bounded, never repeating a command by itself."""

from __future__ import annotations

import codecs
import difflib
import json
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.resources import files
from inspect import signature
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.connection import parse_url
from redis.retry import Retry

from smsqueue import exc
from smsqueue.ledger.assembly import Definition, definitions_of, needed
from smsqueue.settings import Settings, SettingsError

__all__ = [
    "GROUP_LIMIT",
    "Scripts",
    "connect",
    "execute_above_maxmemory",
    "tls_options",
    "translated",
    "unreadable_tls_file",
]

#: Refused when memory is full, or writing nothing; every other script ends what was accepted before
#: and may go on.
_TAKE_IN = {"accept", "receive", "part", "room"}

#: These change nothing.
_READ = {"page"}

#: These need no event. All others declare a key of events, so that Redis refuses them before they
#: change anything if the account may not write events: see acl.py. A script that is refused in its
#: middle would leave half of a transition.
_WITHOUT_EVENTS = {"accept", "hash_key", "page", "room"}

#: What all scripts share, each file may use those before it.
_SHARED = (
    *("base", "writes", "damage", "memory", "webhooks"),
    *("messages", "triggers", "events", "reports", "providers"),
)

#: Run by commands and applications that look for messages or change what became of them.
_OF_OPERATORS = {"cancel", "decide", "hook_replay", "page", "purge", "remove", "repair", "requeue"}

#: Scripts about one record, which their first argument names, and of which kind that is.
_SUBJECTS = dict.fromkeys(
    ("claim", "unclaim", "begin", "settle", "asked", "cancel", "requeue", "decide"), "msg"
) | dict.fromkeys(
    ("hook_claim", "hook_done", "hook_later", "hook_settle", "hook_replay", "hook_renew"), "event"
)

#: Scripts that run for a group of items in one call. A single call is a group of one.
_GROUPED = {"claim", "unclaim", "put_back", "begin", "settle", "hook_claim", "hook_settle"}

#: Scripts about one thing that write later, as those of groups do: see shared/writes.lua.
_WRITE_LATER = {"accept", "receive", "report"}

#: Items of a group at most.
GROUP_LIMIT = 64

#: Words of errors that say how Redis is now, not what is wrong with the command.
_FOR_NOW = (
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "UNKILLABLE",
    "max number of clients",
)


#: Runs commands that Redis refuses above maxmemory. It allows them in a script after a first write
#: that needs no memory; the key of that one does not exist.
_ABOVE_MAXMEMORY = """
redis.call('DEL', KEYS[1])
local answers = {}
for i, command in ipairs(cjson.decode(ARGV[1])) do answers[i] = redis.call(unpack(command)) end
return answers
"""

#: A write of every script that may go on when memory is full.
_FIRST_WRITE = """
local may_write, why = pcall(redis.call, 'ZREM', due_key('watch'), '')
if not may_write then
  return redis.error_reply(string.match(why, '^%u+ ') and why or 'ERR ' .. why)
end
"""

#: How bytes are read that are no UTF-8, which is none of our writing: as escape sequences.
_JUNK = "smsqueue-junk"


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):
        return codecs.backslashreplace_errors(error)
    raise error


codecs.register_error(_JUNK, _escaped)


def tls_options(settings: Settings) -> dict[str, Any]:
    """How every connection to Redis uses TLS, those of the broker too: redis-py's arguments.

    The chain and the host name are verified unless the address says otherwise. The address is read
    by redis-py itself: another reading of it could trust what the ledger does not trust.
    """
    if urlsplit(settings.redis_url).scheme != "rediss":
        return {}
    verified: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    if settings.redis_ca:
        verified["ssl_ca_certs"] = settings.redis_ca
    parsed: Any = parse_url  # has no types
    given = parsed(settings.redis_url).items()
    return verified | {name: value for name, value in given if name.startswith("ssl_")}


def unreadable_tls_file(settings: Settings) -> str | None:
    """What is wrong with the files that TLS needs, without the address; None: nothing."""
    options = tls_options(settings)
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = options.get(name)
        if not path:
            continue
        try:
            if name == "ssl_ca_certs":
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            else:
                with open(path, "rb"):
                    pass
        except OSError as error:
            why = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
            if name == "ssl_ca_certs" and settings.redis_ca:
                return f"needs {path}, which cannot be read ({why}): correct SMSQUEUE_REDIS_CA"
            # Without the path: what follows the question mark is never shown.
            return f"needs a file that cannot be read ({why}): correct {name} in SMSQUEUE_REDIS_URL"
    return None


def connect(settings: Settings, *, timeout: float) -> redis.Redis:
    """A client whose every command ends within about ``timeout`` seconds.

    Raises:
        SettingsError: the address has parameters that redis-py does not know.
    """
    # A Unix socket has no keepalive, and redis-py refuses to be asked for it.
    keepalive = {} if settings.redis_url.startswith("unix:") else {"socket_keepalive": True}
    try:
        client: redis.Redis = redis.Redis.from_url(
            settings.redis_url,
            decode_responses=True,
            encoding_errors=_JUNK,
            socket_timeout=timeout,
            socket_connect_timeout=min(timeout, 0.5) if timeout <= 1 else timeout / 2,
            health_check_interval=10,
            **keepalive,
            **tls_options(settings),
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # does not connect yet
    except (TypeError, ValueError):
        # ``from None``: the error may print a part of the address.
        raise SettingsError(
            _wrong_option(settings)
            or f"SMSQUEUE_REDIS_URL is {settings.safe_redis_url!r}: redis-py does not know one of "
            "the parameters after the question mark, or its value: correct it"
        ) from None
    return client


def _wrong_option(settings: Settings) -> str:
    """What is wrong with an option of the address; "": that cannot be said without showing what
    may be a part of a password."""
    parts = urlsplit(settings.redis_url)
    if "@" in parts.query:  # the password has a question mark
        return ""
    kinds = {"rediss": redis.SSLConnection, "unix": redis.UnixDomainSocketConnection}
    kind: Any = kinds.get(parts.scheme, redis.Connection)
    known = {name for each in kind.__mro__ for name in signature(each.__init__).parameters}
    tls = set(signature(redis.SSLConnection.__init__).parameters)
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name in known:
            continue
        option = f"SMSQUEUE_REDIS_URL has the option {name!r}"
        if parts.scheme != "rediss" and name in tls:
            return f"{option}, which needs TLS: write rediss://, or remove it"
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if near:
            return f"{option}, which is none: did you mean {near[0]!r}?"
    return ""


def execute_above_maxmemory(
    client: redis.Redis, prefix: str, commands: Iterable[Iterable[Any]]
) -> list[Any]:
    """Run commands of the broker that Redis refused because its memory is used up; their answers.

    Triggers of accepted messages are few (the queues have watermarks), and without them nothing
    that was accepted would be finished, and no memory become free.

    Args:
        prefix: First part of the broker's keys.
    """
    texts = json.dumps([[_as_text(each) for each in command] for command in commands])
    answers: Any = client.eval(_ABOVE_MAXMEMORY, 1, f"{prefix}none", texts)
    return list(answers)


def _as_text(argument: Any) -> str:
    return argument.decode() if isinstance(argument, bytes) else str(argument)


@contextmanager
def translated(settings: Settings, script: str = "") -> Iterator[None]:
    """Turn Redis's errors into QueueUnavailable, with what to do about it.

    Args:
        script: Name of the script that runs, if it is one.
    """
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise _translated(settings, error, script) from error
    except OSError as error:  # a host name that does not resolve, a socket file that is not there
        unreachable = exc.QueueUnavailable(f"Redis at {settings.safe_redis_url}: {error}")
        unreachable.refused = _surely_without_effect(error)
        raise unreachable from error


def _translated(
    settings: Settings, error: redis.exceptions.RedisError, script: str = ""
) -> exc.QueueUnavailable:
    word, _, cause = str(error).partition(" ")
    if word == "DAMAGED":  # see shared/damage.lua
        return exc.DamagedRecord(cause)
    translated_error = _kind(error)(_advice(settings, error, script))
    translated_error.refused = _surely_without_effect(error)
    return translated_error


#: Redis answers so before a command, or a script's first write, has had any effect.
_REFUSALS = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
)
#: Classes of errors that redis-py makes of an answer, by the first word of its text.
_ERRORS: dict[str, type[redis.exceptions.RedisError]] = {
    "LOADING": redis.exceptions.BusyLoadingError,
    "NOPERM": redis.exceptions.NoPermissionError,
    "OOM": redis.exceptions.OutOfMemoryError,
    "READONLY": redis.exceptions.ReadOnlyError,
}
#: How Redis 6.2, and Redis from 7 on, say that a command of a script is denied to the account.
_DENIED_IN_SCRIPT = re.compile("user executing the script|ACL failure in script")
#: Errors of connecting: nothing was written yet.
_NOT_CONNECTED = (ConnectionRefusedError, socket.gaierror, FileNotFoundError)

#: Reasons of ``ssl.SSLError`` with which a connection begins: nothing was written either.
_NO_TLS = ("CERTIFICATE_VERIFY_FAILED", "NO_CERTIFICATE_OR_CRL_FOUND")


def _surely_without_effect(error: BaseException) -> bool:
    """Did Redis surely not carry out the command that failed?"""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _NOT_CONNECTED) or getattr(cause, "reason", "") in _NO_TLS:
            return True
        cause = cause.__cause__ or cause.__context__
    return _denied_as_sent(error) or isinstance(error, _REFUSALS)


def _denied_as_sent(error: BaseException) -> bool:
    """Was the command itself denied to the account, or one of the keys that it declares?

    A script that is denied one of its own commands may have written before it.
    """
    return (
        isinstance(error, redis.exceptions.NoPermissionError)
        and re.search("no permissions to (run|access) ", str(error), re.IGNORECASE) is not None
        and _DENIED_IN_SCRIPT.search(str(error)) is None
    )


def _kind(error: redis.exceptions.RedisError) -> type[exc.QueueUnavailable]:
    # What Redis says of its own condition has mostly a class of its own.
    lasting = type(error) in (redis.exceptions.ResponseError, redis.exceptions.DataError)
    if lasting and not any(word in str(error) for word in _FOR_NOW):
        return exc.LedgerError
    return exc.QueueUnavailable


def _advice(settings: Settings, error: redis.exceptions.RedisError, script: str) -> str:
    where = f"Redis at {settings.safe_redis_url}"
    text = str(error)
    if isinstance(error, redis.exceptions.AuthenticationError) or "WRONGPASS" in text:
        return f"{where} refused the user or password: correct SMSQUEUE_REDIS_URL"
    if "NOAUTH" in text:
        return f"{where} wants a user and a password: put them into SMSQUEUE_REDIS_URL"
    denied = isinstance(error, redis.exceptions.NoPermissionError)
    if denied or _DENIED_IN_SCRIPT.search(text):
        such_as = f", such as {settings.namespace}-operator," if script in _OF_OPERATORS else ""
        return (
            f"{where} does not allow this to its user: put the user and the password of an account "
            f"that may do it{such_as} into SMSQUEUE_REDIS_URL ('smsqueue acl' makes accounts)"
        )
    if isinstance(error, redis.exceptions.TimeoutError):
        return f"{where} did not answer in time: is it overloaded or frozen?"
    if "OOM" in text:
        return f"{where} has no memory left: raise its maxmemory"
    if isinstance(error, redis.exceptions.ConnectionError):
        unreadable = unreadable_tls_file(settings)
        if unreadable:
            return f"{where} {unreadable}"
        return f"{where} cannot be reached: start it, or correct SMSQUEUE_REDIS_URL ({text[:120]})"
    return f"{where} answered with an error: {text[:200]}"


def _text(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text("utf-8")


class Scripts:
    """The Lua scripts by name, each with what it uses of the shared part and of the settings."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._keys = [settings.namespace, settings.send_key, settings.hook_key]
        self._scripts: dict[str, Script] = {}

    @cached_property
    def _shared(self) -> list[Definition]:
        """What scripts may use: the times and limits of the settings, and the shared files."""
        s = self._settings
        times = {
            "GRACE": s.grace,
            "RETENTION": s.retention,
            "REPORT_WAIT": s.report_wait,
            "PARK_WAIT": s.park_wait,
            "HOOK_LEASE": s.hook_lease,
        }
        numbers = {name: int(seconds * 1000) for name, seconds in times.items()}
        numbers |= {"WATERMARK": s.watermark, "BULK_WATERMARK": s.bulk_watermark}
        numbers["WEBHOOK_QUOTA"] = s.webhook_quota
        lines = [f"local {name} = {number}" for name, number in numbers.items()]
        texts = ["\n".join(lines), *(_text(f"shared/{name}") for name in _SHARED)]
        return [definition for text in texts for definition in definitions_of(text)]

    def _script(self, name: str) -> Script:
        if name not in self._scripts:
            how = "run_and_write" if name in _WRITE_LATER else "run_alone"
            how = "run_group" if name in _GROUPED else how
            # When memory is full Redis forbids a script's first write unless that frees
            # memory, and allows all after it.
            text = "" if name in _TAKE_IN | _READ else _FIRST_WRITE
            # Its ARGV are its own: of one item of the group.
            text += f"return {how}('{_SUBJECTS.get(name, '')}', function(ARGV)\n{_text(name)}\nend)"
            self._scripts[name] = self._client.register_script(
                f"{needed(self._shared, text)}\n{text}"
            )
        return self._scripts[name]

    def run(self, name: str, *args: str | int | float, client: Any = None) -> Any:
        """Run a script; with a pipeline as ``client`` its answer comes with the pipeline's."""
        if name in _GROUPED:
            (answer,) = self.run_group(name, [args])
            if isinstance(answer, exc.QueueUnavailable):
                raise answer
            return answer
        try:
            return self._call(name, args, client)
        except exc.DamagedRecord as error:
            if name not in _SUBJECTS:
                raise
            # The script does not name the record, but is about one only.
            raise exc.DamagedRecord(error.cause, str(args[0])) from None

    def _call(self, name: str, args: Sequence[Any], client: Any = None) -> Any:
        events = [] if name in _WITHOUT_EVENTS else [f"{self._settings.namespace}:event:"]
        with translated(self._settings, name):
            return self._script(name)(keys=self._keys + events, args=args, client=client)

    def run_group(self, name: str, items: Sequence[Sequence[str | int | float]]) -> list[Any]:
        """Run a script for each of some items, in few calls: as many as Redis does without keeping
        others waiting.

        Args:
            items: The arguments for each, the same number for all; first the id of its record.

        Returns:
            For each item its answer, or the error that concerns it alone.

        Raises:
            QueueUnavailable: Redis did not confirm all of them. Repeating the whole group gives the
                first answers.
        """
        if len(items) > GROUP_LIMIT:
            raise ValueError(f"a group has {GROUP_LIMIT} items at most, not {len(items)}")
        found: list[Any] = []
        while len(found) < len(items):
            rest = items[len(found) :]
            args = [len(rest[0]), *(argument for item in rest for argument in item)]
            for item, answer in zip(rest, self._call(name, args), strict=False):
                found.append(answer[0] if len(answer) == 1 else self._error(answer[1], item[0]))
        return found

    def _error(self, text: str, id: str | int | float) -> exc.QueueUnavailable:
        """The error of one item of a group."""
        if text.startswith("DAMAGED "):
            return exc.DamagedRecord(text.partition(" ")[2], str(id))
        word = text.partition(" ")[0]
        return _translated(self._settings, _ERRORS.get(word, redis.exceptions.ResponseError)(text))
