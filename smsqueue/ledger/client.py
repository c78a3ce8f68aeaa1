"""The Redis client of the ledger: time limits, TLS, and errors that say what to do."""

from __future__ import annotations

import codecs
import difflib
import json
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import sleep
from smsqueue.ledger.sentinels import PrimaryNotFound, primary_of
from smsqueue.logs import get_logger
from smsqueue.settings import Settings, SettingsError

__all__ = [
    "connect",
    "error_of_answer",
    "execute_above_maxmemory",
    "may_not_write",
    "retry_until_confirmed",
    "sentinel_options",
    "tls_options",
    "translated",
    "unreadable_tls_file",
]

log = get_logger(__name__)

T = TypeVar("T")

#: Part of a command's time limit that asking the sentinels may take, before the command is sent.
_SENTINELS = 0.5

#: Transient Redis errors, as opposed to invalid commands.
_TRANSIENT = (
    "BUSY",
    "MASTERDOWN",
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

#: Error handler for bytes that are not UTF-8, which smsqueue never writes: as escape sequences.
_JUNK = "smsqueue-junk"


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):
        return codecs.backslashreplace_errors(error)
    raise error


codecs.register_error(_JUNK, _escaped)


def tls_options(settings: Settings) -> dict[str, Any]:
    """Arguments of redis-py for TLS, for all connections to Redis, including the broker's.

    Certificate chain and host name are verified unless the URL says otherwise. The URL is parsed by
    redis-py itself: another parser could trust a server that the ledger does not trust.
    """
    return _tls_options(settings, settings.data_url)


def sentinel_options(settings: Settings, *, timeout: float) -> dict[str, Any]:
    """Arguments of redis-py for connections to the sentinels, also for those of the broker.

    Without them redis-py and kombu would wait for a sentinel without end, and repeat what failed.

    Args:
        timeout: Seconds for connecting, and for each answer.
    """
    url = settings.sentinels
    if url is None:
        return {}
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "username": url.sentinel_username,
        "password": url.sentinel_password,
        "retry": Retry(NoBackoff(), 0),
    }
    tls = _tls_options(settings, url.sentinel_tls_url)
    return options | ({"ssl": True} | tls if tls else {})


def _tls_options(settings: Settings, url: str) -> dict[str, Any]:
    if urlsplit(url).scheme != "rediss":
        return {}
    verified: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    if settings.redis_ca:
        verified["ssl_ca_certs"] = settings.redis_ca
    parse: Any = parse_url  # has no types
    options = parse(url).items()
    return verified | {name: value for name, value in options if name.startswith("ssl_")}


def unreadable_tls_file(settings: Settings) -> str | None:
    """What is wrong with the files that TLS needs, without the URL; None: nothing."""
    options = tls_options(settings) or sentinel_options(settings, timeout=1.0)
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
            # Without the path: the query of the URL is never shown.
            return f"needs a file that cannot be read ({why}): correct {name} in SMSQUEUE_REDIS_URL"
    return None


