"""GatewayAPI, REST API (gatewayapi.com and gatewayapi.eu).

Source: GatewayAPI's documentation of the REST API, its webhooks and its codes. Its newer Mobile
Messaging API is another one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
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
from smsqueue.providers.authentic import Refused
from smsqueue.providers.base.event_validation import NUMBER_ID
from smsqueue.providers.base.replay_protection import jwt_signing_input, register_signatures
from smsqueue.providers.base.signature_libraries import jwt_library
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import (
    address_of,
    event_views,
    id_of,
    json_body,
    json_object,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["GatewayApiProvider"]

_EU = "https://gatewayapi.eu"
_NEED = "GatewayAPI's webhooks are signed with JWT"
#: Seconds. Only the minimum is documented; the maximum is the longest that ``expires`` can be.
_VALIDITY = (60, 315_360_000)


#: Fields that message parameters cannot replace.
_RESERVED = ("recipients", "recipient", "msisdn", "userref", "callback_url")


class GatewayApiProvider(AccountProvider):
    """Sends and receives through GatewayAPI.

    A webhook has a token (a JWT, HS256) whose claims are the event itself, and only these are used.
    The token has no time, but the event has. The ledger detects a replay within
    ``replay_window``, and a later one is refused.

    Args:
        token: An API token.
        secret: The authentication token of the webhook.
        eu: The account is one of gatewayapi.eu.
        callbacks: Give the address for reports with each message. It is not documented that what
            goes there is signed; without, reports go to the account's default webhook.
        replay_window: Seconds by which an event may be older than its webhook. GatewayAPI repeats
            webhooks for half a day, and a phone's message may have waited in its network.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://gatewayapi.com"
    #: Connections that may be open from one address: see docs/providers/gatewayapi.md.
    most_at_once = 40
    capabilities = frozenset(Can) - {Can.LOOKUP, Can.DEDUPLICATION, Can.MEDIA}
    url_arguments = ("token", "secret")
    ids: ClassVar = NUMBER_ID
    codes: ClassVar = table(
        (exc.AuthError, ["0x0210", "0x0211", "0x0212", "0x0213", "0x021D"]),
        (exc.AuthError, ["0x0223", "0x0224", "0x0225", "0x0226", "0x0229", "0x022A"]),
        (exc.CreditError, ["0x0216"]),
        (exc.UnsupportedError, ["0x0217", "0x021F"]),
        # The recipient is on a blacklist; the parameters
        (exc.RequestError, ["0x0214", "0x0215"]),
        (exc.RequestError, ["0x0218", "0x0220", "0x0221", "0x0222", "0x0310", "0x0311", "0x0312"]),
        (exc.ServerError, ["0x021E"]),
    )
    statuses: ClassVar = table(
        # "ACCEPTED": by the network for the phone; no further status follows.
        (MessageAccepted, ["UNKNOWN", "SCHEDULED", "BUFFERED", "ENROUTE", "ACCEPTED"]),
        (MessageDelivered, ["DELIVERED"]),
        (MessageExpired, ["EXPIRED"]),
        (MessageError, ["DELETED", "UNDELIVERABLE", "REJECTED", "SKIPPED"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        token: str,
        eu: bool = False,
        callbacks: bool = False,
        replay_window: float = 3 * 86400,
        url: str | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, url=url or (_EU if eu else None), **config)
        self._auth = (token, "")
        self._callbacks = callbacks
        self._replay_window = replay_window

    def submit(self, message: OutgoingMessage) -> None:
        # An integer has no leading zero, so it would be another number.
        if message.dst[:1] in ("", "0"):
            raise exc.RequestError("the number has no country code", provider=self.name)
        unicode = message.segments().encoding == "ucs2"
        body: dict[str, Any] = {
            "message": message.body,
            "recipients": [{"msisdn": int(message.dst)}],
            "encoding": "UCS2" if unicode else "UTF8",  # GatewayAPI does not choose the encoding
        }
        if message.reference:
            body["userref"] = message.reference
        source = self.sender_of(message)
        if source:
            body["sender"] = sender(source, plus=False)
        callback = self.callback_url("status") if self._callbacks else None
        if callback and message.provider_options.status_report:
            body["callback_url"] = callback
        validity = self.validity_of(message, *_VALIDITY)
        if validity is not None:
            body["validity_period"] = validity
        answer = self.call(
            "POST",
            "/rest/mtsms",
            auth=self._auth,
            json=body | beside(message.provider_params, *_RESERVED),
        )
        ids, cost = answer.get("ids"), answer.get("usage", "total_cost")
        if not cost and (ids == [] or (ids is None and self.error_code(answer))):
            raise self.refusal(answer)
        message.msgid = answer.require("ids", 0)
        # There may be several ids: their reports are matched by our reference.
        message.meta = {"usage": answer.get("usage"), "ids": answer.get("ids")}

    def error_code(self, answer: Answer) -> str | None:
        code = answer.get("code")
        match = re.fullmatch("0[xX]([0-9a-fA-F]{1,8})", code) if isinstance(code, str) else None
        return f"0x{int(match[1], 16):04X}" if match else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        # GatewayAPI answers 500 for any exception of its own, which may follow a send.
        if answer.status in (500, 502, 504) and error.code not in self.codes:
            error.ambiguous = True
        return error

    def balance(self) -> Balance:
        answer = self.call("GET", "/rest/me", safe=True, auth=self._auth)
        return Balance(answer.amount("credit"), answer.get("currency"))

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_secret()
        if not self.insecure:
            jwt_library(_NEED)  # fail now, not at the first webhook

        def read() -> list[IncomingMessage | MessageStatus]:
            from flask import request

            token, body = request.headers.get("X-Gwapi-Signature", ""), json_body()
            event = self._event(token, body)
            return [self._report(event) if "status" in event else _incoming(event)]

        return event_views(self, read)

    def _event(self, token: str, body: bytes) -> dict[str, Any]:
        """The claims of a webhook's token; Refused unless GatewayAPI signed it for this body."""
        if self.insecure:
            return json_object(body)
        jwt = jwt_library(_NEED)
        for secret in self._secrets:
            try:
                event: dict[str, Any] = jwt.decode(token, secret, algorithms=["HS256"])
            except (jwt.PyJWTError, RecursionError):
                continue
            if any(event.get(name, value) != value for name, value in json_object(body).items()):
                raise Refused("the body does not match the token")
            at = time_of(event.get("time", event.get("senttime")))
            if at and (datetime.now(UTC) - at).total_seconds() > self._replay_window:
                raise Refused("the event is too old")
            register_signatures(jwt_signing_input(token), whole=True)
            return event
        raise Refused("the token is not signed by GatewayAPI")

    def _report(self, event: dict[str, Any]) -> MessageStatus:
        # Not the reference in the URL, which is not signed.
        reference = event.get("userref")
        report = self.report(text_of(event, "status"), id_of(event), code=event.get("code"))
        report.reference = reference if isinstance(reference, str) else None
        report.rtime = time_of(event.get("time")) or report.rtime
        report.meta = {k: v for k, v in event.items() if k not in ("msisdn", "callback_url")}
        return report


def _incoming(event: dict[str, Any]) -> IncomingMessage:
    binary = "payload" in event and event.get("message") is None
    target = event.get("receiver")
    message = IncomingMessage(
        address_of(event, "msisdn", numeric=True),
        "" if binary else text_of(event, "message"),
        id_of(event),
        None if target is None else address_of(event, "receiver", numeric=True),
        rtime=time_of(event.get("senttime")),
    )
    hidden = ("msisdn", "message", "receiver")
    message.meta = {k: v for k, v in event.items() if k not in hidden}
    return message
