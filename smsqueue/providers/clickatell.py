"""Clickatell, One API (platform.clickatell.com), channel SMS.

Source: Clickatell's documentation of the One API (sending, received messages), a public client
of it for codes, statuses and the balance, and another gateway's receiver for the callbacks of the
older REST API, which are accepted, too. Repetitions of callbacks are not documented.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote_plus, unquote_to_bytes

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import sender, sender_kind
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.account import AccountProvider, Balance, beside, table
from smsqueue.providers.authentic import Refused, any_equal, basic_matches, users_of
from smsqueue.providers.base.event_validation import ID
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import (
    address_of,
    event_views,
    json_body,
    json_object,
    listed,
    read_each,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["ClickatellProvider"]

#: "Internal error": without details on the message, it does not say that nothing was sent.
_INTERNAL = 18

#: Status numbers of the older REST API's callbacks. Not used for the One API, whose numbers are not
#: documented.
_STATUS_NUMBERS: dict[Any, type[MessageStatus]] = table(
    (MessageStatus, [1]),
    (MessageAccepted, [2, 3, 8, 11]),
    (MessageDelivered, [4]),
    (MessageError, [5, 6, 7, 9, 12, 14]),
    (MessageExpired, [10]),
)


class ClickatellProvider(AccountProvider):
    """Sends and receives through Clickatell.

    Clickatell does not sign its callbacks: the secret URL prefix is the only protection. ``secret``
    is for a proxy or an account that adds HTTP Basic.

    Args:
        api_key: The key of the integration.
        secret: ``user:password`` that callbacks must have; by default they are not authenticated.
        reference_field: Name of the request's field for our reference, which reports repeat. The
            request's documentation lacks it; None leaves it out.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://platform.clickatell.com"
    capabilities = frozenset({Can.REPORTS, Can.INBOUND, Can.MEDIA, Can.BALANCE})
    url_arguments = ("api_key", "secret")
    authenticates = False
    codes: ClassVar = table(
        (exc.AuthError, [1, 2, 3, 7, 46]),
        (exc.ServerError, [18, 19]),
        (exc.CreditError, [20]),
        (exc.LimitsError, [43]),
        (exc.UnsupportedError, [27, 28, 30, 38, 39, 101, 110, 111]),
        (exc.OptedOut, [26]),
        # The request, the recipient, the content, the sender (44, 45: of this message, so others
        # need not wait)
        (exc.RequestError, [*range(21, 26), 31, 32, 33, 40, 41, 42, 44, 45, 100]),
    )
    statuses: ClassVar = table(
        (MessageStatus, ["UNKNOWN"]),
        (MessageAccepted, ["QUEUED", "SCHEDULED", "SENT_TO_SUPPLIER"]),
        (MessageDelivered, ["DEVICE_ACK", "READ"]),
        (MessageExpired, ["EXPIRED"]),
        (MessageError, ["STOPPED_BY_USER", "STOPPED_BY_ADMIN", "DELIVERY_FAILURE"]),
        (MessageError, ["ROUTING_ERROR", "RECIPIENT_DOES_NOT_EXIST"]),
        (MessageError, ["INSUFFICIENT_ACCOUNT_BALANCE"]),
        (MessageError, ["VOLUME_LIMIT", "VOLUME_LIMIT_DAILY", "VOLUME_LIMIT_MONTHLY"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        api_key: str,
        reference_field: str | None = "clientMessageId",
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, **config)
        self._headers, self._api_key = {"Authorization": api_key}, api_key
        self._reference_field = reference_field
        self._users = users_of(self._secrets, "Clickatell's callbacks")

    def submit(self, message: OutgoingMessage) -> None:
        entry: dict[str, Any] = {"channel": "sms", "to": message.dst, "content": message.body}
        source = self.sender_of(message)
        # Letters get here only with ignore=["alphanumeric"]: then they are left out.
        if source and sender_kind(source) != "alphanumeric":
            entry["from"] = sender(source, plus=False)
        if self._reference_field and message.reference:
            entry[self._reference_field] = message.reference
        reserved = ("to", "channel", "clientMessageId", self._reference_field or "to")
        answer = self.call(
            "POST",
            "/v1/message",
            headers=self._headers,
            json={"messages": [entry | beside(message.provider_params, *reserved)]},
        )
        # 202 and 207 are about the whole request, not about the message.
        if _refused(answer):
            raise self.refusal(answer)
        if _no_message(answer):
            error = self.refusal(answer)
            error.ambiguous = error.code == _INTERNAL
            raise error
        msgid = answer.require("messages", 0, "apiMessageId")
        first = answer.get("messages", 0)
        if first.get("accepted") is not True or first.get("error") is not None:
            raise self.error(answer)  # contradictory: ambiguous
        message.msgid = msgid
        message.meta = {"http_status": answer.status}

    def error_code(self, answer: Answer) -> int | None:
        for path in (("messages", 0, "error", "code"), ("error", "code"), ("errorCode",)):
            code = answer.get(*path)
            if isinstance(code, str) and code.isascii() and code.isdigit():
                code = int(code[:9])
            # A gateway's errors have no description.
            about = answer.get(*path[:-1], "description") or answer.get("errorDescription")
            if isinstance(code, int) and not isinstance(code, bool) and about is not None:
                return code
        return None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        accepted = answer.get("messages", 0, "apiMessageId") or answer.get(
            "messages", 0, "accepted"
        )
        if accepted or (error.code == _INTERNAL and not _refused(answer)):
            error.ambiguous = True
        return error

    def balance(self) -> Balance:
        answer = self.call("GET", "/v1/balance", safe=True, headers=self._headers)
        return Balance(answer.amount("balance"), answer.get("currency"))

    def make_receiver_blueprint(self) -> Blueprint:
        def read() -> list[IncomingMessage | MessageStatus | Malformed]:
            from flask import request

            header = request.headers.get("Authorization")
            if self._users and not basic_matches(header, self._users):
                raise Refused("the callback does not have the user and password")
            fields = json_object(json_body())
            # The older REST API's callbacks contain the key of the integration.
            key = fields.get("apiKey", self._api_key)
            if not (isinstance(key, str) and any_equal(key, [self._api_key])):
                raise Refused("it names another account")
            return self._events(fields)

        return event_views(self, read, status=200)

    def _events(self, fields: dict[str, Any]) -> list[IncomingMessage | MessageStatus | Malformed]:
        """The events of a callback, of the One API or the older REST API."""
        event = fields.get("event")
        if isinstance(event, dict):
            texts, files = event.get("moText") or [], event.get("moMedia") or []
            reports = event.get("messageStatusUpdate") or []
            return [
                *read_each(_require_list(texts), _incoming),
                *_incoming_media(files),
                *read_each(_require_list(reports), self._report),
            ]
        if "fromNumber" in fields:
            return [_incoming(fields)]
        return [self._report(fields, _STATUS_NUMBERS)]

    def _report(
        self, fields: dict[str, Any], numbers: dict[Any, type[MessageStatus]] | None = None
    ) -> MessageStatus:
        name, code = fields.get("status"), fields.get("statusCode")
        code = code if isinstance(code, int) else None
        if not isinstance(name, str) and code is None:
            raise Malformed("no status")
        name = name if isinstance(name, str) else str(code)
        kind = None if name in self.statuses else (numbers or {}).get(code)
        report = self.report(name, text_of(fields, "messageId"), code=code, kind=kind)
        reference = fields.get("clientMessageId")
        report.reference = reference if isinstance(reference, str) else None
        report.rtime = time_of(fields.get("timestamp"), 1000) or report.rtime
        report.meta = {k: v for k, v in fields.items() if k not in ("to", "from", "apiKey")}
        return report


def _refused(answer: Answer) -> bool:
    """Does the response clearly say that the message was not accepted?"""
    first = answer.get("messages", 0)
    if not isinstance(first, dict) or first.get("apiMessageId"):
        return False
    return first.get("accepted") is False or (
        first.get("accepted") is None and isinstance(first.get("error"), dict)
    )


def _no_message(answer: Answer) -> bool:
    """Does the response have no message, or an error in its place?"""
    messages = answer.get("messages")
    return messages == [] or (messages is None and isinstance(answer.get("error"), dict))


def _incoming(fields: dict[str, Any]) -> IncomingMessage:
    """An incoming message of the One API or of the older REST API."""
    source = address_of(fields, "from", "fromNumber")
    text = _decoded(text_of(fields, "content", "text"), fields.get("charset"))
    has_target = fields.get("to") is not None or fields.get("toNumber") is not None
    message = IncomingMessage(
        source,
        text,
        text_of(fields, "messageId"),
        address_of(fields, "to", "toNumber") if has_target else None,
        rtime=time_of(fields.get("timestamp"), 1000),
    )
    hidden = ("from", "fromNumber", "to", "toNumber", "content", "text", "apiKey")
    message.meta = {k: v for k, v in fields.items() if k not in hidden}
    message.channel = _channel(fields)
    return message


def _incoming_media(values: Any) -> Iterator[IncomingMessage]:
    """Messages with files, of the One API. A file without a URL is in ``meta``, as Base64."""
    for fields in listed(values):
        msgid = fields.get("messageId")
        try:
            source = address_of(fields, "from")
            target = address_of(fields, "to") if fields.get("to") is not None else None
        except Malformed:
            continue  # the texts of the callback must not be lost
        if not (isinstance(msgid, str) and ID.fullmatch(msgid)):
            continue
        caption = fields.get("caption")
        message = IncomingMessage(
            source,
            caption if isinstance(caption, str) else "",
            msgid,
            target,
            rtime=time_of(fields.get("timestamp"), 1000),
        )
        hidden = ("from", "to", "caption", "apiKey")
        message.meta = {k: v for k, v in fields.items() if k not in hidden}
        files = [(f.get("downloadUrl"), f.get("contentType")) for f in listed(fields.get("files"))]
        message.media = media_of(files)
        message.channel = _channel(fields)
        yield message


def _channel(fields: dict[str, Any]) -> str | None:
    """A message's channel in the One API, whose examples have a trailing blank."""
    channel = fields.get("channel")
    name = channel.strip().lower() if isinstance(channel, str) else ""
    return name if name and name != "sms" else None


def _decoded(text: str, charset: Any) -> str:
    """Decode a text: in these two character sets its bytes are percent-encoded."""
    if charset == "UTF-16BE":
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-16-be", "replace")
    return unquote_plus(text, "latin-1") if charset == "ISO-8859-1" else text


def _require_list(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise Malformed("not a JSON list")
    return values
