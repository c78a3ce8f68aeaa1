"""Telnyx, Messaging API v2.

Source: Telnyx's documentation (errors, webhooks, idempotency, balance) and its Python SDK
(fields, signature). Telnyx replays the response to a repeated ``Idempotency-Key`` on endpoints
whose reference declares it. The one that sends a message does not: see ``dedup_window``.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
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
from smsqueue.providers.account import AccountProvider, Balance, beside, table
from smsqueue.providers.authentic import Refused, Secrets, fresh, secrets_of, sha256_hex
from smsqueue.providers.base.event_validation import UUID
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.signature_libraries import load_ed25519_keys, verify_ed25519
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import (
    address_of,
    event_views,
    id_of,
    json_body,
    json_object,
    listed,
    recipients_of,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from flask import Blueprint

__all__ = ["TelnyxProvider"]

#: Form of an idempotency key.
_KEY = re.compile(r"[A-Za-z0-9_:-]{1,255}")
#: Error codes: the validity ended; the message expired in the queue.
_EXPIRED = frozenset({"40005", "40014"})
#: Final statuses of detail records. Any other says only that Telnyx has the message.
_RECORDED = table((MessageDelivered, ["delivered"]), (MessageError, ["failed", "gw_reject"]))
#: Report classes of statuses in a response that say that nothing was sent.
_NOT_SENT = (MessageError, MessageExpired)
_DAY = 86400


#: Fields that message parameters cannot replace.
_RESERVED = ("to", "cc", "bcc", "webhook_url", "webhook_failover_url", "use_profile_webhooks")


class TelnyxProvider(AccountProvider):
    """Sends and receives through Telnyx.

    Args:
        api_key: ``KEY...``, of API v2.
        public_key: The account's public key (Base64), which verifies webhooks; several while it
            rotates.
        profile: ``messaging_profile_id``; needed for a sender id of letters and for number pools.
        dedup_window: Seconds for which Telnyx is trusted to send once per key, at most 86400. 0 by
            default: each message has a key, but Telnyx does not document that this endpoint uses
            it.
        replay_window: Most seconds by which a webhook's time may differ from ours.
        failover: Public URL (like SMSQUEUE_PUBLIC_URL) of other receivers, which Telnyx calls if
            ours do not answer three times.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://api.telnyx.com/v2"
    capabilities = frozenset(Can) - {Can.VALIDITY, Can.DEDUPLICATION}
    url_arguments = ("api_key", "public_key")
    ids: ClassVar = UUID
    opt_out_codes = frozenset({"40300"})
    codes: ClassVar = table(
        (exc.AuthError, ["10009", "10010", "20002", "20006", *map(str, range(20012, 20018))]),
        (exc.AuthError, map(str, range(40311, 40315))),
        (exc.CreditError, ["20100", "40333"]),
        (exc.LimitsError, ["10011", "40011", "40318", "40320"]),
        (exc.ServerError, ["10007", "10008", "40006", "40008"]),
        (exc.UnsupportedError, ["40301", "40308", "40309", "40331"]),
        (exc.RequestError, [*map(str, range(10001, 10007)), "10015", "10016", "40302"]),
        (exc.OptedOut, ["40300"]),
        (exc.RequestError, ["40304", "40305", "40306", "40307", "40310", "40316", "40317"]),
        (exc.RequestError, ["40319", "40322", "40325"]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["queued", "sending", "sent"]),
        # No further status follows: the message stays accepted.
        (MessageAccepted, ["delivery_unconfirmed"]),
        (MessageDelivered, ["delivered", "read"]),
        (MessageExpired, ["expired"]),
        (MessageError, ["sending_failed", "delivery_failed"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        api_key: str,
        public_key: Secrets = None,
        profile: str | None = None,
        dedup_window: float = 0.0,
        replay_window: float = 300.0,
        failover: str | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=public_key, **config)
        if not 0 <= dedup_window <= _DAY:
            raise ValueError("Telnyx keeps keys for a day: dedup_window must be 0 to 86400")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._profile = profile
        self._replay_window = replay_window
        self._failover = failover.rstrip("/") if failover else None
        self._seals = secrets_of(api_key)  # the URLs of webhooks are not signed
        if dedup_window:
            self.dedup_window = dedup_window
            self.capabilities = self.capabilities | {Can.DEDUPLICATION}

    def submit(self, message: OutgoingMessage) -> None:
        body = {"to": recipient(message.dst), "text": message.body, "type": "SMS"}
        source = self.sender_of(message)
        if source:
            body["from"] = sender(source, plus=True, also=" ")
        if self._profile:
            body["messaging_profile_id"] = self._profile
        callback = self.callback_url("status", message)
        if callback and message.provider_options.status_report:
            body["webhook_url"] = callback
            if self._failover:
                public_url = str(self.settings.public_url).rstrip("/")
                path = callback.removeprefix(public_url)
                body["webhook_failover_url"] = self._failover + path
        body |= beside(message.provider_params, *_RESERVED)
        if re.search("[A-Za-z]", str(body.get("from"))) and "messaging_profile_id" not in body:
            reason = "Telnyx needs a messaging profile for a sender id of letters: set profile=..."
            raise exc.UnsupportedError(reason, provider=self.name)
        headers = self._headers | {"Content-Type": "application/json"}
        key = message.dedup_key or message.reference
        if key:
            headers["Idempotency-Key"] = _idempotency_key(key)
        try:
            answer = self.call(
                "POST", "/messages", data=json.dumps(body, sort_keys=True), headers=headers
            )
        except exc.MessageSendError as error:
            # The key was used with another body, or its request is in progress: maybe it was sent.
            if message.repeated and error.http_status in (409, 422):
                error.ambiguous = True
            raise
        self._check_accepted(answer)
        message.msgid = answer.require("data", "id")
        message.meta = {name: answer.get("data", name) for name in ("parts", "encoding", "cost")}

    def _check_accepted(self, answer: Answer) -> None:
        """Raise an error if a 2xx says that nothing was sent."""
        if not answer.get("data", "id"):
            if answer.get("data") is None and self.error_code(answer):
                raise self.refusal(answer)
            return
        status = answer.get("data", "to", 0, "status")
        not_sent = isinstance(status, str) and self.statuses.get(status) in _NOT_SENT
        if not_sent or answer.get("data", "to") == []:
            raise self.refusal(answer, self._error_code_in(answer.get("data", "errors")))

    def error_code(self, answer: Answer) -> str | None:
        return self._error_code_in(answer.get("errors"))

    def _error_code_in(self, errors: Any) -> str | None:
        """The first code that is in ``codes``, otherwise the first one."""
        # Telnyx's codes have five digits; a gateway may write an HTTP status.
        codes = [code for code in _codes(errors) if len(code) == 5]
        return next((code for code in codes if code in self.codes), codes[0] if codes else None)

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        if error.retry_after is None:
            error.retry_after = answer.seconds("retry-after-ms", 1000)
        if error.retry_after is None and isinstance(error, exc.LimitsError):
            error.retry_after = answer.seconds("x-ratelimit-reset")
        return error

    def balance(self) -> Balance:
        answer = self.call("GET", "/balance", safe=True, headers=self._headers)
        left = answer.amount("data", "available_credit")
        return Balance(left, answer.get("data", "currency"))

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        # Telnyx stores no reference of ours, but the URL of reports contains it.
        url = self.callback_url("status", message)
        if not url or not message.provider_options.status_report:
            raise NotImplementedError("Telnyx identifies a message only by the URL of its reports")
        filters = {
            "filter[record_type]": "messaging",
            "filter[direction]": "outbound",
            "filter[created_at][gte]": (since - timedelta(days=1)).date().isoformat(),
            "filter[cld][ends_with]": message.dst,
        }
        answer = self.call(
            "GET", "/detail_records", safe=True, headers=self._headers, params=filters
        )
        for record in answer.objects("data"):
            if record.get("delivery_status_webhook_url") == url:
                word = str(record.get("status") or "recorded")
                kind = _RECORDED.get(word, MessageAccepted)
                return self._report(word, record.get("uuid"), _codes(record.get("errors")), kind)
        return None

    def _report(
        self, word: str, msgid: Any, codes: list[str], kind: type[MessageStatus] | None
    ) -> MessageStatus:
        """A report; its first code says whether the message expired."""
        code = codes[0] if codes else None
        expired = code in _EXPIRED and kind is MessageError
        return self.report(word, msgid, code=code, kind=MessageExpired if expired else kind)

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_secret(name="public_key")
        keys = [] if self.insecure else load_ed25519_keys(self._secrets, self.name)

        def read() -> list[IncomingMessage | MessageStatus]:
            if not self.insecure:
                self._authenticate(keys)
            return self._events(json_object(json_body())["data"])

        return event_views(self, read)

    def _events(self, data: dict[str, Any]) -> list[IncomingMessage | MessageStatus]:
        """The incoming message or report in an event; [] for other kinds of events."""
        kind = data["event_type"]
        if kind == "message.received":
            return [_incoming(data["payload"])]
        if kind not in ("message.sent", "message.finalized", "message.read"):
            return []
        payload = data["payload"]
        word, codes = text_of(payload["to"][0], "status"), _codes(payload.get("errors"))
        if word == "webhook_delivered":  # about an incoming message
            return []
        report = self._report(word, id_of(payload), codes, self.statuses.get(word))
        report.reference = self.seen_reference()
        report.event_id = text_of(data, "id") if data.get("id") else None
        report.rtime = time_of(data.get("occurred_at")) or report.rtime
        report.meta = {name: payload.get(name) for name in ("parts", "cost", "encoding")}
        return [report]

    def _authenticate(self, keys: list[Ed25519PublicKey]) -> None:
        """Raise Refused unless Telnyx signed the running request recently."""
        from flask import request

        time = request.headers.get("telnyx-timestamp", "")
        if not fresh(time, self._replay_window):
            raise Refused("the webhook is too old, or from the future")
        text = time.encode() + b"|" + request.get_data()
        if not verify_ed25519(keys, request.headers.get("telnyx-signature-ed25519", ""), text):
            raise Refused("the signature is not by Telnyx")
        register_signatures(
            f"{time}|{sha256_hex(request.get_data())}", seconds=2 * self._replay_window, whole=True
        )


def _incoming(payload: dict[str, Any]) -> IncomingMessage:
    message = IncomingMessage(
        address_of(payload["from"], "phone_number"),
        "" if payload.get("text") is None else text_of(payload, "text"),
        id_of(payload),
        address_of(payload["to"][0], "phone_number"),
        rtime=time_of(payload.get("received_at")),
    )
    message.meta = {k: v for k, v in payload.items() if k not in ("from", "to", "cc", "text")}
    recipients = [*listed(payload["to"]), *listed(payload.get("cc"))]
    message.meta |= recipients_of(*(party.get("phone_number") for party in recipients))
    message.media = media_of(
        [(file.get("url"), file.get("content_type")) for file in listed(payload.get("media"))]
    )
    return message


def _codes(errors: Any) -> list[str]:
    """The codes of errors: objects in responses and events, plain codes in detail records."""
    errors = errors if isinstance(errors, list) else []
    codes = [error.get("code") if isinstance(error, dict) else error for error in errors]
    return [code for code in map(str, codes) if re.fullmatch("[0-9]{1,9}", code)]


def _idempotency_key(text: str) -> str:
    """A key for a reference: references have a dot, which keys cannot have."""
    key = text.replace(".", ":")
    return key if _KEY.fullmatch(key) else sha256_hex(text.encode())
