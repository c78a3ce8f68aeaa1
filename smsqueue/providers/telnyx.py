"""Telnyx, Messaging API v2.

Source: Telnyx's documentation (errors, webhooks, idempotency, balance) and its Python SDK
(fields, signature). Telnyx replays the answer to a repeated ``Idempotency-Key`` on endpoints
whose reference declares it; the one that sends a message does not: see ``dedup_window``.
"""

from __future__ import annotations

import base64
import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from smsqueue import exc
from smsqueue.messages import IncomingMessage, OutgoingMessage
from smsqueue.providers.account import AccountProvider, Balance, table
from smsqueue.providers.authentic import Secrets, fresh, sha256_hex
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.settings import SettingsError
from smsqueue.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["TelnyxProvider"]

#: What a key may consist of.
_KEY = re.compile(r"[A-Za-z0-9_:-]{1,255}")
#: Validity over; expired in the queue.
_EXPIRED = frozenset({"40005", "40014"})


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
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    base_url = "https://api.telnyx.com/v2"
    capabilities = frozenset(
        {Can.ALPHANUMERIC, Can.SCHEDULING, Can.CALLBACK, Can.REPORTS, Can.INBOUND, Can.BALANCE}
    )
    url_arguments = ("api_key", "public_key")
    codes: ClassVar = table(
        (exc.AuthError, ["10009", "10010", "20002", "20006", *map(str, range(20012, 20018))]),
        (exc.AuthError, ["40311", "40312", "40313", "40314"]),
        (exc.CreditError, ["20100", "40333"]),
        (exc.LimitsError, ["10011", "40318", "40320"]),
        (exc.ServerError, ["10007", "10008"]),
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
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=public_key, **config)
        if not 0 <= dedup_window <= 86400:
            raise ValueError("Telnyx keeps keys for a day: dedup_window must be 0 to 86400")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._profile = profile
        self._replay_window = replay_window
        if dedup_window:
            self.dedup_window = dedup_window
            self.capabilities = self.capabilities | {Can.DEDUPLICATION}

    def submit(self, message: OutgoingMessage) -> None:
        body = {"to": f"+{message.dst}", "text": message.body, "type": "SMS"}
        sender = self.sender_of(message)
        if sender:
            body["from"] = f"+{sender}" if sender.isdigit() and len(sender) > 6 else sender
        if self._profile:
            body["messaging_profile_id"] = self._profile
        # A repetition must be the same byte for byte: so the address has the key, not the attempt.
        key = message.dedup_key or message.reference
        callback = self.callback_url("status")
        if callback and message.provider_options.status_report:
            body["webhook_url"] = f"{callback}?ref={quote(key)}" if key else callback
        body |= message.provider_params
        if re.search("[A-Za-z]", str(body.get("from"))) and "messaging_profile_id" not in body:
            raise exc.UnsupportedError(
                "Telnyx takes a sender id of letters only with a messaging profile: give the "
                "provider profile=...",
                provider=self.name,
            )
        headers = self._headers | {"Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = _as_key(key)
        try:
            answer = self.call(
                "POST", "/messages", data=json.dumps(body, sort_keys=True), headers=headers
            )
        except exc.MessageSendError as error:
            # The key is known, with another body or still at work: then the message may be, too.
            if key != message.reference and error.http_status in (409, 422):
                error.ambiguous = True
            raise
        message.msgid = answer.require("data", "id")
        message.meta = {name: answer.get("data", name) for name in ("parts", "encoding", "cost")}

    def error_code(self, answer: Answer) -> str | None:
        errors = answer.get("errors")
        found = [each.get("code") for each in errors or () if isinstance(each, dict)]
        codes = [str(code) for code in found if isinstance(code, str | int)]
        return next((code for code in codes if code in self.codes), codes[0] if codes else None)

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        if isinstance(error, exc.LimitsError) and error.retry_after is None:
            reset = answer.headers.get("x-ratelimit-reset", "")
            if reset.isdecimal() and int(reset) <= 86400:
                error.retry_after = float(reset)
        return error

    def balance(self) -> Balance:
        answer = self.call("GET", "/balance", safe=True, headers=self._headers)
        left = answer.require("data", "available_credit")
        return Balance(Decimal(str(left)), answer.get("data", "currency"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint, request

        self.need_secret(name="public_key")
        keys = [] if self.insecure else [_load(each, self.name) for each in self._secrets]
        views = Blueprint("telnyx", __name__)

        # A messaging profile has one address for everything, so both take both.
        @views.post("/im", endpoint="im")
        @views.post("/status", endpoint="status")
        def event() -> ResponseReturnValue:
            if not self.insecure:
                self._authenticate(keys)
            try:
                event = self._event(json.loads(request.get_data())["data"])
            except (KeyError, IndexError, TypeError, AttributeError):
                raise ValueError("malformed") from None
            if isinstance(event, IncomingMessage):
                self._receive_message(event)
            elif event is not None:
                event.reference = request.args.get("ref")
                self._receive_status(event)
            return "", 204

        return views

    def _event(self, data: dict[str, Any]) -> IncomingMessage | MessageStatus | None:
        """What an event tells; None: nothing that we want to know."""
        kind = data["event_type"]
        if kind not in ("message.received", "message.sent", "message.finalized", "message.read"):
            return None
        told = data["payload"]
        to = told["to"][0] if isinstance(told["to"], list) else told["to"]
        if kind == "message.received":
            number = to["phone_number"] if isinstance(to, dict) else to
            made = IncomingMessage(
                told["from"]["phone_number"], told.get("text") or "", told["id"], number
            )
            made.meta = {k: v for k, v in told.items() if k not in ("from", "to", "cc", "text")}
            return made
        status = to["status"]
        code = next((str(each.get("code")) for each in told.get("errors") or ()), None)
        late = code in _EXPIRED and self.statuses.get(status) is MessageError
        report = self.report(status, told["id"], code=code, kind=MessageExpired if late else None)
        report.meta = {name: told.get(name) for name in ("parts", "cost", "encoding")}
        return report

    def _authenticate(self, keys: list[Ed25519PublicKey]) -> None:
        """PermissionError unless Telnyx signed the running request, a moment ago."""
        from cryptography.exceptions import InvalidSignature
        from flask import request

        time = request.headers.get("telnyx-timestamp", "")
        if not fresh(time, self._replay_window):
            raise PermissionError("the webhook is too old, or from the future")
        signed = time.encode() + b"|" + request.get_data()
        for key in keys:
            try:
                key.verify(
                    base64.b64decode(request.headers.get("telnyx-signature-ed25519", "")), signed
                )
            except (InvalidSignature, ValueError):
                continue
            return
        raise PermissionError("the signature is not Telnyx's")


def _as_key(text: str) -> str:
    """A text as a key: our references have a dot, which keys may not have."""
    key = text.replace(".", ":")
    return key if _KEY.fullmatch(key) else sha256_hex(text.encode())


def _load(text: str, name: str) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError:
        raise SettingsError(
            f"the provider {name!r} needs the package cryptography to verify webhooks: "
            "pip install 'smsqueue-gateway[signatures]'"
        ) from None
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text))
    except ValueError:
        raise SettingsError(
            f"a public_key of the provider {name!r} is not one: Telnyx's portal shows it under "
            "Keys & Credentials, 44 characters of Base64"
        ) from None
