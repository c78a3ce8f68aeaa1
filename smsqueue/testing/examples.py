"""The declarations from which a provider is tested: see :mod:`smsqueue.testing.contract`."""

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

#: Settings of the gateway in which the provider has the name "main".
PUBLIC_URL, PREFIX = "https://sms.example.org", "secret-prefix"
#: Reference of the messages that :func:`message` returns: message id and attempt.
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
    """Return a message as a worker passes it to a provider."""
    message = OutgoingMessage(dst, body, src).options(**options).params(**params or {})
    message.id, message.reference = reference.partition(".")[0], reference
    return message


@dataclass(frozen=True)
class Sending:
    """A message, and the request that the provider has to make for it.

    Args:
        form: All fields of the body, if it is a form.
        json: The value of the body, if it is JSON. A function in ``form`` or ``json`` is called
            with the value in its place and has to return True.
        headers: Some of the request's headers.
        config: More arguments of the provider.
        check: Further checks of the request: raises AssertionError.
        msgid: The message's ``msgid`` after the call.
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
    config: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Seen], object] | None = None


@dataclass(frozen=True)
class Refusal:
    """An answer of the provider, and the error that it has to raise."""

    name: str
    answer: Answer
    error: type[exc.ProviderError]
    code: Any = None
    ambiguous: bool = False
    retry_after: float | None = None


@dataclass(frozen=True)
class Received:
    """An incoming message in a webhook. Attributes that are None are not compared."""

    src: str
    body: str
    dst: str | None = None
    msgid: Any = None
    #: URL and content type of each file.
    media: Sequence[tuple[str, str | None]] | None = None
    #: ``meta["recipients"]`` of the message.
    recipients: Sequence[str] | None = None
    #: Whether it can be answered by SMS.
    replyable: bool | None = None


@dataclass(frozen=True)
class Reported:
    """A delivery report in a webhook. ``code`` and ``status`` are not compared if they are None."""

    state: State | None
    msgid: Any = None
    reference: str | None = None
    code: Any = None
    status: Any = None


@dataclass(frozen=True)
class Webhook:
    """A webhook as the provider sends it, and the events that it has to yield.

    Args:
        path: Path below the provider's prefix, with the query: ``/status?ref=...``.
        sign: Called with method, public URL, headers and body; returns the headers of a genuine
            webhook, or, for a signature in the body or query, all four again. None: the provider
            does not sign it.
        status: HTTP status of the response.
        answer: Body of the response; None: not compared.
        placeless: The signature covers the fields but not their place, so that the same fields
            in a query, a form or JSON are the same webhook.
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
        config: The provider's arguments without ``url``, with invented secrets.
        good: An answer that accepts any message.
        unsupported: Messages that the provider cannot send; it must not make a request for them.
        refused: Webhooks with a genuine signature that are refused: name, webhook, HTTP status.
        secrets: Values in ``config`` that must not appear in a repr, an error or the log.
        secret: Name of the argument without which the receivers are unsafe; None: they always are.
        config_without_secret: Further arguments that the provider needs if ``secret`` is missing.
    """

    provider: type[AccountProvider]
    config: Mapping[str, Any]
    good: Answer
    sendings: Sequence[Sending] = ()
    refusals: Sequence[Refusal] = ()
    unsupported: Sequence[OutgoingMessage] = ()
    webhooks: Sequence[Webhook] = ()
    refused: Sequence[tuple[str, Webhook, int]] = ()
    secrets: Sequence[str] = ()
    secret: str | None = "secret"
    config_without_secret: Mapping[str, Any] = field(default_factory=dict)


def made(examples: Examples, url: str, **config: Any) -> tuple[Gateway, Any, list[Any]]:
    """Return an eager gateway with the provider, the provider, and the list of its events."""
    settings = Settings(public_url=PUBLIC_URL, receiver_prefix=(PREFIX,), eager=True)
    gateway = Gateway(settings)
    arguments: dict[str, Any] = {"url": url, "read_timeout": 5.0} | dict(examples.config)
    provider = gateway.add_provider("main", examples.provider, **(arguments | config))
    events: list[IncomingMessage | MessageStatus] = []
    gateway.onReceive += events.append
    gateway.onStatus += events.append
    return gateway, provider, events
