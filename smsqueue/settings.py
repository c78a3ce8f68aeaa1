"""Settings: from keywords, else SMSQUEUE_* in the environment, else defaults; read once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Self
from urllib.parse import SplitResult, parse_qs, urlsplit

from smsqueue.logs import FORMATS, get_logger
from smsqueue.sentinel_url import FALSE, TRUE, SentinelUrl, parse_sentinel_url

__all__ = [
    "LEASE_FACTOR",
    "UNIX",
    "Settings",
    "SettingsError",
    "check_prefix",
    "hide_password",
    "log_format",
    "misspelled",
    "networks_of",
    "read_secret_file",
    "secret_text",
    "too_short",
]

log = get_logger(__name__)

#: An event's lease is at least so many times as long as a handler's time limit: the rest is for
#: recording the result.
LEASE_FACTOR = 1.25
_HANDLER_TIMEOUT = 60.0


#: Minimum length, and number of different characters, of a secret: shorter ones can be guessed in
#: about an hour.
_SHORTEST_SECRET, _FEWEST_DIFFERENT = 6, 4
#: Minimum length of a hash key, which can be guessed offline.
_SHORTEST_KEY = 32
#: Maximum of SMSQUEUE_WAIT_REPLICAS.
_MOST_REPLICAS = 10
#: Minimum of SMSQUEUE_WEBHOOK_QUOTA, in bytes: a webhook may take 20 kB.
_LEAST_QUOTA = 65536
_TOO_WEAK = (
    f"can be guessed: give at least {_SHORTEST_SECRET} characters, {_FEWEST_DIFFERENT} of them "
    "different, as `openssl rand -hex 16` prints"
)


def too_short(secret: str) -> bool:
    """Can a secret be guessed by trying?"""
    letters = "".join(secret.split())
    return len(letters) < _SHORTEST_SECRET or len(set(letters)) < _FEWEST_DIFFERENT


class SettingsError(ValueError):
    """A setting has an invalid value; the text names the setting and the remedy."""


#: Name for clients of a Unix socket among the trusted proxies.
UNIX = "unix"


def check_prefix(where: str, prefix: str) -> None:
    """Raise SettingsError if a prefix is invalid or can be guessed.

    Args:
        where: Name of the setting or argument, for the error, which does not show the prefix.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.~/-]+", prefix) or not prefix.strip("/"):
        raise SettingsError(
            f"{where} may contain letters, digits and -._~/ only, "
            "several prefixes are separated by commas"
        )
    if too_short(prefix.replace("/", "")):
        raise SettingsError(f"{where} {_TOO_WEAK}")