def connect(settings: Settings, *, timeout: float) -> redis.Redis:
    """A client whose every command ends within about ``timeout`` seconds.

    Raises:
        SettingsError: the URL has parameters that redis-py does not know.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": _JUNK,
        "socket_timeout": timeout,
        "socket_connect_timeout": min(timeout, 0.5) if timeout <= 1 else timeout / 2,
        "health_check_interval": 10,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        **tls_options(settings),
    }
    # redis-py refuses keepalive for a Unix socket.
    if not settings.redis_url.startswith("unix:"):
        options["socket_keepalive"] = True
    sentinels = settings.sentinels
    try:
        if sentinels is None:
            client: redis.Redis = redis.Redis.from_url(settings.redis_url, **options)
        else:
            parse: Any = parse_url  # has no types
            of_url = parse(sentinels.data_url)
            of_url.pop("connection_class", None)
            of_url["ssl"] = urlsplit(sentinels.data_url).scheme == "rediss"
            asked = sentinel_options(settings, timeout=min(1.0, _SENTINELS * timeout))
            client = primary_of(sentinels, asked, options | of_url)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # does not connect yet
    except (TypeError, ValueError):
        # ``from None``: the error may quote the URL.
        raise SettingsError(
            _wrong_option(settings)
            or f"SMSQUEUE_REDIS_URL is {settings.safe_redis_url!r}: redis-py does not know one of "
            "the parameters after the question mark, or its value: correct it"
        ) from None
    return client


def _wrong_option(settings: Settings) -> str:
    """What is wrong with an option of the URL; "": unknown, or the option may be a part of the
    password."""
    parts = urlsplit(settings.data_url)
    if "@" in parts.query:  # the password contains a question mark
        return ""
    kinds = {"rediss": redis.SSLConnection, "unix": redis.UnixDomainSocketConnection}
    kind: Any = kinds.get(parts.scheme, redis.Connection)
    known = {name for base in kind.__mro__ for name in signature(base.__init__).parameters}
    tls = set(signature(redis.SSLConnection.__init__).parameters)
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name in known:
            continue
        option = f"SMSQUEUE_REDIS_URL has the option {name!r}"
        if parts.scheme != "rediss" and name in tls:
            remedy = "add tls=1" if settings.sentinels else "write rediss://"
            return f"{option}, which needs TLS: {remedy}, or remove it"
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if near:
            return f"{option}, which redis-py does not know; did you mean {near[0]!r}?"
    return ""


def execute_above_maxmemory(
    client: redis.Redis, prefix: str, commands: Iterable[Iterable[Any]]
) -> list[Any]:
    """Run commands of the broker that Redis refused above maxmemory.

    Triggers of accepted messages are few (the queues have watermarks), and without them no accepted
    message would be finished, and no memory would be freed.

    Args:
        prefix: First part of the broker's keys.
    """
    texts = json.dumps([[_as_text(argument) for argument in command] for command in commands])
    answers: Any = client.eval(_ABOVE_MAXMEMORY, 1, f"{prefix}none", texts)
    return list(answers)


def _as_text(argument: Any) -> str:
    return argument.decode() if isinstance(argument, bytes) else str(argument)


@contextmanager
def translated(settings: Settings, *, for_operators: bool = False) -> Iterator[None]:
    """Turn Redis's errors into QueueUnavailable, with the remedy.

    Args:
        for_operators: The account of an operator may run the command.
    """
    earlier = sys.exception()  # which the caller handles, and which is not about this command
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise _translated(settings, error, for_operators, earlier) from error
    except OSError as error:  # a host name that does not resolve, a socket file that is not there
        unreachable = exc.QueueUnavailable(f"Redis at {settings.safe_redis_url}: {error}")
        unreachable.refused = _surely_without_effect(error, earlier)
        raise unreachable from error


def _translated(
    settings: Settings,
    error: redis.exceptions.RedisError,
    for_operators: bool = False,
    earlier: BaseException | None = None,
) -> exc.QueueUnavailable:
    word, _, cause = str(error).partition(" ")
    if word == "DAMAGED":  # see shared/damage.lua
        return exc.DamagedRecord(cause)
    translated_error = _kind(error)(_advice(settings, error, for_operators))
    translated_error.refused = _surely_without_effect(error, earlier)
    return translated_error


def error_of_answer(settings: Settings, text: str) -> exc.QueueUnavailable:
    """The error that a script returned as a part of its answer."""
    kind = _ERRORS.get(text.partition(" ")[0], redis.exceptions.ResponseError)
    return _translated(settings, kind(text))


#: Errors that Redis returns before a command, or a script's first write, has had any effect.
_REFUSALS = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
)
#: redis-py's error classes, by the first word of Redis's error.
_ERRORS: dict[str, type[redis.exceptions.RedisError]] = {
    "LOADING": redis.exceptions.BusyLoadingError,
    "NOPERM": redis.exceptions.NoPermissionError,
    "OOM": redis.exceptions.OutOfMemoryError,
    "READONLY": redis.exceptions.ReadOnlyError,
}
#: Errors of Redis 6.2, and of 7 and later, when a command of a script is denied to the account.
_DENIED_IN_SCRIPT = re.compile("user executing the script|ACL failure in script")
#: Errors of connecting, before anything was written.
_NOT_CONNECTED = (
    ConnectionRefusedError,
    socket.gaierror,
    FileNotFoundError,
    PrimaryNotFound,
)
#: Errors, also of a script's first write, of a server that may not write: no write before it can
#: have had any effect, because the server does not change while a script runs.
_MAY_NOT_WRITE = re.compile("(^|-)(READONLY You can't write|NOREPLICAS Not enough)")

#: Reasons of ``ssl.SSLError`` in a handshake, before anything was written.
_NO_TLS = ("CERTIFICATE_VERIFY_FAILED", "NO_CERTIFICATE_OR_CRL_FOUND")


def _surely_without_effect(error: BaseException, earlier: BaseException | None = None) -> bool:
    """Is it certain that Redis did not execute the command that failed?

    Args:
        earlier: An error that was being handled when the command was sent.
    """
    cause: BaseException | None = error
    while cause is not None and cause is not earlier:
        if isinstance(cause, _NOT_CONNECTED) or getattr(cause, "reason", "") in _NO_TLS:
            return True
        if may_not_write(cause):  # redis-py replaces it by a ConnectionError
            return True
        cause = cause.__cause__ or cause.__context__
    return _denied_as_sent(error) or isinstance(error, _REFUSALS)


def may_not_write(error: BaseException) -> bool:
    """Did a server answer that it is a replica, or a primary without its replicas?"""
    return (
        isinstance(error, redis.exceptions.ResponseError)
        and _MAY_NOT_WRITE.search(str(error)) is not None
    )


def _denied_as_sent(error: BaseException) -> bool:
    """Was the command itself, or one of its declared keys, denied to the account?

    A script that is denied a command of its own may have written before.
    """
    return (
        isinstance(error, redis.exceptions.NoPermissionError)
        and re.search("no permissions to (run|access) ", str(error), re.IGNORECASE) is not None
        and _DENIED_IN_SCRIPT.search(str(error)) is None
    )


def _kind(error: redis.exceptions.RedisError) -> type[exc.QueueUnavailable]:
    # Most transient errors have a class of their own.
    lasting = type(error) in (redis.exceptions.ResponseError, redis.exceptions.DataError)
    if lasting and not any(word in str(error) for word in _TRANSIENT):
        return exc.LedgerError
    return exc.QueueUnavailable


def _advice(settings: Settings, error: redis.exceptions.RedisError, for_operators: bool) -> str:
    where = f"Redis at {settings.safe_redis_url}"
    text = str(error)
    if isinstance(error, redis.exceptions.AuthenticationError) or "WRONGPASS" in text:
        return f"{where} refused the user or password: correct SMSQUEUE_REDIS_URL"
    if "NOAUTH" in text:
        return f"{where} requires a user and a password: put them into SMSQUEUE_REDIS_URL"
    denied = isinstance(error, redis.exceptions.NoPermissionError)
    if denied or _DENIED_IN_SCRIPT.search(text):
        such_as = f", such as {settings.namespace}-operator," if for_operators else ""
        return (
            f"{where} does not allow this to its user: put the user and the password of an account "
            f"that may do it{such_as} into SMSQUEUE_REDIS_URL ('smsqueue acl' makes accounts)"
        )
    if isinstance(error, redis.exceptions.TimeoutError):
        return f"{where} did not answer in time: is it overloaded or frozen?"
    if "OOM" in text:
        return f"{where} has no memory left: raise its maxmemory"
    if "NOREPLICAS" in text:
        return (
            f"{where} has fewer replicas than its min-replicas-to-write, and takes nothing: check "
            "the replicas (redis-cli INFO replication)"
        )
    if may_not_write(error):
        return f"{where} is a replica, where nothing may be written: a failover may be under way"
    if isinstance(error, PrimaryNotFound):
        return f"{where}: the sentinels name no primary: {text[:200]}"
    if isinstance(error, redis.exceptions.ConnectionError):
        unreadable = unreadable_tls_file(settings)
        if unreadable:
            return f"{where} {unreadable}"
        return f"{where} cannot be reached: start it, or correct SMSQUEUE_REDIS_URL ({text[:120]})"
    return f"{where} answered with an error: {text[:200]}"


def retry_until_confirmed(command: Callable[[], T]) -> T:
    """Repeat a command of the ledger until Redis confirms it.

    For the outcome of a call that has been made: it must not be lost.

    Raises:
        LedgerError: no repetition would succeed.
    """
    delay = 0.2
    while True:
        try:
            return command()
        except exc.LedgerError:
            raise
        except exc.QueueUnavailable as error:
            log.error("waiting for Redis: %s", error)
            sleep(delay)
            delay = min(delay * 2, 5.0)
