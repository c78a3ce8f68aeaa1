"""Twilio, Programmable Messaging, API version 2010-04-01.

Facts: Twilio's OpenAPI description and documentation, and its Python SDK for the signature.
Twilio says that its error codes may change: the table refines what the HTTP status says.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.messages import IncomingMessage, OutgoingMessage
from smsqueue.providers.account import AccountProvider, Balance, table
from smsqueue.providers.authentic import Secrets, any_equal, equal, hmac_base64, sha256_hex
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.senders import sender
from smsqueue.statuses import MessageAccepted, MessageDelivered, MessageError, MessageExpired

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["TwilioProvider"]

#: Ask for three repetitions whatever went wrong; by default Twilio repeats hardly anything.
_REPEAT = "#rc=3&rp=all"
_EXPIRED = "30036"


class TwilioProvider(AccountProvider):
    """Sends and receives through Twilio.

    Args:
        account_sid: ``AC...``.
        auth_token: The account's token. Webhooks are signed with it; several while it rotates.
        api_key: ``(SK..., its secret)`` to send with in place of the token.
        service: ``MG...``, a messaging service that picks the sender.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    base_url = "https://api.twilio.com"
    capabilities = frozenset(Can) - {Can.LOOKUP, Can.DEDUPLICATION}
    url_arguments = ("account_sid", "auth_token")
    codes: ClassVar = table(
        (exc.AuthError, [20003, 20006, 20008, 20403, *range(20101, 20108), 10002]),
        (exc.CreditError, [20005]),
        (exc.LimitsError, [20429, 14107, 21611, 63018, 63038, 35125]),
        (exc.ServerError, [20500, 20501, 20503, 20504]),
        (exc.UnsupportedError, [21407, 21408, 21612, 21621, 21622, 21703, 21704]),
        # The recipient
        (exc.RequestError, [21211, 21214, 21217, 21219, 21265, 21266, 21604, 21608, 21610]),
        (exc.RequestError, [21614, 21635]),
        # The sender
        (exc.RequestError, [21212, 21603, 21606, 21616, 21659, 21660, 21701, 21705, 21709]),
        # The content and the parameters
        (exc.RequestError, [20001, 20404, 20422, 21601, 21602, 21605, 21609, 21617, 21618]),
        (exc.RequestError, [21619, 21620, 21623, 21624, 21656, 35111, 35114, 35118]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["accepted", "scheduled", "queued", "sending", "sent"]),
        (MessageAccepted, ["partially_delivered"]),
        (MessageDelivered, ["delivered", "read"]),
        (MessageError, ["undelivered", "failed", "canceled"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        account_sid: str,
        auth_token: Secrets = None,
        api_key: tuple[str, str] | None = None,
        service: str | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=auth_token, **config)
        self._account = f"/2010-04-01/Accounts/{account_sid}"
        if not (api_key or self._secrets):
            raise ValueError("Twilio needs an auth_token, or an api_key with its secret, to send")
        self._auth = api_key or (account_sid, self._secrets[0])
        self._service = service

    def submit(self, message: OutgoingMessage) -> None:
        form = {"To": f"+{message.dst}", "Body": message.body}
        src = self.sender_of(message)
        if src:
            form["From"] = sender(src, plus=True, also=" +-_&")
        elif self._service:
            form["MessagingServiceSid"] = self._service
        callback = self.callback_url("status", message)
        if callback and message.provider_options.status_report:
            form["StatusCallback"] = callback + _REPEAT
        validity = self.validity_of(message, 1, 36000)
        if validity is not None:
            form["ValidityPeriod"] = str(validity)
        answer = self.call(
            "POST",
            f"{self._account}/Messages.json",
            auth=self._auth,
            data=form | message.provider_params,
        )
        message.msgid = answer.require("sid")
        message.meta = {
            name: answer.get(name) for name in ("status", "num_segments", "price", "price_unit")
        }

    def error_code(self, answer: Answer) -> int | None:
        code = answer.get("code")
        return code if isinstance(code, int) else None

    def balance(self) -> Balance:
        answer = self.call("GET", f"{self._account}/Balance.json", safe=True, auth=self._auth)
        return Balance(Decimal(str(answer.require("balance"))), answer.get("currency"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint, request

        self.need_secret(name="auth_token")
        views = Blueprint("twilio", __name__)

        @views.route("/im", methods=["GET", "POST"])
        def im() -> ResponseReturnValue:
            self._authenticate()
            fields = request.values
            message = IncomingMessage(
                fields["From"], fields.get("Body", ""), fields["MessageSid"], fields["To"]
            )
            message.meta = {k: v for k, v in fields.items() if k not in ("From", "Body", "To")}
            self._receive_message(message)
            return "<Response/>", 200, {"Content-Type": "text/xml"}

        @views.post("/status")
        def status() -> ResponseReturnValue:
            self._authenticate()
            fields = request.form
            code = fields.get("ErrorCode")
            report = self.report(
                fields["MessageStatus"],
                fields["MessageSid"],
                code=code,
                kind=MessageExpired if code == _EXPIRED else None,
            )
            report.reference = request.args.get("ref")
            self._receive_status(report)
            return "", 204

        return views

    def _authenticate(self) -> None:
        """PermissionError unless Twilio signed the running request."""
        from flask import request

        if self.insecure:
            return
        url, given = self.seen_url(), request.headers.get("X-Twilio-Signature")
        body_hash = request.args.get("bodySHA256")
        if body_hash is not None and not equal(body_hash, sha256_hex(request.get_data())):
            raise PermissionError("the body is not what bodySHA256 says")
        form = request.form.to_dict(flat=False) if body_hash is None else {}
        pairs = [name + value for name in sorted(form) for value in sorted(set(form[name]))]
        wanted = [
            hmac_base64(secret, (each + "".join(pairs)).encode(), "sha1")
            for secret in self._secrets
            for each in _with_and_without_port(url)
        ]
        if not any_equal(given, wanted):
            raise PermissionError("the signature is not Twilio's")


def _with_and_without_port(url: str) -> list[str]:
    """Twilio signs some addresses with the scheme's own port in them."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    port = {"https": "443", "http": "80"}.get(scheme, "")
    bare = host.removesuffix(f":{port}")
    if ":" in bare.rpartition("]")[2]:  # a port that is not the scheme's own
        return [url]
    return [f"{scheme}://{each}{slash}{path}" for each in (bare, f"{bare}:{port}")]