def networks_of(where: str, texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks: ``192.0.2.0/24``, ``2001:db8::/32``, or single addresses.

    Raises:
        SettingsError: one of them is not a network.
    """
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError:
            try:
                hint = f"did you mean {ip_network(text, strict=False)}?"
            except ValueError:
                hint = "write addresses as 192.0.2.7 or 2001:db8::7, networks as 192.0.2.0/24"
            raise SettingsError(f"{where} has {text!r}, which is not a network: {hint}") from None
    return tuple(networks)


def _bool(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False, "": False}
    return words[text.strip().lower()]


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _log_format(text: str) -> str:
    return FORMATS[FORMATS.index(text.strip().lower() or FORMATS[0])]


def _setting(name: str, default: Any, parse: Callable[[str], Any], *, secret: bool = False) -> Any:
    """A field whose default is the variable SMSQUEUE_<NAME>, else ``default``."""
    variable = f"SMSQUEUE_{name}"

    def read() -> Any:
        text = secret_text(os.environ, variable) if secret else os.environ.get(variable)
        return default if text is None else _parsed(variable, text, parse)

    metadata = {"variable": variable, "parse": parse, "secret": secret}
    return field(default_factory=read, repr=not secret, metadata=metadata)


#: Maximum length of a file with a secret, in characters.
_LONGEST_FILE = 65536


def secret_text(environment: Mapping[str, Any], variable: str) -> Any:
    """The value of a secret; None: it is not set.

    ``<VARIABLE>_FILE`` may name a file with the secret, as for Docker's and Kubernetes' secrets.
    Line breaks at the end of the file are ignored.

    Raises:
        SettingsError: both are set, or the file cannot be read. The secret is not shown.
    """
    text, path = environment.get(variable), environment.get(f"{variable}_FILE")
    if not path:
        return text
    if text:
        raise SettingsError(f"{variable} and {variable}_FILE are both set: remove one of them")
    return read_secret_file(f"{variable}_FILE", path)


def read_secret_file(variable: str, path: Any) -> str:
    """The secret in a file; SettingsError, which names variable and path, if there is none."""
    if not isinstance(path, str | os.PathLike) or "://" in str(path):
        # Without the value, which may be the secret itself.
        raise SettingsError(f"{variable} must be the path of a file that contains the secret")
    try:
        with open(path, encoding="utf-8-sig") as file:  # Windows editors write a byte order mark
            text = file.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsError(
            f"{variable} is {str(path)!r}, which cannot be read ({why}): correct the path, or give "
            "this process read access"
        ) from None
    secret = text.rstrip("\r\n")
    if not secret.strip():
        raise SettingsError(f"{variable} is {str(path)!r}, and that file is empty")
    if len(text) > _LONGEST_FILE:
        raise SettingsError(f"{variable} is {str(path)!r}, and that file is too long for a secret")
    return secret


def _bytes(text: str) -> int:
    return int(text)


def _parsed(variable: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except (ValueError, KeyError):
        # ``from None``: the value may be a secret, and a chained error would print it.
        raise SettingsError(
            f"{variable} must be {_SYNTAX[parse]}: correct it or unset it"
        ) from None


#: Syntax of a setting, by its parser.
_SYNTAX: dict[Any, str] = {
    _log_format: " or ".join(FORMATS),
    _bool: "true, yes, on or 1, or else false, no, off or 0",
    int: "a whole number, such as 50",
    _bytes: "a number of bytes, such as 134217728 for 128 MB",
    float: "a number, such as 2.5",
}
#: Type of a setting, by its parser.
_KINDS: dict[Any, str] = {
    _log_format: "a text",
    str: "a text",
    _list: "a list of texts",
    _bool: "True or False",
    int: "a whole number",
    _bytes: "a number of bytes",
    float: "a number",
}


def _typed(variable: str, value: Any, parse: Callable[[str], Any]) -> Any:
    """The value of a keyword argument; a text is parsed as that of the variable.

    Raises:
        SettingsError: it has another type. The value, which may be a secret, is not shown.
    """
    if isinstance(value, str):
        return value if parse is str else _parsed(variable, value, parse)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if parse is str:
        if value is None or isinstance(value, os.PathLike):
            return "" if value is None else os.fspath(value)
    elif parse is _list:
        if value is None or isinstance(value, list | tuple | set | frozenset):
            texts = tuple(value or ())
            if all(isinstance(text, str) for text in texts):
                return texts
    elif parse is _bool:
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
    elif number and (parse is float or value == value // 1):  # false for nan and inf
        return value if parse is float else int(value)
    raise SettingsError(f"{variable} must be {_KINDS[parse]}, not {type(value).__name__}")


def _region(text: str) -> str:
    # Imported here, since it would make importing smsqueue a third slower.
    from phonenumbers import SUPPORTED_REGIONS

    region = text.strip().upper()
    if region not in SUPPORTED_REGIONS:
        hint = "; the United Kingdom is GB" if region == "UK" else ""
        raise SettingsError(
            f"SMSQUEUE_REGION is {text!r}: use the two letters of a country in ISO 3166, "
            f"such as GB or US{hint}"
        )
    return region


def log_format(environment: Mapping[str, Any]) -> str:
    """The value of SMSQUEUE_LOG, for processes that have no settings yet.

    Raises:
        SettingsError: it is neither text nor json.
    """
    return str(_parsed("SMSQUEUE_LOG", environment.get("SMSQUEUE_LOG", ""), _log_format))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of the gateway, its workers and its receivers. Times are in seconds.

    Raises:
        SettingsError: a value is invalid.
    """

    #: Redis >= 6.2, for broker and ledger, or its sentinels. May contain a password, so it is not
    #: in the repr.
    redis_url: str = _setting("REDIS_URL", "redis://127.0.0.1:6379/0", str, secret=True)
    #: PEM file of the private CA that signed the certificate of a ``rediss://`` Redis, or of the
    #: servers and sentinels of a ``sentinel://`` one.
    redis_ca: str = _setting("REDIS_CA", "", str)
    #: Replicas that must have a message, the beginning of its call and its outcome before they
    #: count; 0: the primary alone.
    wait_replicas: int = _setting("WAIT_REPLICAS", 0, int)
    #: Prefix of all keys and queue names, so that applications can share a Redis.
    namespace: str = _setting("NAMESPACE", "sms", str)
    #: Where workers, receivers and the command line find the gateway: ``package.module:attribute``.
    gateway: str = _setting("GATEWAY", "", str)
    #: Secret URL prefixes of webhooks.
    receiver_prefix: tuple[str, ...] = _setting("RECEIVER_PREFIX", (), _list, secret=True)
    #: Addresses and networks of the proxies in front of the receivers, whose X-Forwarded-For is
    #: trusted; ``unix`` stands for clients of a Unix socket.
    trusted_proxies: tuple[str, ...] = _setting("TRUSTED_PROXIES", (), _list)
    #: Public URL of the receivers, without the prefix: ``https://sms.example.org``.
    public_url: str = _setting("PUBLIC_URL", "", str)
    #: Bearer token for the receivers' ``/metrics``; "": there is no such page.
    metrics_token: str = _setting("METRICS_TOKEN", "", str, secret=True)
    #: Key of the hashes that stand for numbers in key names, the same in all processes; "": a key
    #: in Redis, with which a reader of Redis can try all numbers.
    hash_key: str = _setting("HASH_KEY", "", str, secret=True)
    #: File that each worker process touches while it works, for liveness probes.
    heartbeat_file: str = _setting("HEARTBEAT_FILE", "", str)
    #: Format of the log of workers, receivers and the command line: ``text``, or ``json`` for one
    #: JSON object a line.
    log: str = _setting("LOG", FORMATS[0], _log_format)
    #: Deliver in the calling process, without Redis and Celery, as smsframework does.
    eager: bool = _setting("EAGER", False, _bool)
    #: How long a record is kept after it has reached a final state.
    retention: float = _setting("RETENTION", 30 * 86400.0, float)
    #: How long to wait for delivery reports.
    report_wait: float = _setting("REPORT_WAIT", 72 * 3600.0, float)
    #: How long a report waits for its message before its handlers run without one.
    park_wait: float = _setting("PARK_WAIT", 60.0, float)
    #: Time after which a published trigger counts as lost and is published again.
    grace: float = _setting("GRACE", 60.0, float)
    #: Interval at which each worker process looks for due messages and events.
    upkeep_interval: float = _setting("UPKEEP_INTERVAL", 0.5, float)
    #: Lease of an event: after it the worker that runs its handlers counts as dead, and another
    #: one runs them.
    hook_lease: float = _setting("HOOK_LEASE", 300.0, float)
    #: Time limit of one call of a handler; by default 60 s, or half of the lease if that is less.
    handler_timeout: float = _setting("HANDLER_TIMEOUT", None, float)
    #: Calls that exceeded their time limit (handlers, routers, look-ups) at which a worker process
    #: shuts down, so that its supervisor restarts it.
    max_hung_calls: int = _setting("MAX_HUNG_CALLS", 50, int)
    #: Triggers in a queue of the broker above which new ids wait in the ledger: single messages
    #: and webhooks; bulk. The first is higher, so that a one-time password overtakes a campaign.
    watermark: int = _setting("WATERMARK", 1000, int)
    bulk_watermark: int = _setting("BULK_WATERMARK", 200, int)
    #: Country, such as ``GB``, whose national numbers ``send`` and ``find`` accept.
    region: str = _setting("REGION", "", str)
    #: Maximum length of a message's text, in characters.
    max_body: int = _setting("MAX_BODY", 1600, int)
    #: Maximum size of a webhook, in bytes.
    max_webhook: int = _setting("MAX_WEBHOOK", 256 * 1024, int)
    #: Bytes that the unhandled webhooks of one provider may take in Redis; at most an eighth of its
    #: maxmemory.
    webhook_quota: int = _setting("WEBHOOK_QUOTA", 128 * 1024 * 1024, _bytes)
    #: Simultaneous calls of one provider in one worker process, unless
    #: ``add_provider(max_in_flight=)`` says otherwise. So many messages may be unknown after
    #: a worker was killed.
    max_in_flight: int = _setting("MAX_IN_FLIGHT", 250, int)
    #: Tasks, and handlers of events, that one worker process runs at once.
    concurrency: int = _setting("CONCURRENCY", 50, int)

    def __post_init__(self) -> None:
        for setting in fields(self):
            variable, parse = setting.metadata["variable"], setting.metadata["parse"]
            value = getattr(self, setting.name)
            if value is not None or setting.name != "handler_timeout":
                object.__setattr__(self, setting.name, _typed(variable, value, parse))
        if self.region:
            object.__setattr__(self, "region", _region(self.region))
        try:
            parts = urlsplit(self.redis_url)
            scheme = parts.scheme
            _ = None if scheme == "sentinel" else parts.port
        except ValueError:
            # ``from None``: the error would quote a part of the password.
            raise SettingsError(
                f"SMSQUEUE_REDIS_URL is {hide_password(self.redis_url)!r}, which cannot be read: "
                "a password's special characters must be written as %XX"
            ) from None
        if scheme not in ("redis", "rediss", "unix", "sentinel"):
            raise SettingsError(
                f"SMSQUEUE_REDIS_URL is {hide_password(self.redis_url)!r}: "
                "it must begin with redis://, rediss://, unix:// or sentinel://"
            )
        try:
            sentinels = self.sentinels
            wrong = _wrong_in_redis_url(urlsplit(self.data_url))
        except ValueError as error:
            wrong = str(error)
        if wrong:
            raise SettingsError(
                f"SMSQUEUE_REDIS_URL is {hide_password(self.redis_url)!r}: {wrong}"
            ) from None
        tls = urlsplit(self.data_url).scheme == "rediss"
        if self.redis_ca and not tls and not (sentinels and sentinels.sentinel_tls_url):
            remedy = "add tls=1, sentinel_tls=1 or both" if sentinels else "write rediss://"
            raise SettingsError(
                f"SMSQUEUE_REDIS_CA is set, but SMSQUEUE_REDIS_URL does not use TLS: {remedy}"
            )
        if self.redis_ca and "ssl_ca_certs" in parse_qs(parts.query):
            raise SettingsError(
                "SMSQUEUE_REDIS_CA and ssl_ca_certs in SMSQUEUE_REDIS_URL are both set: "
                "remove one of them"
            )
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.namespace):
            raise SettingsError(
                f"SMSQUEUE_NAMESPACE is {self.namespace!r}: "
                "use 1 to 64 letters, digits, dots, dashes and underscores"
            )
        for prefix in self.receiver_prefix:
            check_prefix("SMSQUEUE_RECEIVER_PREFIX", prefix)
        for network in networks_of(
            "SMSQUEUE_TRUSTED_PROXIES", (proxy for proxy in self.trusted_proxies if proxy != UNIX)
        ):
            if not network.prefixlen:
                raise SettingsError(
                    f"SMSQUEUE_TRUSTED_PROXIES has {network}: any client could forge the address "
                    "of a webhook. Name the addresses of your proxies"
                )
        if self.hash_key and (too_short(self.hash_key) or len(self.hash_key) < _SHORTEST_KEY):
            raise SettingsError(
                f"SMSQUEUE_HASH_KEY can be guessed: give at least {_SHORTEST_KEY} random "
                "characters, as `openssl rand -hex 32` prints"
            )
        if self.metrics_token.strip() and too_short(self.metrics_token):
            raise SettingsError(f"SMSQUEUE_METRICS_TOKEN {_TOO_WEAK}")
        if self.public_url and not re.fullmatch(r"https?://[^\s?#]+", self.public_url):
            raise SettingsError(
                "SMSQUEUE_PUBLIC_URL must be like https://sms.example.org, without the prefix"
            )
        if self.handler_timeout is None:
            object.__setattr__(self, "handler_timeout", min(_HANDLER_TIMEOUT, self.hook_lease / 2))
        for setting in fields(self):
            value, variable = getattr(self, setting.name), setting.metadata["variable"]
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if setting.name == "wait_replicas":
                if not 0 <= value <= _MOST_REPLICAS:
                    raise SettingsError(f"{variable} must be from 0 to {_MOST_REPLICAS}")
                continue
            most = 1e15 if setting.metadata["parse"] is _bytes else 1e9
            if not 0 < value < most:
                raise SettingsError(
                    f"{variable} must be above zero and below {most:g}, not {value}"
                )
        if self.webhook_quota < _LEAST_QUOTA:
            raise SettingsError(
                f"SMSQUEUE_WEBHOOK_QUOTA is {self.webhook_quota} bytes, too few for some "
                f"webhooks: give at least {_LEAST_QUOTA}, better the default of 134217728 "
                "(128 MB)"
            )
        if self.hook_lease < self.handler_timeout * LEASE_FACTOR:
            raise SettingsError(
                f"SMSQUEUE_HOOK_LEASE is {self.hook_lease:g} s, and SMSQUEUE_HANDLER_TIMEOUT "
                f"{self.handler_timeout:g} s: a worker that waits for a handler would count as "
                "dead, and another one would run the event. Make the lease at least "
                f"{self.handler_timeout * LEASE_FACTOR:g} s, or the time limit shorter"
            )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Self:
        """Settings from the SMSQUEUE_* keys of a web framework's configuration.

        Other settings come from the environment. Texts are parsed as there. A key that is similar
        to a setting's name is ignored, with a warning in the log.
        """
        for name, meant in misspelled(config):
            log.warning("%s is not a known setting; did you mean %s?", name, meant)
        keywords: dict[str, Any] = {}
        for setting in fields(cls):
            variable, parse = setting.metadata["variable"], setting.metadata["parse"]
            if setting.metadata["secret"]:
                value = secret_text(config, variable)
            else:
                value = config.get(variable)
            if value is not None:
                keywords[setting.name] = (
                    _parsed(variable, value, parse) if isinstance(value, str) else value
                )
        return cls(**keywords)

    @property
    def send_queue(self) -> str:
        """Name of the broker queue whose tasks send messages."""
        return f"{self.namespace}.send"

    @property
    def hook_queue(self) -> str:
        """Name of the broker queue whose tasks run handlers."""
        return f"{self.namespace}.hook"

    @property
    def broker_prefix(self) -> str:
        """Prefix of the broker's keys in Redis."""
        return f"{self.namespace}:broker:"

    @property
    def send_key(self) -> str:
        """The Redis key of the send queue: a list of triggers."""
        return self.broker_prefix + self.send_queue

    @property
    def hook_key(self) -> str:
        """The Redis key of the hook queue."""
        return self.broker_prefix + self.hook_queue

    @property
    def unverified_tls(self) -> str:
        """The option of SMSQUEUE_REDIS_URL that disables certificate verification, or ""."""
        parts = urlsplit(self.data_url)
        if parts.scheme != "rediss" and self.sentinels:
            parts = urlsplit(self.sentinels.sentinel_tls_url)
        query = _first_values(parts) if parts.scheme == "rediss" else {}
        if query.get("ssl_cert_reqs") == "none":
            return "ssl_cert_reqs=none"
        if query.get("ssl_check_hostname", "true").lower() in FALSE:
            return f"ssl_check_hostname={query['ssl_check_hostname']}"
        return ""

    @property
    def sentinels(self) -> SentinelUrl | None:
        """The sentinels that SMSQUEUE_REDIS_URL names; None: it names a server."""
        is_sentinel = urlsplit(self.redis_url).scheme == "sentinel"
        return parse_sentinel_url(self.redis_url) if is_sentinel else None

    @property
    def data_url(self) -> str:
        """The Redis server as redis-py writes it; without a host if sentinels know the server."""
        sentinels = self.sentinels
        return sentinels.data_url if sentinels else self.redis_url

    @property
    def safe_redis_url(self) -> str:
        """The Redis URL without secrets."""
        return hide_password(self.redis_url)


