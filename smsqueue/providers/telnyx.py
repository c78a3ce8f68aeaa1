"""Telnyx, Messaging API v2.

Source: Telnyx's documentation (errors, webhooks, idempotency, balance) and its Python SDK
(fields, signature). Telnyx replays the answer to a repeated ``Idempotency-Key`` on endpoints
whose reference declares it; the one that sends a message does not: see ``dedup_window``.
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
from smsqueue.providers.capabilities import Can
from smsqueue.providers.checked import UUID
from smsqueue.providers.ed25519 import load_keys, verifies
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
from smsqueue.providers.used import signed_with

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from flask import Blueprint

__all__ = ["TelnyxProvider"]

#: What a key may consist of.
_KEY = re.compile(r"[A-Za-z0-9_:-]{1,255}")
#: Validity over; expired in the queue.
_EXPIRED = frozenset({"40005", "40014"})
#: What a detail record's final status means, where it says more than that Telnyx has the message.
_RECORDED = table((MessageDelivered, ["delivered"]), (MessageError, ["failed", "gw_reject"]))
#: What the statuses mean with which a message is answered that was given up at once.
_GIVEN_UP = (MessageError, MessageExpired)
_DAY = 86400


#: What parameters do not replace.
_OURS = ("to", "cc", "bcc", "webhook_url", "webhook_failover_url", "use_profile_webhooks")


class TelnyxProvider(AccountProvider):
    """Sends and receives through Telnyx.

    Args:
        api_key: ``KEY...``, of API v2.
        public_key: The account's public key (Base64), which webhooks are verified with; several
            while it changes.
        profile: ``messaging_profile_id``; needed for a sender id of letters and for number pools.
        dedup_window: Seconds for which Telnyx is trusted to send once what comes with the same
            key, 86400 at most. 0 by default: the key goes with each message, but Telnyx does not
            promise that this endpoint looks at it.
        replay_window: Seconds by which a webhook's time may differ from ours.
        failover: Where Telnyx reaches other receivers (as SMSQUEUE_PUBLIC_URL) if ours do not
            answer three times.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    base_url = "https://api.telnyx.com/v2"
    capabilities = frozenset(Can) - {Can.VALIDITY, Can.DEDUPLICATION}
    url_arguments = ("api_key", "public_key")
    ids: ClassVar = UUID
    codes: ClassVar = table(
        (exc.AuthError, ["10009", "10010", "20002", "20006", *map(str, range(20012, 20018))]),
        (exc.AuthError, map(str, range(40311, 40315))),
        (exc.CreditError, ["20100", "40333"]),
        (exc.LimitsError, ["10011", "40011", "40318", "40320"]),
        (exc.ServerError, ["10007", "10008", "40006", "40008"]),
        (exc.UnsupportedError, ["40301", "40308", "40309", "40331"]),
        (exc.RequestError, [*map(str, range(10001, 10007)), "10015", "10016", "40300", "40302"]),
        (exc.RequestError, ["40304", "40305", "40306", "40307", "40310", "40316", "40317"]),
        (exc.RequestError, ["40319", "40322", "40325"]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["queued", "sending", "sent"]),
        # Nobody will ever know more: what was accepted stays so.
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
        self._seals = secrets_of(api_key)  # the addresses of webhooks are not signed
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
                ours = str(self.settings.public_url).rstrip("/")
                body["webhook_failover_url"] = self._failover + callback.removeprefix(ours)
        body |= beside(message.provider_params, *_OURS)
        if re.search("[A-Za-z]", str(body.get("from"))) and "messaging_profile_id" not in body:
            reason = (
                "Telnyx takes a sender id of letters only with a messaging profile: profile=..."
            )
            raise exc.UnsupportedError(reason, provider=self.name)
        headers = self._headers | {"Content-Type": "application/json"}
        key = message.dedup_key or message.reference
        if key:
            headers["Idempotency-Key"] = _as_key(key)
        try:
            answer = self.call(
                "POST", "/messages", data=json.dumps(body, sort_keys=True), headers=headers
            )
        except exc.MessageSendError as error:
            # The key is known, with another body or still at work: then the message may be, too.
            if message.repeated and error.http_status in (409, 422):
                error.ambiguous = True
            raise
        self._check(answer)
        message.msgid = answer.require("data", "id")
        message.meta = {name: answer.get("data", name) for name in ("parts", "encoding", "cost")}

    def _check(self, answer: Answer) -> None:
        """Raise an error if a 2xx says that nothing was sent."""
        if not answer.get("data", "id"):
            if answer.get("data") is None and self.error_code(answer):
                raise self.refusal(answer)
            return
        status = answer.get("data", "to", 0, "status")
        given_up = isinstance(status, str) and self.statuses.get(status) in _GIVEN_UP
        if given_up or answer.get("data", "to") == []:
            raise self.refusal(answer, self._first(answer.get("data", "errors")))

    def error_code(self, answer: Answer) -> str | None:
        return self._first(answer.get("errors"))

    def _first(self, errors: Any) -> str | None:
        """The first code that is in ``codes``, else the first one."""
        # Telnyx's codes have five digits; a gateway may write an HTTP status there.
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
        # Telnyx keeps no reference of ours, but the address that it reports to, which has it.
        url = self.callback_url("status", message)
        if not url or not message.provider_options.status_report:
            raise NotImplementedError("Telnyx finds a message by the address of its reports only")
        asked = {
            "filter[record_type]": "messaging",
            "filter[direction]": "outbound",
            "filter[created_at][gte]": (since - timedelta(days=1)).date().isoformat(),
            "filter[cld][ends_with]": message.dst,
        }
        answer = self.call("GET", "/detail_records", safe=True, headers=self._headers, params=asked)
        for record in answer.objects("data"):
            if record.get("delivery_status_webhook_url") == url:
                word = str(record.get("status") or "recorded")
                kind = _RECORDED.get(word, MessageAccepted)
                return self._report(word, record.get("uuid"), _codes(record.get("errors")), kind)
        return None

    def _report(
        self, word: str, msgid: Any, codes: list[str], kind: type[MessageStatus] | None
    ) -> MessageStatus:
        """A report; its first code tells whether the validity was over."""
        code = codes[0] if codes else None
        late = code in _EXPIRED and kind is MessageError
        return self.report(word, msgid, code=code, kind=MessageExpired if late else kind)

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_secret(name="public_key")
        keys = [] if self.insecure else load_keys(self._secrets, self.name)

        def read() -> list[IncomingMessage | MessageStatus]:

            if not self.insecure:
                self._authenticate(keys)
            return self._events(json_object(json_body())["data"])

        return event_views(self, read)

    def _events(self, data: dict[str, Any]) -> list[IncomingMessage | MessageStatus]:
        """What an event tells, if it is anything that we want to know."""
        kind = data["event_type"]
        if kind == "message.received":
            return [_incoming(data["payload"])]
        if kind not in ("message.sent", "message.finalized", "message.read"):
            return []
        told = data["payload"]
        word, codes = text_of(told["to"][0], "status"), _codes(told.get("errors"))
        if word == "webhook_delivered":  # said of incoming messages
            return []
        report = self._report(word, id_of(told), codes, self.statuses.get(word))
        report.reference = self.seen_reference()
        report.event_id = text_of(data, "id") if data.get("id") else None
        report.rtime = time_of(data.get("occurred_at")) or report.rtime
        report.meta = {name: told.get(name) for name in ("parts", "cost", "encoding")}
        return [report]

    def _authenticate(self, keys: list[Ed25519PublicKey]) -> None:
        """PermissionError unless Telnyx signed the running request, a moment ago."""
        from flask import request

        time = request.headers.get("telnyx-timestamp", "")
        if not fresh(time, self._replay_window):
            raise Refused("the webhook is too old, or from the future")
        text = time.encode() + b"|" + request.get_data()
        if not verifies(keys, request.headers.get("telnyx-signature-ed25519", ""), text):
            raise Refused("the signature is not Telnyx's")
        signed_with(
            f"{time}|{sha256_hex(request.get_data())}", seconds=2 * self._replay_window, whole=True
        )


def _incoming(told: dict[str, Any]) -> IncomingMessage:
    message = IncomingMessage(
        address_of(told["from"], "phone_number"),
        "" if told.get("text") is None else text_of(told, "text"),
        id_of(told),
        address_of(told["to"][0], "phone_number"),
        rtime=time_of(told.get("received_at")),
    )
    message.meta = {k: v for k, v in told.items() if k not in ("from", "to", "cc", "text")}
    all_of_them = [*listed(told["to"]), *listed(told.get("cc"))]
    message.meta |= recipients_of(*(each.get("phone_number") for each in all_of_them))
    message.media = media_of(
        [(each.get("url"), each.get("content_type")) for each in listed(told.get("media"))]
    )
    return message


def _codes(errors: Any) -> list[str]:
    """The codes of errors: an answer's and an event's are objects, a record's are codes."""
    listed = errors if isinstance(errors, list) else []
    found = [each.get("code") if isinstance(each, dict) else each for each in listed]
    return [code for code in map(str, found) if re.fullmatch("[0-9]{1,9}", code)]


def _as_key(text: str) -> str:
    """A text as a key: our references have a dot, which keys may not have."""
    key = text.replace(".", ":")
    return key if _KEY.fullmatch(key) else sha256_hex(text.encode())
