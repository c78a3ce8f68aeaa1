"""Vonage Messages API, version 1, for SMS: JSON both ways.

Source: Vonage's pages on errors, on status and inbound webhooks and on signed webhooks; its Python
SDK for the fields and the tokens.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import sender
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
)
from smsqueue.providers.account import AccountProvider, beside, table
from smsqueue.providers.authentic import Refused, Secrets, fresh
from smsqueue.providers.capabilities import Can
from smsqueue.providers.checked import Malformed
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import (
    address_of,
    id_of,
    json_body,
    json_object,
    listed,
    text_of,
    time_of,
)
from smsqueue.providers.used import signed_text, signed_with
from smsqueue.providers.vonage_signing import WINDOW, claims_of, jwt_library, rsa_key

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["VonageMessagesProvider"]

#: Seconds for which a token of ours is good.
_LIFE = 900
#: An error is named by the end of a link.
_NAME = re.compile(r"[#/]([A-Za-z0-9-]+)/?$")
#: Where the links to Vonage's own errors lead.
_OWN_LINK = re.compile(r"https?://([a-z0-9.-]+\.)?(vonage|nexmo)\.com/", re.IGNORECASE)
#: The time to live was over.
_EXPIRED = "1360"
#: Fields of webhooks that stand elsewhere.
_NOT_META = {"from", "to", "text", "message_uuid", "client_ref", "status"}
#: Kinds of files that messages have.
_FILES = ("image", "audio", "video", "file", "vcard", "sticker")
#: What was chosen from what a message offered: the field with the words, and the object.
_ANSWERS = (("title", "reply"), ("text", "button"))
#: Channels whose senders an SMS reaches.
_PHONES = ("sms", "mms")


#: What parameters do not replace. A failover is another message, with a recipient of its own.
_OURS = ("to", "webhook_url", "webhook_version", "client_ref", "failover")


class VonageMessagesProvider(AccountProvider):
    """Sends and receives SMS through Vonage's Messages API.

    Args:
        application_id: The Vonage application, to send with a token of its own.
        private_key: Its RSA key in PEM, or the path of a file that holds it.
        api_key: The account, to send with in place of an application.
        api_secret: Its secret.
        signature_secret: What webhooks are signed with; several while it rotates.
        window: Seconds after which a signed webhook is too old; not more than
            SMSQUEUE_REPORT_WAIT, for which the ledger knows repetitions.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    base_url = "https://api.nexmo.com"
    capabilities = frozenset(Can) - {Can.SCHEDULING, Can.BALANCE, Can.LOOKUP, Can.DEDUPLICATION}
    url_arguments = ("api_key", "api_secret")
    codes: ClassVar = table(
        (exc.LimitsError, ["1000", "1241"]),
        (exc.RequestError, ["1010", "1020", "1040", "1050", "1090", "1120", "1130", "1150"]),
        (exc.RequestError, ["1170", "1240", "invalid-params"]),
        (exc.AuthError, ["1060", "1080", "1110", "1140", "1160"]),
        (exc.AuthError, ["unauthorized", "forbidden", "account-suspended"]),
        (exc.CreditError, ["1070", "low-balance"]),
        (exc.ServerError, ["1030", "1100", "1230"]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["submitted"]),
        (MessageDelivered, ["delivered", "read"]),
        (MessageError, ["rejected", "undeliverable"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        application_id: str | None = None,
        private_key: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
        signature_secret: Secrets = None,
        window: float = WINDOW,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=signature_secret, **config)
        if bool(application_id) != bool(private_key):
            raise ValueError("application_id and private_key belong together: give both or none")
        if not application_id and not (api_key and api_secret):
            raise ValueError(
                "Vonage needs application_id and private_key, or api_key and api_secret"
            )
        self._application = application_id
        self._key = rsa_key(private_key) if private_key else None
        self._account = (api_key or "", api_secret or "")
        self._window = float(window)

    def submit(self, message: OutgoingMessage) -> None:
        src = sender(self.need_sender(message), plus=False, also=" ")
        body: dict[str, Any] = {"message_type": "text", "channel": "sms"}
        body |= {"from": src, "text": message.body}
        callback = self.callback_url("status")
        if callback and message.provider_options.status_report:
            body |= {"webhook_url": callback, "webhook_version": "v1"}
        validity = self.validity_of(message, 20, 604_800)
        if validity is not None:
            body["ttl"] = validity
        body |= beside(message.provider_params, *_OURS) | {"to": message.dst}
        body |= {"client_ref": message.reference} if message.reference else {}
        how: dict[str, Any] = {"auth": self._account}
        if self._key is not None:
            how = {"headers": {"Authorization": f"Bearer {self._token()}"}}
        answer = self.call("POST", "/v1/messages", json=body, **how)
        if not answer.get("message_uuid") and self.error_code(answer):
            raise self.refusal(answer)
        message.msgid = answer.require("message_uuid")
        message.meta = {"workflow_id": answer.get("workflow_id")}

    def _token(self) -> str:
        """A token that says that it is the application which calls."""
        now = int(time.time())
        claims = {"application_id": self._application, "iat": now, "exp": now + _LIFE}
        claims["jti"] = str(uuid4())
        return str(jwt_library().encode(claims, self._key, algorithm="RS256"))

    def error_code(self, answer: Answer) -> str | None:
        link = answer.get("type")
        # Other gateways write problems as well, with links of their own.
        return _name(link) if isinstance(link, str) and _OWN_LINK.match(link) else None

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret(name="signature_secret")
        if not self.insecure:
            jwt_library()  # now, not when the first webhook comes
        views = Blueprint("vonage_messages", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            told = self._authentic()
            if "status" in told:
                raise Malformed("a report at the address of incoming messages")
            self._receive_message(_incoming(told))
            return "", 200

        @views.post("/status")
        def status() -> ResponseReturnValue:
            told = self._authentic()
            state, error = text_of(told, "status"), told.get("error")
            code = _error(error) if isinstance(error, dict) else None
            late = state == "rejected" and code == _EXPIRED
            kind = MessageExpired if late else None
            report = self.report(state, id_of(told, "message_uuid"), code=code, kind=kind)
            report.reference = told.get("client_ref") or None
            report.rtime = time_of(told.get("timestamp")) or report.rtime
            report.meta = _rest(told)
            self._receive_status(report)
            return "", 200

        return views

    def _authentic(self) -> dict[str, Any]:
        """The running request's JSON; PermissionError unless Vonage signed it."""
        from flask import request

        body = request.get_data()
        if not self.insecure:
            claims = claims_of(request.headers.get("Authorization", ""), body, self._secrets)
            if not fresh(claims["iat"], min(self._window, self.settings.report_wait)):
                raise Refused("the webhook is too old")
            # Claims that are not there say nothing of the account.
            named = {"api_key": self._account[0], "application_id": self._application}
            if any(ours and claims.get(name, ours) != ours for name, ours in named.items()):
                raise Refused("it is about another account")
            token = request.headers["Authorization"].split()[-1]
            signed_with(signed_text(token), seconds=2 * self._window, whole=True)
        return json_object(json_body())


def _name(link: Any) -> str | None:
    found = _NAME.search(link) if isinstance(link, str) else None
    return found[1] if found else None


def _error(error: Mapping[str, Any]) -> str | None:
    """The code of a report's error: the end of its link, else what stands in its place."""
    code = _name(error.get("type")) or error.get("title") or error.get("code")
    return None if code is None else str(code)


def _incoming(told: dict[str, Any]) -> IncomingMessage:
    """A text, or a file of one of :data:`_FILES`; older webhooks have both in an object."""
    content: Any = told.get("message")
    content = content.get("content") if isinstance(content, dict) else told
    content = content if isinstance(content, dict) else {}
    # Several files come in a list, each with its own type.
    entries = [content, *listed(content.get("content"))]
    files = [each for entry in entries for name in _FILES for each in listed(entry.get(name))]
    files += [each for each in entries[1:] if "url" in each]
    texts: list[Any] = [text_of(content, "text")] if content.get("text") else []
    texts += [entry.get("text") for entry in entries[1:]]
    texts += [each.get("caption") for each in files]
    texts += [each.get(name) for name, key in _ANSWERS for each in listed(content.get(key))]
    channel, sender = told.get("channel"), told.get("from")
    if channel is None and isinstance(sender, dict):
        channel = sender.get("type")
    message = IncomingMessage(
        _number(told, "from"),
        "\n".join(text for text in texts if isinstance(text, str) and text),
        id_of(told, "message_uuid"),
        _number(told, "to") if told.get("to") else None,
        time_of(told.get("timestamp")),
        _rest(told),
    )
    message.media = media_of([(each.get("url"), each.get("mime_type")) for each in files])
    message.channel = channel if isinstance(channel, str) and channel not in _PHONES else None
    return message


def _number(told: dict[str, Any], name: str) -> str:
    """A number, or an id of another channel; older webhooks have it in an object."""
    party = told.get(name)
    if not isinstance(party, dict):
        return address_of(told, name, numeric=True)
    return address_of(party, "number" if party.get("number") else "id", numeric=True)


def _rest(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in _NOT_META}