def misspelled(names: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Names that are similar to a setting's variable, each with that variable."""
    known = {setting.metadata["variable"] for setting in fields(Settings)} | {
        "SMSQUEUE_DEFAULT_PROVIDER"
    }
    files = (
        setting.metadata["variable"] for setting in fields(Settings) if setting.metadata["secret"]
    )
    known |= {f"{variable}_FILE" for variable in files}
    ours = {name for name in names if isinstance(name, str) and name.startswith("SMSQUEUE_")}
    for name in sorted(ours - known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        if near:
            yield name, near[0]


def _first_values(parts: SplitResult) -> dict[str, str]:
    """The parameters of a URL; the first of repeated ones, as in redis-py."""
    return {name: values[0] for name, values in parse_qs(parts.query).items()}


def _wrong_in_redis_url(parts: SplitResult) -> str:
    """What redis-py or kombu would reject or ignore in the URL; "": nothing."""
    query = _first_values(parts)
    database = query.get("db", "" if parts.scheme == "unix" else parts.path.strip("/"))
    if database and not re.fullmatch("[0-9]+", database):
        return "the database must be a number, as in redis://host:6379/0"
    if parts.scheme == "unix" and len(parts.path) < 2:
        return "write the path of the socket, as in unix:///run/redis/redis.sock?db=0"
    if query.get("ssl_cert_reqs", "required") not in ("none", "optional", "required"):
        return "ssl_cert_reqs must be required, optional or none"
    if query.get("ssl_check_hostname", "true").lower() not in FALSE + TRUE:
        return "ssl_check_hostname must be true or false"
    return ""


def hide_password(url: str) -> str:
    """A URL with user and password replaced by ``***``."""
    # urlsplit would split a password at an unquoted "/", "#" or "?".
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    _, at, rest = rest.rpartition("@")
    place, question, _ = rest.partition("?")
    return f"{scheme}{separator}{'***@' if at else ''}{place}{'?***' if question else ''}"
