"""Vonage Messages API, version 1, for SMS: JSON both ways.

Source: Vonage's pages on errors, on status and inbound webhooks and on signed webhooks; its Python
SDK for the fields and the tokens.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from smsqueue import exc
from smsqueue.messages import IncomingMessage, OutgoingMessage
from smsqueue.providers.account import AccountProvider, table
from smsqueue.providers.authentic import Secrets, equal, fresh, sha256_hex
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.senders import sender
from smsqueue.settings import SettingsError
from smsqueue.statuses import MessageAccepted, MessageDelivered, MessageError, MessageExpired

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["VonageMessagesProvider"]

#: Vonage repeats a webhook for a day, and may repeat it as it was signed first.
_WINDOW = 25 * 3600.0
#: Seconds for which a token of ours is good, and by which clocks may differ.
_LIFE, _LEEWAY = 900, 300
#: An error is named by the end of a link.
_NAME = re.compile(r"[#/]([A-Za-z0-9-]+)/?$")
#: The time to live was over.
_EXPIRED = "1360"
_INSTALL = "pip install 'smsqueue-gateway[signatures]'"


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
        window: float = _WINDOW,
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
        self._key = _rsa_key(private_key) if private_key else None
        self._account = (api_key or "", api_secret or "")
        self._window = float(window)

    def submit(self, message: OutgoingMessage) -> None:
        src = self.sender_of(message)
        if not src:
            reason = "Vonage needs a sender: give the message one, or the provider sender=..."
            raise exc.UnsupportedError(reason, provider=self.name)
        body: dict[str, Any] = {"message_type": "text", "channel": "sms", "to": message.dst}
        body |= {"from": sender(src, plus=False, also=" "), "text": message.body}
        if message.reference:
            body["client_ref"] = message.reference
        callback = self.callback_url("status")
        if callback and message.provider_options.status_report:
            body |= {"webhook_url": callback, "webhook_version": "v1"}
        validity = self.validity_of(message, 20, 604_800)
        if validity is not None:
            body["ttl"] = validity
        how: dict[str, Any] = {"auth": self._account}
        if self._key is not None:
            how = {"headers": {"Authorization": f"Bearer {self._token()}"}}
        answer = self.call("POST", "/v1/messages", json=body | message.provider_params, **how)
        message.msgid = answer.require("message_uuid")
        message.meta = {"workflow_id": answer.get("workflow_id")}

    def _token(self) -> str:
        """A token that says that it is the application which calls."""
        now = int(time.time())
        claims = {"application_id": self._application, "iat": now, "exp": now + _LIFE}
        return str(_jwt().encode(claims | {"jti": str(uuid4())}, self._key, algorithm="RS256"))

    def error_code(self, answer: Answer) -> str | None:
        return _name(answer.get("type"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret(name="signature_secret")
        if not self.insecure:
            _jwt()  # now, not when the first webhook comes
        views = Blueprint("vonage_messages", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            told = self._authentic("message_uuid", "from")
            if "status" in told:
                raise ValueError("a report at the address of incoming messages")
            message = IncomingMessage(
                _number(told["from"]),
                str(told.get("text") or ""),
                told["message_uuid"],
                _number(told.get("to")) or None,
                _time(told.get("timestamp")),
                _rest(told),
            )
            self._receive_message(message)
            return "", 200

        @views.post("/status")
        def status() -> ResponseReturnValue:
            told = self._authentic("message_uuid", "status")
            error = told.get("error")
            code = _error(error) if isinstance(error, dict) else None
            late = told["status"] == "rejected" and code == _EXPIRED
            kind = MessageExpired if late else None
            word, msgid = str(told["status"]), told["message_uuid"]
            report = self.report(word, msgid, code=code, kind=kind)
            report.reference = str(told["client_ref"]) if told.get("client_ref") else None
            report.meta = _rest(told)
            self._receive_status(report)
            return "", 200

        return views

    def _authentic(self, *needed: str) -> dict[str, Any]:
        """The running request's JSON; PermissionError unless Vonage signed it."""
        from flask import request

        if not self.insecure:
            claims = self._claims(request.headers.get("Authorization", ""))
            # The token alone proves nothing: it must be this body's.
            wanted = str(claims.get("payload_hash", "")).lower()
            if not equal(sha256_hex(request.get_data()), wanted):
                raise PermissionError("the body is not what the token says")
            if not fresh(claims["iat"], min(self._window, self.settings.report_wait)):
                raise PermissionError("the webhook is too old")
        told: Any = request.get_json()
        if not isinstance(told, dict) or not all(told.get(name) for name in needed):
            raise ValueError(f"a webhook has {', '.join(needed)}")
        return told

    def _claims(self, header: str) -> dict[str, Any]:
        jwt, (scheme, _, token) = _jwt(), header.partition(" ")
        for secret in self._secrets if scheme.lower() == "bearer" else ():
            try:
                claims: dict[str, Any] = jwt.decode(
                    token.strip(),
                    secret,
                    algorithms=["HS256"],
                    leeway=_LEEWAY,
                    options={"require": ["iat", "payload_hash"], "verify_aud": False},
                )
            except jwt.PyJWTError:
                continue
            return claims
        raise PermissionError("the token is not Vonage's")


def _jwt() -> Any:
    try:
        import jwt
    except ModuleNotFoundError:
        raise SettingsError(f"Vonage's tokens need PyJWT: {_INSTALL}") from None
    return jwt


def _rsa_key(given: str | os.PathLike[str]) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError:
        raise SettingsError(f"Vonage's private_key needs cryptography: {_INSTALL}") from None
    _jwt()
    try:
        pem = given if isinstance(given, str) and "-----BEGIN" in given else None
        key = load_pem_private_key((pem or Path(given).read_text()).encode(), None)
    except (OSError, ValueError, TypeError) as error:
        # ``from None``: the error may show what was taken for a path.
        reason = f"the private_key is neither PEM nor a file of it ({type(error).__name__})"
        raise SettingsError(reason) from None
    if not isinstance(key, RSAPrivateKey):
        raise SettingsError("the private_key is not an RSA key")
    return key


def _name(link: Any) -> str | None:
    found = _NAME.search(link) if isinstance(link, str) else None
    return found[1] if found else None


def _error(error: Mapping[str, Any]) -> str | None:
    """The code of a report's error: the end of its link, else what stands in its place."""
    code = _name(error.get("type")) or error.get("title") or error.get("code")
    return None if code is None else str(code)


def _number(party: Any) -> str:
    """A number; older webhooks have it in an object."""
    return str(party.get("number", "") if isinstance(party, dict) else party or "")


def _time(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo else None


def _rest(told: Mapping[str, Any]) -> dict[str, Any]:
    ours = ("from", "to", "text", "message_uuid", "client_ref", "status")
    return {name: value for name, value in told.items() if name not in ours}
