"""The provider that speaks with the stub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.message import statuses
from smsqueue.providers.http import Answer, HttpProvider

if TYPE_CHECKING:
    from flask import Blueprint

REPORTS: dict[str, type[statuses.MessageStatus]] = {
    "accepted": statuses.MessageAccepted,
    "delivered": statuses.MessageDelivered,
    "expired": statuses.MessageExpired,
    "undelivered": statuses.MessageError,
}


class ChaosProvider(HttpProvider):
    """One account at the stub."""

    deadline = 1.5
    codes: ClassVar = {"busy": exc.ServerError, "bad": exc.RequestError}

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        asked = {"reference": message.reference, "to": message.dst, "text": message.body}
        message.msgid = self.call("POST", "/messages", json=asked).require("id")
        return message

    def error_code(self, answer: Answer) -> str | int | None:
        code: str | int | None = answer.get("error", "code")
        return code

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint, request

        views = Blueprint("chaos", __name__)

        @views.post("/status")
        def status() -> tuple[str, int]:
            fields: dict[str, Any] = request.get_json()
            report = REPORTS[fields["state"]](fields.get("id"))
            report.reference = fields.get("reference")
            self._receive_status(report)
            return "", 204

        @views.post("/im")
        def im() -> tuple[str, int]:
            fields: dict[str, Any] = request.get_json()
            message = IncomingMessage(fields["from"], fields["text"], msgid=fields["id"])
            self._receive_message(message)
            return "", 204

        return views
