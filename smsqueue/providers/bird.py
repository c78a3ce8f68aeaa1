"""Bird (the platform that MessageBird became), SMS messages.

Source: Bird's Python SDK (fields, statuses, events, regions), its documentation of errors,
idempotency and webhooks, and the Standard Webhooks specification for the signature.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import recipient, sender
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.account import AccountProvider, beside, table
from smsqueue.providers.authentic import Refused, any_equal, fresh, hmac_base64
from smsqueue.providers.base.event_validation import PREFIXED_ID
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import (
    address_of,
    event_views,
    json_body,
    json_object,
    listed,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["BirdProvider"]

#: Key of our reference in a message's metadata.
_REFERENCE_KEY = "smsqueue"
#: Statuses in a response that say that nothing was sent.
_NOT_SENT = frozenset({"undelivered", "failed", "rejected", "canceled", "expired"})


class BirdProvider(AccountProvider):
    """Sends and receives through Bird.

    Bird sends once per key, for about three hours: a message whose response was lost is sent again
    with the same key and the same request. Bird repeats its first response, or answers 409: the
    first request is in progress, or the key was used. Then the state of the message is unknown.

    Args:
        api_key: ``bk_<region>_...``.
        secret: The webhook's signing secret, ``whsec_...``.
        region: ``us1``, ``eu1`` ...; by default the one in the key.
        category: The default category of messages: ``transactional``,
            ``authentication``, ``service`` or ``marketing``.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    #: Bird documents "roughly 3 hours"; one hour less to be safe.
    dedup_window = 7200.0
    capabilities = frozenset(
        {Can.ALPHANUMERIC, Can.REPORTS, Can.INBOUND, Can.LOOKUP, Can.DEDUPLICATION}
    )
    url_arguments = ("api_key", "secret")
    ids: ClassVar = PREFIXED_ID
    #: By the type of an error, or by its name where that is more specific.
    codes: ClassVar = table(
        (exc.AuthError, ["auth_error", "permission_error", "misdirected_error"]),
        (exc.CreditError, ["billing_error"]),
        (exc.LimitsError, ["rate_limit_error"]),
        (exc.UnsupportedError, ["SMSUnsupportedFeature", "not_implemented_error"]),
        (exc.ServerError, ["service_unavailable_error", "too_early_error"]),
        (exc.RequestError, ["bad_request_error", "validation_error", "not_found_error"]),
        (exc.RequestError, ["payload_too_large_error", "precondition_error", "gone_error"]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["scheduled", "accepted", "sent"]),
        (MessageDelivered, ["delivered"]),
        (MessageExpired, ["expired"]),
        (MessageError, ["undelivered", "failed", "rejected", "canceled"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        api_key: str,
        region: str | None = None,
        category: str = "transactional",
        url: str | None = None,
        **config: Any,
    ) -> None:
        match = re.match("bk_([a-z]{2}[0-9]+)_", api_key)
        region = region or (match[1] if match else None)
        if not (url or region):
            raise ValueError("the api_key of Bird does not begin with bk_<region>_: set region=...")
        url = url or f"https://{region}.platform.bird.com"
        super().__init__(gateway, name, url=url, **config)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._category = category
        self._keys = [_decode_secret(secret) for secret in self._secrets]

    def submit(self, message: OutgoingMessage) -> None:
        # A repetition must be the same request, so nothing in it may depend on the time.
        params = beside(message.provider_params, "to", "cc", "bcc", "recipients", "receiver")
        # A template brings its own text and category.
        text = {"text": message.body, "category": self._category}
        body: dict[str, Any] = {} if "template" in params else text
        source = self.sender_of(message)
        if source:
            body["from"] = sender(source, plus=True, also=" -_")
        body |= params | {"to": recipient(message.dst)}
        if message.reference:
            body["metadata"] = {**(body.get("metadata") or {}), _REFERENCE_KEY: message.reference}
        key = message.dedup_key or message.reference
        answer = self.call(
            "POST",
            "/v1/sms/messages",
            headers=self._headers | ({"Idempotency-Key": key} if key else {}),
            json=body,
        )
        status, msgid = answer.get("status"), answer.get("id")
        if (isinstance(status, str) and status in _NOT_SENT) or (not msgid and answer.get("error")):
            raise self.refusal(answer)
        message.msgid = answer.require("id")
        message.meta = {name: answer.get(name) for name in ("status", "segments", "cost")}

    def error_code(self, answer: Answer) -> str | None:
        name, kind = answer.get("error", "name"), answer.get("error", "type")
        code = name if isinstance(name, str) and name in self.codes else kind
        if not isinstance(code, str):
            return None
        # Gateways write errors of this form, too: for a 5xx only documented codes count.
        return code if code in self.codes or answer.status < 500 else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        conflict = answer.status == 409  # the key is in use, or was used for another request
        # Bird's 501 and 503 say that nothing was done; its other 5xx may follow a send.
        if conflict or (answer.status >= 500 and answer.status not in (501, 503)):
            error.ambiguous = True
        return self._with_code(error, answer)

    def refusal(
        self,
        answer: Answer,
        code: str | int | None = None,
        default: type[exc.ProviderError] = exc.RequestError,
    ) -> exc.ProviderError:
        return self._with_code(super().refusal(answer, code, default), answer)

    @staticmethod
    def _with_code(error: exc.ProviderError, answer: Answer) -> exc.ProviderError:
        for where in ("error", "last_error"):
            code = answer.get(where, "code")
            if isinstance(code, str):
                error.code = code  # E01234, for Bird's support
                break
        return error

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        answer = self.call(
            "GET",
            "/v1/sms/messages",
            safe=True,
            headers=self._headers,
            params={"to": recipient(message.dst), "direction": "outbound"},  # newest first
        )
        items = answer.require("data")
        for item in items if message.reference and isinstance(items, list) else ():
            if isinstance(item, dict) and _reference(item) == message.reference:
                return self._report(item, str(item.get("status")), item.get("id"), "last_error")
        return None

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_secret()
        return event_views(self, self._events)  # one webhook may be subscribed to all events

    def _events(self) -> Iterator[IncomingMessage | MessageStatus]:
        self._authenticate()
        event = json_object(json_body())
        data, (resource, _, what) = event.get("data"), text_of(event, "type").partition(".")
        if resource != "sms":
            return  # another channel
        if not isinstance(data, dict):
            raise Malformed("data is not a JSON object")
        at = time_of(event.get("timestamp"))
        if what == "received":
            text = data["text"] if isinstance(data.get("text"), str) else ""
            number, id = address_of(data, "from"), text_of(data, "sms_id")
            message = IncomingMessage(number, text, id, address_of(data, "to"), rtime=at)
            known = ("from", "text", "to")
            message.meta = {k: v for k, v in data.items() if k not in known}
            message.media = media_of(_media(data))
            yield message
        else:
            report = self._report(data, what, text_of(data, "sms_id"), "error")
            report.rtime = at or report.rtime
            yield report

    def _report(self, fields: dict[str, Any], word: str, msgid: Any, error: str) -> MessageStatus:
        reason = fields.get(error)
        report = self.report(
            word, msgid, code=reason.get("code") if isinstance(reason, dict) else None
        )
        report.reference = _reference(fields)
        report.meta = {name: fields.get(name) for name in ("cost", "carrier", "mcc_mnc", error)}
        return report

    def _authenticate(self) -> None:
        """PermissionError unless Bird signed the running request, within five minutes."""
        from flask import request

        if self.insecure:
            return
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        id, sent_at, signatures = (request.headers.get(name, "") for name in names)
        signed = f"{id}.{sent_at}.".encode() + request.get_data()
        expected = [f"v1,{hmac_base64(key, signed)}" for key in self._keys]
        # Several, while Bird rotates the secret.
        genuine = [any_equal(signature, expected) for signature in signatures.split()]
        if not (any(genuine) and fresh(sent_at)):
            raise Refused("the signature is not by Bird, or too old")
        register_signatures(expected[0], seconds=_REPLAY, whole=True)


#: Twice the seconds for which a signature is valid, as its time may be in the future.
_REPLAY = 600.0


def _media(data: dict[str, Any]) -> list[tuple[Any, Any]]:
    """URLs and types of an MMS's files: a preview of Bird, as a list of URLs or of objects."""
    urls = data.get("media_urls")
    files = [(url, None) for url in urls] if isinstance(urls, list) else []
    for name in ("media", "attachments"):
        for file in listed(data.get(name)):
            kind = file.get("content_type") or file.get("media_type")
            files.append((file.get("url") or file.get("source_url"), kind))
    return files


def _decode_secret(secret: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("the secret of Bird's webhook must be whsec_ followed by Base64")
    return key


def _reference(fields: dict[str, Any]) -> str | None:
    metadata = fields.get("metadata")
    reference = metadata.get(_REFERENCE_KEY) if isinstance(metadata, dict) else None
    return reference if isinstance(reference, str) else None
