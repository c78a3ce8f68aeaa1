"""The provider of the carrier simulator, :mod:`smsqueue.simulator`.

It is written like a real provider: copy it to begin one.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.logs import get_logger
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.authentic import Refused, equal, hmac_hex
from smsqueue.providers.base.event_validation import validate_event
from smsqueue.providers.base.replay_protection import record_once, register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.http import Answer, HttpProvider
from smsqueue.providers.reading import address_of, json_body, json_object, listed

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["SIGNATURE_HEADER", "SimulatorProvider", "sign"]

SIGNATURE_HEADER = "X-Simulator-Signature"

_STATES: dict[str, type[MessageStatus]] = {
    "accepted": MessageAccepted,
    "delivered": MessageDelivered,
    "expired": MessageExpired,
    "failed": MessageError,
}

_log = get_logger(__name__)


def sign(token: str, body: bytes) -> str:
    """The signature of a webhook's raw body: hexadecimal HMAC-SHA256."""
    return hmac_hex(token, body)


class SimulatorProvider(HttpProvider):
    """Sends to a carrier simulator, and receives its replies and delivery reports.

    Args:
        url: Base URL of the simulator.
        account: The account to send from.
        token: The account's password; also the key that signs webhooks.
        config: Arguments of :class:`~smsqueue.providers.http.HttpProvider`.
    """

    deadline = 15.0
    url_arguments: ClassVar = ("account", "token")
    #: Its webhooks are signed.
    authenticates: ClassVar[bool] = True
    url_scheme = "http"
    codes: ClassVar = {"bad_number": exc.RequestError}

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        url: str,
        account: str = "main",
        token: str = "simulator",  # noqa: S107  protects nothing
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, url=url, **config)
        self._auth = (account, token)
        self._logged_states: set[str] = set()

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        options = message.provider_options
        answer = self.call(
            "POST",
            "/messages",
            auth=self._auth,
            json={
                "to": message.dst,
                "from": options.senderId or message.src,
                "text": message.body,
                "reference": message.reference,
                "report": options.status_report,
                "allow_reply": options.allow_reply,
                "validity": None if options.expires is None else options.expires * 60,
            },
        )
        if not answer.get("id") and self.error_code(answer):
            raise self.refusal(answer)
        message.msgid = answer.require("id")
        return message

    def error_code(self, answer: Answer) -> str | None:
        code = answer.get("error", "code")
        return code if isinstance(code, str) else None

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint, request

        views = Blueprint("simulator", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            fields = self._verified(request.get_data(), request.headers.get(SIGNATURE_HEADER))
            self._receive_message(incoming(fields))
            return "", 204

        @views.post("/status")
        def status() -> ResponseReturnValue:
            fields = self._verified(request.get_data(), request.headers.get(SIGNATURE_HEADER))
            self._receive_status(self.report(fields))
            return "", 204

        return views

    def report(self, fields: dict[str, Any]) -> MessageStatus:
        """Parse a delivery report; ValueError if it is malformed."""
        state = _text(fields, "state")
        if (
            state not in _STATES
            and state not in self._logged_states
            and len(self._logged_states) < 100
        ):
            self._logged_states.add(state)
            extra = {"provider": self.name}
            _log.warning("%s reports an unknown state: %.40r", self.name, state, extra=extra)
        kind = _STATES.get(state, MessageStatus)
        report = kind(_text(fields, "id"), rtime=_time(fields))
        report.reference = _text(fields, "reference", optional=True)
        report.status_code = fields.get("code")
        report.status = state
        return report

    def _receive_message(self, message: IncomingMessage) -> IncomingMessage:
        message.provider = self.name
        gateway: Any = self.gateway
        return record_once(gateway, validate_event(message), super()._receive_message)

    def _receive_status(self, status: MessageStatus) -> MessageStatus:
        status.provider = self.name
        gateway: Any = self.gateway
        return record_once(gateway, validate_event(status), super()._receive_status)

    def _verified(self, body: bytes, signature: str | None) -> dict[str, Any]:
        if not equal(signature, sign(self._auth[1], body)):
            raise Refused("the signature does not match the body")
        # It covers only the body, and has no time.
        register_signatures(str(signature), whole=True)
        return json_object(json_body())


def incoming(fields: dict[str, Any]) -> IncomingMessage:
    """Parse an incoming message; ValueError if it is malformed."""
    message = IncomingMessage(
        address_of(fields, "from"),
        _text(fields, "text"),
        msgid=_text(fields, "id"),
        dst=address_of(fields, "to") if fields.get("to") is not None else None,
        rtime=_time(fields),
    )
    files = listed(fields.get("media"))
    message.media = media_of([(file.get("url"), file.get("type")) for file in files])
    return message


def _text(fields: dict[str, Any], name: str, *, optional: bool = False) -> Any:
    value = fields.get(name)
    if isinstance(value, str) or (optional and value is None):
        return value
    raise Malformed(f"{name} is not a string")


def _time(fields: dict[str, Any]) -> datetime | None:
    """The field ``at``, an aware time in ISO 8601; None if it is missing."""
    text = _text(fields, "at", optional=True)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("at is not a time") from None
    if time.tzinfo is None:
        raise Malformed("at has no time zone")
    return time
