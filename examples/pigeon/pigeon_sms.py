"""Pigeon Post, a made-up provider: JSON both ways, webhooks that are signed with HMAC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.message.numbers import sender
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
)
from smsqueue.providers.account import AccountProvider, Balance, beside, table
from smsqueue.providers.authentic import hmac_hex, signed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import json_body, json_object, text_of

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["PigeonProvider"]


class PigeonProvider(AccountProvider):
    """Sends and receives through Pigeon Post.

    Args:
        api_key: Of the account.
        secret: What webhooks are signed with.
        flock: How many pigeons carry a message.
        config: As AccountProvider has it: ``sender``, ``insecure``, ``ignore``, ``url`` ...
    """

    base_url = "https://api.pigeon.example"
    capabilities = frozenset(Can) - {Can.SCHEDULING, Can.LOOKUP, Can.DEDUPLICATION}
    #: What user and password of pigeon://user:password@default are.
    url_arguments = ("api_key", "secret")
    #: The provider's codes. Others are judged by the HTTP status.
    codes: ClassVar = table(
        (exc.AuthError, ["unknown_key"]),
        (exc.CreditError, ["no_seeds"]),
        (exc.LimitsError, ["all_in_the_air"]),
        (exc.RequestError, ["no_such_roof"]),
    )
    #: The provider's words in reports. Others are kept as they are.
    statuses: ClassVar = table(
        (MessageAccepted, ["flying"]),
        (MessageDelivered, ["landed"]),
        (MessageExpired, ["late"]),
        (MessageError, ["eaten"]),
    )

    def __init__(
        self, gateway: Any, name: str, *, api_key: str, flock: int = 1, **config: Any
    ) -> None:
        super().__init__(gateway, name, **config)
        self._headers = {"X-Pigeon-Key": api_key}
        self._flock = flock

    def submit(self, message: OutgoingMessage) -> None:
        body: dict[str, Any] = {"text": message.body, "flock": self._flock}
        source = self.sender_of(message)
        if source:
            body["from"] = sender(source, plus=True)
        validity = self.validity_of(message, 60, 86400)
        if validity is not None:
            body["validity"] = validity
        callback = self.callback_url("status")
        if callback and message.provider_options.status_report:
            body["callback"] = callback
        # Parameters override what is above, but not the recipient, our reference and the callback.
        params = beside(message.provider_params, "to", "ref", "callback")
        body |= params | {"to": f"+{message.dst}", "ref": message.reference}
        answer = self.call("POST", "/v1/messages", headers=self._headers, json=body)
        if not answer.get("pigeon") and self.error_code(answer):
            raise self.refusal(answer)  # 200, and an error in it: nothing was sent
        message.msgid = answer.require("pigeon")

    def error_code(self, answer: Answer) -> str | None:
        code = answer.get("error", "code")
        return code if isinstance(code, str) else None

    def balance(self) -> Balance:
        answer = self.call("GET", "/v1/balance", safe=True, headers=self._headers)
        return Balance(answer.amount("amount"), "EUR")

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret()
        views = Blueprint("pigeon", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            told = self._told()
            texts = (text_of(told, name) for name in ("from", "text", "pigeon", "to"))
            self._receive_message(IncomingMessage(*texts))
            return "", 204

        @views.post("/status")
        def status() -> ResponseReturnValue:
            told = self._told()
            code = text_of(told, "why") if "why" in told else None
            report = self.report(text_of(told, "state"), text_of(told, "pigeon"), code=code)
            report.reference = text_of(told, "ref")
            self._receive_status(report)
            return "", 204

        return views

    def _told(self) -> dict[str, Any]:
        """What the running request tells.

        Raises:
            PermissionError: Pigeon Post did not sign it; answered 403.
            ValueError: it is no JSON object; answered 400.
        """
        from flask import request

        body, given = request.get_data(), request.headers.get("X-Pigeon-Signature")
        if not (self.insecure or signed(given, self._secrets, lambda key: hmac_hex(key, body))):
            raise PermissionError("the signature is not Pigeon Post's")
        return json_object(json_body())
