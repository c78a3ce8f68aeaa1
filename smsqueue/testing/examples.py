"""What a provider declares of itself to be tested: see :mod:`smsqueue.testing.contract`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smsqueue import exc
from smsqueue.gateway import Gateway
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.account import AccountProvider
from smsqueue.settings import Settings
from smsqueue.testing.stub import Answer, Seen

__all__ = [
    "PREFIX",
    "PUBLIC_URL",
    "REF",
    "Examples",
    "Received",
    "Refusal",
    "Reported",
    "Sending",
    "Webhook",
    "made",
    "message",
]

#: Settings of the gateway that the provider is added to, under the name "main".
PUBLIC_URL, PREFIX = "https://sms.example.org", "secret-prefix"
#: Of the messages that :func:`message` makes.
REF = "1m842psghd5k1m5599r6.1"


def message(
    dst: str = "+15551234567",
    body: str = "hello",
    src: str | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    reference: str = REF,
    **options: Any,
) -> OutgoingMessage:
    """A message as a worker hands it to a provider."""
    made = OutgoingMessage(dst, body, src).options(**options).params(**params or {})
    made.id, made.reference = reference.partition(".")[0], reference
    return made


@dataclass(frozen=True)
class Sending:
    """A message, and the request that it must become.

    Args:
        form: All fields of the body, if it is a form; or ``json``: its value. A value that is
            a function is called with what was sent and has to return True.
        headers: Some of the request's headers.
        msgid: What the message's ``msgid`` is then.
    """

    name: str
    message: OutgoingMessage
    answer: Answer
    msgid: Any
    path: str
    method: str = "POST"
    form: Mapping[str, Any] | None = None
    json: Any = None
    query: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: More arguments of the provider.
    config: Mapping[str, Any] = field(default_factory=dict)
    #: Anything else that the request must be: raises AssertionError.
    check: Callable[[Seen], object] | None = None


@dataclass(frozen=True)
class Refusal:
    """An answer, and the error that it is."""

    name: str
    answer: Answer
    error: type[exc.ProviderError]
    code: Any = None
    ambiguous: bool = False
    retry_after: float | None = None


@dataclass(frozen=True)
class Received:
    """An incoming message that a webhook holds."""

    src: str
    body: str
    dst: str | None = None
    msgid: Any = None
    #: Address and type of each file, and ``meta["recipients"]``; None: not looked at.
    media: Sequence[tuple[str, str | None]] | None = None
    recipients: Sequence[str] | None = None
    #: Can an SMS answer it? None: not looked at.
    replyable: bool | None = None


@dataclass(frozen=True)
class Reported:
    """A delivery report that a webhook holds."""

    state: State | None
    msgid: Any = None
    reference: str | None = None
    code: Any = None
    status: Any = None


@dataclass(frozen=True)
class Webhook:
    """A webhook as the provider sends it, and what it must come to.

    Args:
        path: Below the provider's own prefix, with the query: ``/status?ref=...``.
        sign: Called with method, public URL, headers and body; returns the headers (or, for a
            signature in the body or query, the four again) of a genuine webhook. None: the
            provider cannot authenticate it.
        placeless: The signature covers the fields, and not where they are: as a query, form or
            JSON they are the same webhook.
    """

    name: str
    path: str
    events: Sequence[Received | Reported]
    method: str = "POST"
    form: Mapping[str, Any] | None = None
    json: Any = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    sign: Callable[[str, str, dict[str, str], bytes], Any] | None = None
    status: int = 200
    answer: bytes | None = None
    placeless: bool = False


@dataclass(frozen=True)
class Examples:
    """A provider's examples.

    Args:
        config: The provider's arguments, with made-up secrets; without ``url``.
        good: An answer that takes any message.
        secrets: What of the config must never be shown: in a repr, an error, a log.
    """

    provider: type[AccountProvider]
    config: Mapping[str, Any]
    good: Answer
    sendings: Sequence[Sending] = ()
    refusals: Sequence[Refusal] = ()
    #: Messages that the provider cannot send, and must not try to.
    unsupported: Sequence[OutgoingMessage] = ()
    webhooks: Sequence[Webhook] = ()
    #: Webhooks with a genuine signature that are refused: name, webhook, status.
    refused: Sequence[tuple[str, Webhook, int]] = ()
    secrets: Sequence[str] = ()
    #: The argument whose lack makes the receivers unsafe; None: they never are safe.
    secret: str | None = "secret"
    #: What the provider needs beside, if it is without that.
    config_without_secret: Mapping[str, Any] = field(default_factory=dict)


def made(examples: Examples, url: str, **config: Any) -> tuple[Gateway, Any, list[Any]]:
    """An eager gateway with the provider, the provider, and what it reports."""
    settings = Settings(public_url=PUBLIC_URL, receiver_prefix=(PREFIX,), eager=True)
    gateway = Gateway(settings)
    arguments: dict[str, Any] = {"url": url, "read_timeout": 5.0} | dict(examples.config)
    provider = gateway.add_provider("main", examples.provider, **(arguments | config))
    heard: list[IncomingMessage | MessageStatus] = []
    gateway.onReceive += heard.append
    gateway.onStatus += heard.append
    return gateway, provider, heard
