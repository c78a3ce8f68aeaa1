"""Whether the Redis server can hold a ledger, and if not, why."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import redis

from smsqueue import exc
from smsqueue.ledger.client import connect, translated, unreadable_tls_file
from smsqueue.settings import Settings

__all__ = [
    "RedisMisconfigured",
    "diagnosed",
    "verify_server",
]

#: Seconds that probing a port for its protocol may take.
_PROBE = 0.5


class RedisMisconfigured(exc.QueueUnavailable):
    """The Redis at SMSQUEUE_REDIS_URL cannot hold the ledger; waiting does not help.

    Args:
        reason: What is wrong and the remedy, without the URL.
    """

    def __init__(self, settings: Settings, reason: str) -> None:
        super().__init__(f"Redis at {settings.safe_redis_url} {reason}")
        self.reason = reason


def verify_server(client: redis.Redis, settings: Settings) -> None:
    """Check the server once.

    Raises:
        RedisMisconfigured: it cannot hold the ledger.
        QueueUnavailable: it does not answer.
    """
    with translated(settings):
        try:
            facts = _facts(client)
        except redis.exceptions.AuthenticationError:
            raise RedisMisconfigured(
                settings, "refuses the user or password: correct SMSQUEUE_REDIS_URL"
            ) from None
        except redis.exceptions.ResponseError as error:
            facts = _without_database(settings, error)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
            reason = _of_connection(settings, error)
            if reason is None:
                raise
            raise RedisMisconfigured(settings, reason) from None
    wrong = _mode(facts)
    if wrong is None:
        return
    if settings.sentinels and _is_replica(facts):
        raise exc.QueueUnavailable(
            f"Redis at {settings.safe_redis_url} is a replica: a failover may be under way"
        )
    raise RedisMisconfigured(settings, wrong)


def diagnosed(settings: Settings, error: exc.QueueUnavailable) -> exc.QueueUnavailable:
    """The error of a command that did not reach Redis, or a RedisMisconfigured about TLS.

    It may probe the port, which takes a moment: for commands that end with the error.
    """
    unreached = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
    if not isinstance(error.__cause__, unreached):
        return error
    reason = _of_connection(settings, error)
    if reason is None:
        return error
    diagnosis = RedisMisconfigured(settings, reason)
    # Without a common TLS session no command has reached Redis.
    diagnosis.refused = error.refused or not unreadable_tls_file(settings)
    return diagnosis


def _facts(client: redis.Redis) -> dict[str, Any]:
    """The server's INFO, or at least its role; managed services may restrict INFO."""
    facts: Any = {}
    with suppress(redis.exceptions.NoPermissionError):
        try:
            facts = client.info()
        except redis.exceptions.ResponseError as error:
            if "NOAUTH" in str(error):
                raise redis.exceptions.AuthenticationError from None
            if "INFO" not in str(error).upper():
                raise
    if not facts.get("role"):
        with suppress(redis.exceptions.ResponseError):
            role: Any = client.role()
            facts = {"role": str(role[0])} | facts
    return dict(facts)


def _without_database(settings: Settings, error: redis.exceptions.ResponseError) -> dict[str, Any]:
    """The facts of a server that refused SELECT, as a sentinel and a cluster do for all but 0.

    Raises:
        RedisMisconfigured: it has no such database.
    """
    if "SELECT" not in str(error) and "DB index" not in str(error):
        raise error
    other = connect(settings, timeout=1.0)
    other.connection_pool.connection_kwargs["db"] = 0
    try:
        facts = _facts(other)
    finally:
        other.close()
    if _mode(facts) is None:
        raise RedisMisconfigured(
            settings,
            "has no database of that number: correct the last part of SMSQUEUE_REDIS_URL",
        )
    return facts


def _mode(facts: dict[str, Any]) -> str | None:
    """What is wrong with the mode of the server; None: nothing."""
    if "sentinel" in (facts.get("redis_mode"), facts.get("role")):
        return (
            "is a sentinel, which holds no data: write "
            "sentinel://host1:26379,host2:26379,host3:26379/0?master=NAME in SMSQUEUE_REDIS_URL"
        )
    if facts.get("redis_mode") == "cluster" or str(facts.get("cluster_enabled")) == "1":
        return (
            "is in cluster mode, which spreads keys that scripts need together: use a single "
            "primary (cluster-enabled no)"
        )
    if _is_replica(facts):
        primary = facts.get("master_host")
        where = f" ({primary}:{facts.get('master_port')})" if primary else ""
        return f"is a replica, where nothing may be written: name its primary{where} instead"
    return None


def _is_replica(facts: dict[str, Any]) -> bool:
    return facts.get("role") in ("slave", "replica")


def _of_connection(settings: Settings, error: BaseException) -> str | None:
    """What is wrong with TLS; None: the server does not answer, or the cause is unknown."""
    tls = urlsplit(settings.data_url).scheme == "rediss"
    texts = " ".join(map(str, _chain(error)))
    unreadable = unreadable_tls_file(settings)
    if unreadable:
        return unreadable
    if "CERTIFICATE_VERIFY_FAILED" in texts:
        why = next(
            (
                e.verify_message
                for e in _chain(error)
                if isinstance(e, ssl.SSLCertVerificationError)
            ),
            "",
        )
        return (
            f"shows a certificate that is not trusted{f' ({why})' if why else ''}: name its CA, "
            "SMSQUEUE_REDIS_CA=/path/ca.pem (or ?ssl_ca_certs=/path/ca.pem in SMSQUEUE_REDIS_URL), "
            "and the host as in the certificate"
        )
    if "CERTIFICATE_REQUIRED" in texts:
        return (
            "requires a client certificate: add ssl_certfile and ssl_keyfile to SMSQUEUE_REDIS_URL"
        )
    if tls and _speaks_plain(settings):
        return "does not speak TLS at this port: write redis://, or name its TLS port"
    if not tls and _speaks_tls(settings):
        return "speaks TLS at this port: write rediss://, or name its plain port"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _address(settings: Settings) -> tuple[str, int] | None:
    parts = urlsplit(settings.redis_url)
    if parts.scheme in ("unix", "sentinel"):
        return None
    return (parts.hostname or "localhost", parts.port or 6379)


def _speaks_plain(settings: Settings) -> bool:
    address = _address(settings)
    if address is None:
        return False
    try:
        with socket.create_connection(address, timeout=_PROBE) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _speaks_tls(settings: Settings) -> bool:
    address = _address(settings)
    if address is None:
        return False
    context = ssl.create_default_context()
    # Nothing is sent: this only probes whether the server speaks TLS.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(address, timeout=_PROBE) as plain,
            context.wrap_socket(plain, server_hostname=address[0]),
        ):
            return True
    except ssl.SSLError as error:
        # A TLS alert: the server speaks TLS and refuses this client.
        return "ALERT" in str(error).upper()
    except OSError:
        return False
