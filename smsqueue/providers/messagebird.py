"""MessageBird's REST API (rest.messagebird.com), older than the platform of Bird.

Source: MessageBird's SDKs for Go, PHP and Python (fields, errors, the signature and its published
examples), Bird's documentation of delivery reports, and another gateway's receiver for the fields
of both webhooks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import sender
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.account import AccountProvider, Balance, beside, table
from smsqueue.providers.authentic import Refused, equal, sha256_hex
from smsqueue.providers.base.event_validation import UUID
from smsqueue.providers.base.replay_protection import jwt_signing_input, register_signatures
from smsqueue.providers.base.signature_libraries import jwt_library
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import address_of, form_fields, query_fields

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue
    from werkzeug.datastructures import MultiDict

__all__ = ["MessageBirdProvider", "is_authentic"]

#: Statuses in a response that say that nothing was sent.
_NOT_SENT = frozenset({"delivery_failed", "expired"})
#: Seconds. Limits are not documented: the longest that ``expires`` can be.
_VALIDITY = (1, 315_360_000)
#: Most that MessageBird's clock may differ from ours.
_CLOCK_SKEW = timedelta(hours=1)
#: Names of the fields with URLs of files.
_MEDIA = re.compile(r"mediaUrls(\[[0-9]{0,2}\])?")
_NEED = "MessageBird's webhooks are signed with JWT"


#: Fields that message parameters cannot replace.
_RESERVED = ("recipients", "recipient", "groupIds", "reference", "reportUrl")


class MessageBirdProvider(AccountProvider):
    """Sends and receives through MessageBird.

    Args:
        access_key: The API key.
        secret: The signing key of the account, which signs webhooks.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://rest.messagebird.com"
    capabilities = frozenset(Can) - {Can.DEDUPLICATION}
    url_arguments = ("access_key", "secret")
    ids: ClassVar = UUID
    opt_out_codes = frozenset({"103"})
    codes: ClassVar = table(
        (exc.AuthError, [2]),
        (exc.CreditError, [25]),
        (exc.RequestError, [9, 10, 20]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["scheduled", "buffered", "sent"]),
        (MessageDelivered, ["delivered"]),
        (MessageExpired, ["expired"]),
        (MessageError, ["delivery_failed"]),
    )

    def __init__(self, gateway: Any, name: str, *, access_key: str, **config: Any) -> None:
        super().__init__(gateway, name, **config)
        self._headers = {"Authorization": f"AccessKey {access_key}"}

    def submit(self, message: OutgoingMessage) -> None:
        unicode = message.segments().encoding == "ucs2"
        body: dict[str, Any] = {
            "body": message.body,
            "datacoding": "unicode" if unicode else "plain",
        }
        # Parameters do not replace these: a response must be about one recipient.
        ours: dict[str, Any] = {"recipients": [message.dst]}
        if message.reference:
            ours["reference"] = message.reference  # without it there are no reports
        source = self.sender_of(message)
        if source:
            body["originator"] = sender(source, plus=False)
        callback = self.callback_url("status")
        if callback and message.provider_options.status_report:
            body["reportUrl"] = callback
        validity = self.validity_of(message, *_VALIDITY)
        if validity is not None:
            body["validity"] = validity
        body |= beside(message.provider_params, *_RESERVED) | ours
        answer = self.call("POST", "/messages", headers=self._headers, json=body)
        if answer.get("errors"):
            raise self.error(answer) if answer.get("id") else self.refusal(answer)
        first = _recipient(answer.json)
        status, reason = first.get("status"), first.get("statusErrorCode")
        if _has_no_recipients(answer) or (isinstance(status, str) and status in _NOT_SENT):
            opted_out = str(reason) in self.opt_out_codes
            refusal = self.refusal(answer, default=exc.OptedOut if opted_out else exc.RequestError)
            refusal.code = reason if isinstance(reason, int | str) else None
            raise refusal
        message.msgid = answer.require("id")
        message.meta = {name: first.get(name) for name in ("status", "messagePartCount", "price")}

    def error_code(self, answer: Answer) -> int | None:
        code, about = answer.get("errors", 0, "code"), answer.get("errors", 0, "description")
        own = isinstance(code, int) and not isinstance(code, bool) and about is not None
        return code if own else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        # Other codes are not documented, so a 500 with one of them is ambiguous.
        contradiction = 200 <= answer.status < 300
        if contradiction or (answer.status in (500, 502, 504) and error.code not in self.codes):
            error.ambiguous = True
        return error

    def balance(self) -> Balance:
        answer = self.call("GET", "/balance", safe=True, headers=self._headers)
        # Prepaid accounts may count credits, which is not a currency.
        currency = {"euros": "EUR", "dollars": "USD", "pounds": "GBP"}.get(str(answer.get("type")))
        return Balance(answer.amount("amount"), currency)

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        begin = (
            since.astimezone(UTC) - _CLOCK_SKEW
        )  # the response has 20 messages, in no documented order
        answer = self.call(
            "GET",
            "/messages",
            safe=True,
            headers=self._headers,
            params={"recipient": message.dst, "from": begin.isoformat(timespec="seconds")},
        )
        items = answer.require("items")
        for item in items if message.reference and isinstance(items, list) else ():
            if isinstance(item, dict) and item.get("reference") == message.reference:
                first = _recipient(item)
                word, code = str(first.get("status", "sent")), first.get("statusErrorCode")
                report = self.report(word, item.get("id"), code=code)
                report.reference = message.reference
                return report
        return None

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint, request

        self.need_secret()
        if not self.insecure:
            jwt_library(_NEED)  # fail now, not at the first webhook
        views = Blueprint("messagebird", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            self._authenticate()
            fields = form_fields(*(name for name in request.form if _MEDIA.fullmatch(name)))
            names = ("mid", "shortcode", "message") if "shortcode" in fields else None
            msgid, dst, text = names or ("id", "recipient", "body")
            message = IncomingMessage(
                address_of(fields, "originator"),
                fields.get(text, ""),
                fields[msgid],
                address_of(fields, dst) if fields.get(dst) else None,
                rtime=_time(fields.get("createdDatetime")),
            )
            known = ("originator", text, dst)
            message.meta = {k: v for k, v in fields.items() if k not in known}
            message.media = media_of([(url, None) for url in _media_urls(fields)])
            self._receive_message(message)
            return "OK", 200, {"Content-Type": "text/plain"}

        @views.get("/status")
        def status() -> ResponseReturnValue:
            self._authenticate()
            fields = query_fields()
            code = fields.get("statusErrorCode") or None
            report = self.report(fields["status"], fields["id"], code=code)
            report.reference = fields.get("reference")
            report.rtime = _time(fields.get("statusDatetime")) or report.rtime
            report.meta = {k: v for k, v in fields.items() if k != "recipient"}
            self._receive_status(report)
            return "OK", 200, {"Content-Type": "text/plain"}

        return views

    def _authenticate(self) -> None:
        """Raise Refused unless MessageBird signed the running request."""
        from flask import request

        token, body = request.headers.get("MessageBird-Signature-JWT", ""), request.get_data()
        if not (token or self.insecure) and "MessageBird-Signature" in request.headers:
            raise Refused(
                "it has only the deprecated MessageBird-Signature, which does not cover the "
                "URL: MessageBird-Signature-JWT is needed"
            )
        if not (self.insecure or is_authentic(token, self.seen_url(), body, self._secrets)):
            raise Refused("the signature is not by MessageBird")
        if not self.insecure:
            register_signatures(jwt_signing_input(token), whole=True)


def is_authentic(token: str, url: str, body: bytes, secrets: Sequence[str]) -> bool:
    """Did one of these secrets sign a valid token for this URL and this body?"""
    jwt = jwt_library(_NEED)
    for secret in secrets:
        try:
            claims = jwt.decode(
                token,
                secret,
                algorithms=["HS256", "HS384", "HS512"],
                issuer="MessageBird",
                leeway=1,
                options={"require": ["iss", "nbf", "exp", "url_hash"], "verify_iat": False},
            )
        except (jwt.PyJWTError, RecursionError):
            continue
        url_hash, body_hash = claims["url_hash"], claims.get("payload_hash")
        same_url = isinstance(url_hash, str) and equal(url_hash, sha256_hex(url.encode()))
        if not body or body_hash is None:
            same_body = not body and body_hash is None
        else:
            same_body = isinstance(body_hash, str) and equal(body_hash, sha256_hex(body))
        if same_url and same_body:
            return True
    return False


def _has_no_recipients(answer: Answer) -> bool:
    """Does a response say that the message has no recipients?"""
    recipients = answer.get("recipients")
    if not isinstance(recipients, dict):
        return False
    total, items = recipients.get("totalCount"), recipients.get("items")
    return not items and (total == 0 or (total is None and items == []))


def _media_urls(fields: MultiDict[str, str]) -> list[str]:
    """URLs of an MMS's files: one field with several values, or several numbered fields."""
    names = sorted(n for n in fields if _MEDIA.fullmatch(n))
    names.sort(key=len)  # [2] before [10]
    return [url for name in names for url in fields.getlist(name)]


def _recipient(message: Any) -> dict[str, Any]:
    """The details of a message's only recipient; {} if there are none."""
    try:
        first = message["recipients"]["items"][0]
    except (KeyError, IndexError, TypeError):
        return {}
    return first if isinstance(first, dict) else {}


def _time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
