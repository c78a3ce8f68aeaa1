"""The form of SMSQUEUE_REDIS_URL that names sentinels instead of a server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

__all__ = ["FALSE", "TRUE", "SentinelUrl", "parse_sentinel_url"]

#: redis-py's words for false and for true.
FALSE, TRUE = ("0", "f", "false", "n", "no"), ("1", "t", "true", "y", "yes")

#: Port of a sentinel whose address names none.
_PORT = 26379
#: Parameters that are ours and not redis-py's.
_OURS = ("master", "tls", "sentinel_tls", "sentinel_username", "sentinel_password")
_EXAMPLE = "sentinel://host1:26379,host2:26379,host3:26379/0?master=NAME"


@dataclass(frozen=True)
class SentinelUrl:
    """``sentinel://user:password@host1:26379,host2:26379/0?master=NAME``, taken apart."""

    #: Host and port of each sentinel.
    addresses: tuple[tuple[str, int], ...]
    #: Name of the primary in the configuration of the sentinels.
    master: str
    #: The primary as a ``redis://`` or ``rediss://`` URL without a host: user, password, database,
    #: and options of redis-py.
    data_url: str = field(repr=False)
    #: TLS options for the sentinels, as the query of a ``rediss://`` URL; "": without TLS.
    sentinel_tls_url: str = field(repr=False)
    #: User and password for the sentinels; None: they need none.
    sentinel_username: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Take a ``sentinel://`` URL apart.

    Raises:
        ValueError: it is invalid. The text says what to write, and quotes no part that may be a
            password.
    """
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    ours: dict[str, str] = {}
    for name, value in parameters:
        if name in _OURS:
            ours.setdefault(name, value)  # redis-py uses the first of repeated ones, too
    master = ours.get("master", "")
    if not master:
        raise ValueError(
            "add ?master=NAME, the name of the primary in the configuration of the sentinels "
            f"(sentinel monitor NAME ...), as in {_EXAMPLE}"
        )
    if not re.fullmatch(r"[A-Za-z0-9._-]+", master):  # as Redis requires
        raise ValueError("master may contain letters, digits and ._- only")
    tls, sentinel_tls = _flag(ours, "tls"), _flag(ours, "sentinel_tls")
    theirs = [(name, value) for name, value in parameters if name not in _OURS]
    of_tls = [(name, value) for name, value in theirs if name.startswith("ssl_")]
    if sentinel_tls and not tls:
        theirs = [option for option in theirs if option not in of_tls]
    scheme, rest = "rediss" if tls else "redis", urlencode(theirs)
    return SentinelUrl(
        addresses=tuple(_address(host) for host in hosts.split(",")),
        master=master,
        data_url=f"{scheme}://{login}{at}{parts.path}{'?' if rest else ''}{rest}",
        sentinel_tls_url=f"rediss://?{urlencode(of_tls)}" if sentinel_tls else "",
        sentinel_username=ours.get("sentinel_username") or None,
        sentinel_password=ours.get("sentinel_password") or None,
    )


def _flag(parameters: dict[str, str], name: str) -> bool:
    value = parameters.get(name, "false").lower()
    if value not in FALSE + TRUE:
        raise ValueError(f"{name} must be 1 or 0")
    return value in TRUE


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.path:
        raise ValueError(
            f"name each sentinel as host:port, separated by commas, as in {_EXAMPLE}; special "
            "characters of a password must be written as %XX"
        )
    return host, port or _PORT
