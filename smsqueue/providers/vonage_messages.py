"""Vonage Messages API, version 1, for SMS: JSON both ways.

Source: Vonage's pages on errors, on status and inbound webhooks and on signed webhooks; its Python
SDK for the fields and the tokens.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
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
from smsqueue.providers.authentic import Refused, Secrets, equal, fresh, sha256_hex
from smsqueue.providers.base import signature_libraries
from smsqueue.providers.base.replay_protection import jwt_signing_input, register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
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
from smsqueue.providers.vonage import REPLAY_WINDOW
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["VonageMessagesProvider"]

#: Lifetime of our tokens, in seconds.
_TOKEN_LIFETIME = 900
#: Most seconds by which Vonage's clock may differ from ours.
_CLOCK_SKEW = 300
#: The name of an error is the end of a link.
_NAME = re.compile(r"[#/]([A-Za-z0-9-]+)/?$")
#: Hosts in the links of Vonage's own errors.
_OWN_LINK = re.compile(r"https?://([a-z0-9.-]+\.)?(vonage|nexmo)\.com/", re.IGNORECASE)
#: Error code: the time to live ended.
_EXPIRED = "1360"
#: Fields that are not copied to ``meta``.
_NOT_META = {"from", "to", "text", "message_uuid", "client_ref", "status"}
#: Fields with the files of a message.
_FILES = ("image", "audio", "video", "file", "vcard", "sticker")
#: The recipient's choice from an interactive message: the field with its text, and the object.
_CHOICES = (("title", "reply"), ("text", "button"))
#: Channels whose senders have phone numbers.
_PHONE_CHANNELS = ("sms", "mms")


#: Fields that message parameters cannot replace. A failover is another message, with its own
#: recipient.
_RESERVED = ("to", "webhook_url", "webhook_version", "client_ref", "failover")


class VonageMessagesProvider(AccountProvider):
    """Sends and receives SMS through Vonage's Messages API.

    Args:
        application_id: The Vonage application whose tokens authenticate our calls.
        private_key: Its RSA key in PEM, or the path of a PEM file.
        api_key: The account, which authenticates our calls in place of an application.
        api_secret: Its secret.
        signature_secret: Signs webhooks; several while it rotates.
        window: Seconds after which a signed webhook is too old; at most
            SMSQUEUE_REPORT_WAIT, for which the ledger detects repetitions.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
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
        window: float = REPLAY_WINDOW,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=signature_secret, **config)
        if bool(application_id) != bool(private_key):
            raise ValueError("application_id and private_key belong together: set both or neither")
        if not application_id and not (api_key and api_secret):
            raise ValueError(
                "Vonage needs application_id and private_key, or api_key and api_secret"
            )
        self._application = application_id
        self._key = _load_rsa_key(private_key) if private_key else None
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
        body |= beside(message.provider_params, *_RESERVED) | {"to": message.dst}
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
        """A token that authenticates the application."""
        now = int(time.time())
        claims = {"application_id": self._application, "iat": now, "exp": now + _TOKEN_LIFETIME}
        claims["jti"] = str(uuid4())
        return str(_jwt_library().encode(claims, self._key, algorithm="RS256"))

    def error_code(self, answer: Answer) -> str | None:
        link = answer.get("type")
        # Gateways write errors of this form, too, with other links.
        return _name(link) if isinstance(link, str) and _OWN_LINK.match(link) else None

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret(name="signature_secret")
        if not self.insecure:
            _jwt_library()  # fail now, not at the first webhook
        views = Blueprint("vonage_messages", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            fields = self._verified_fields()
            if "status" in fields:
                raise Malformed("a report at the URL of incoming messages")
            self._receive_message(_incoming(fields))
            return "", 200

        @views.post("/status")
        def status() -> ResponseReturnValue:
            fields = self._verified_fields()
            state, error = text_of(fields, "status"), fields.get("error")
            code = _error(error) if isinstance(error, dict) else None
            expired = state == "rejected" and code == _EXPIRED
            kind = MessageExpired if expired else None
            report = self.report(state, id_of(fields, "message_uuid"), code=code, kind=kind)
            report.reference = fields.get("client_ref") or None
            report.rtime = time_of(fields.get("timestamp")) or report.rtime
            report.meta = _meta(fields)
            self._receive_status(report)
            return "", 200

        return views

    def _verified_fields(self) -> dict[str, Any]:
        """The JSON of the running request; Refused unless Vonage signed it."""
        from flask import request

        body = request.get_data()
        if not self.insecure:
            claims = _verified_claims(request.headers.get("Authorization", ""), body, self._secrets)
            if not fresh(claims["iat"], min(self._window, self.settings.report_wait)):
                raise Refused("the webhook is too old")
            # A token need not name the account.
            expected = {"api_key": self._account[0], "application_id": self._application}
            if any(ours and claims.get(name, ours) != ours for name, ours in expected.items()):
                raise Refused("it names another account")
            token = request.headers["Authorization"].split()[-1]
            register_signatures(jwt_signing_input(token), seconds=2 * self._window, whole=True)
        return json_object(json_body())


def _name(link: Any) -> str | None:
    match = _NAME.search(link) if isinstance(link, str) else None
    return match[1] if match else None


def _error(error: Mapping[str, Any]) -> str | None:
    """The code of a report's error: the end of its link, or its title or code."""
    code = _name(error.get("type")) or error.get("title") or error.get("code")
    return None if code is None else str(code)


def _incoming(fields: dict[str, Any]) -> IncomingMessage:
    """A text, or a file in one of :data:`_FILES`; older webhooks have both in an object."""
    content: Any = fields.get("message")
    content = content.get("content") if isinstance(content, dict) else fields
    content = content if isinstance(content, dict) else {}
    # Several files are in a list, with their types.
    entries = [content, *listed(content.get("content"))]
    files = [file for entry in entries for name in _FILES for file in listed(entry.get(name))]
    files += [entry for entry in entries[1:] if "url" in entry]
    texts: list[Any] = [text_of(content, "text")] if content.get("text") else []
    texts += [entry.get("text") for entry in entries[1:]]
    texts += [file.get("caption") for file in files]
    texts += [item.get(name) for name, key in _CHOICES for item in listed(content.get(key))]
    channel, sender = fields.get("channel"), fields.get("from")
    if channel is None and isinstance(sender, dict):
        channel = sender.get("type")
    message = IncomingMessage(
        _number(fields, "from"),
        "\n".join(text for text in texts if isinstance(text, str) and text),
        id_of(fields, "message_uuid"),
        _number(fields, "to") if fields.get("to") else None,
        time_of(fields.get("timestamp")),
        _meta(fields),
    )
    message.media = media_of([(file.get("url"), file.get("mime_type")) for file in files])
    message.channel = (
        channel if isinstance(channel, str) and channel not in _PHONE_CHANNELS else None
    )
    return message


def _number(fields: dict[str, Any], name: str) -> str:
    """A number, or an id of another channel; older webhooks have it in an object."""
    party = fields.get(name)
    if not isinstance(party, dict):
        return address_of(fields, name, numeric=True)
    return address_of(party, "number" if party.get("number") else "id", numeric=True)


def _meta(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _NOT_META}


def _verified_claims(header: str, body: bytes, secrets: Iterable[str]) -> dict[str, Any]:
    """The claims of the token in an Authorization header; Refused unless it is for this body."""
    jwt, (scheme, _, token) = _jwt_library(), header.partition(" ")
    for secret in secrets if scheme.lower() == "bearer" else ():
        try:
            claims: dict[str, Any] = jwt.decode(
                token.strip(),
                secret,
                algorithms=["HS256"],
                leeway=_CLOCK_SKEW,
                options={"require": ["iat", "payload_hash"], "verify_aud": False},
            )
        except jwt.PyJWTError:
            continue
        # The token alone does not authenticate the body.
        if not equal(sha256_hex(body), str(claims["payload_hash"]).lower()):
            raise Refused("the body does not match the token")
        return claims
    raise Refused("the token is not signed by Vonage")


def _jwt_library() -> Any:
    """PyJWT; SettingsError if it is not installed."""
    return signature_libraries.jwt_library("Vonage's tokens need PyJWT")


def _load_rsa_key(key_or_path: str | os.PathLike[str]) -> Any:
    """Load a private key from PEM, or from the path of a PEM file.

    Raises:
        SettingsError: it is not an RSA key, or the package cryptography is missing.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError:
        raise SettingsError(
            f"Vonage's private_key needs cryptography: {signature_libraries.INSTALL}"
        ) from None
    _jwt_library()
    try:
        is_pem = isinstance(key_or_path, str) and "-----BEGIN" in key_or_path
        pem = str(key_or_path) if is_pem else Path(key_or_path).read_text()
        key = load_pem_private_key(pem.encode(), None)
    except (OSError, ValueError, TypeError) as error:
        # ``from None``: the error may show a key that was taken for a path.
        reason = (
            f"the private_key is neither PEM nor the path of a PEM file ({type(error).__name__})"
        )
        raise SettingsError(reason) from None
    if not isinstance(key, RSAPrivateKey):
        raise SettingsError("the private_key is not an RSA key")
    return key
