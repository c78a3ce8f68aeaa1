"""Africa's Talking, bulk SMS: forms, answers in JSON.

Source: Africa's Talking's Python SDK for requests and balance, its documentation of delivery
reports and notifications, and libraries of its users for the codes.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import recipient, sender
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
)
from smsqueue.providers.account import AccountProvider, Balance, beside, table
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import address_of, form_fields

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["AfricasTalkingProvider"]

_SANDBOX = "https://api.sandbox.africastalking.com"
#: Codes: processed, sent, queued. They look like HTTP statuses, but are the provider's own.
_ACCEPTED = frozenset([100, 101, 102])
_RECIPIENTS = ("SMSMessageData", "Recipients")
#: Values in place of a message id.
_NO_IDS = (None, "", "None")
#: More characters that sender ids may have.
_SENDER_CHARACTERS = " -_.&"
#: Without recipients the text is the reason of a refusal, unless it matches this.
_SAYS_SENT = re.compile(r"sent to [1-9]|queue|process", re.IGNORECASE)
_MONEY = re.compile(r"(?:([A-Z]{3})\s{0,9})?(-?[0-9][0-9,]{0,29}(?:\.[0-9]{1,30})?)")


#: Fields that message parameters cannot replace.
_RESERVED = ("username", "to", "phoneNumbers", "recipients")


class AfricasTalkingProvider(AccountProvider):
    """Sends and receives through Africa's Talking.

    Webhooks are not signed: SMSQUEUE_RECEIVER_PREFIX is the only secret. Their URLs are set in the
    dashboard. Reports are matched by the provider's message id, as it stores no reference of ours.

    Args:
        username: Name of the application; ``sandbox`` is the sandbox.
        api_key: Its key.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://api.africastalking.com"
    authenticates = False
    capabilities = frozenset([Can.ALPHANUMERIC, Can.REPORTS, Can.INBOUND, Can.BALANCE])
    url_arguments = ("username", "api_key")
    codes: ClassVar = table(
        (exc.RequestError, [401, 402, 403, 406, 409, "InvalidSenderId"]),
        (exc.UnsupportedError, [404, 407]),
        (exc.CreditError, [405, "InsufficientBalance"]),
        (exc.ServerError, [500, 501, 502]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["Sent", "Submitted", "Buffered"]),
        (MessageDelivered, ["Success"]),
        (MessageExpired, ["Expired"]),
        (MessageError, ["Rejected", "Failed"]),
    )

    def __init__(
        self, gateway: Any, name: str, *, username: str, api_key: str, **config: Any
    ) -> None:
        if username == "sandbox":
            config["url"] = config.get("url") or _SANDBOX
        super().__init__(gateway, name, **config)
        if self._secrets:
            raise ValueError("Africa's Talking does not sign webhooks: leave secret=... out")
        self._username = username
        self._headers = {"apiKey": api_key, "Accept": "application/json"}

    def submit(self, message: OutgoingMessage) -> None:
        form = {"message": message.body, "bulkSMSMode": "1"}
        src = self.sender_of(message)
        if src:
            form["from"] = sender(src, plus=True, also=_SENDER_CHARACTERS)
        # Parameters do not replace these: commas would separate several recipients.
        form |= beside(message.provider_params, *_RESERVED) | {
            "username": self._username,
            "to": recipient(message.dst),
        }
        answer = self.call("POST", "/version1/messaging", headers=self._headers, data=form)
        entries = answer.require(*_RECIPIENTS)
        if entries == [] and not _SAYS_SENT.search(str(answer.get("SMSMessageData", "Message"))):
            raise self.refusal(answer)  # refused as a whole; the message is the reason
        answer.require(*_RECIPIENTS, 0, "statusCode")
        if len(entries) > 1:
            raise exc.ServerError(
                "the response is about several recipients",
                provider=self.name,
                http_status=answer.status,
                ambiguous=True,
            )
        code, msgid = _code(answer), answer.get(*_RECIPIENTS, 0, "messageId")
        if code not in _ACCEPTED or msgid in _NO_IDS:
            error = self.error(answer)
            # It may only be sent again if it is clear that nothing was sent.
            clear = isinstance(error, exc.RequestError | exc.CreditError | exc.UnsupportedError)
            error.ambiguous = code not in self.codes or not (clear or msgid in _NO_IDS)
            if msgid in _NO_IDS and code not in self.codes and _says_refused(answer):
                error = self.refusal(answer)
            raise error
        message.msgid = msgid
        message.meta = {name: answer.get(*_RECIPIENTS, 0, name) for name in ("status", "cost")}

    def error_code(self, answer: Answer) -> str | int | None:
        code = _code(answer)
        if code is not None:
            return None if code in _ACCEPTED else code
        # A reason is one word; other texts may contain a number.
        reason = answer.get("SMSMessageData", "Message")
        word = isinstance(reason, str) and re.fullmatch(r"[A-Za-z]+", reason.strip())
        return word[0] if word else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        if _code(answer) in _ACCEPTED:  # contradicts the HTTP status, or lacks an id
            error.ambiguous = True
        return error

    def balance(self) -> Balance:
        params = {"username": self._username}
        answer = self.call("GET", "/version1/user", safe=True, headers=self._headers, params=params)
        money = _MONEY.fullmatch(str(answer.require("UserData", "balance")).strip())
        if money is None:
            raise exc.ServerError("the balance cannot be read", provider=self.name)
        return Balance(Decimal(money[2].replace(",", "")), money[1])

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        views = Blueprint("africastalking", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            fields = form_fields()
            message = IncomingMessage(
                address_of(fields, "from"),
                fields.get("text", ""),
                fields["id"],
                address_of(fields, "to"),
                rtime=_time(fields.get("date")),
            )
            hidden = ("from", "text", "id", "to")
            message.meta = {k: v for k, v in fields.items() if k not in hidden}
            self._receive_message(message)
            return "", 200

        @views.post("/status")
        def status() -> ResponseReturnValue:
            fields = form_fields()
            report = self.report(
                fields["status"], fields["id"], code=fields.get("failureReason") or None
            )
            hidden = ("id", "status", "failureReason", "phoneNumber")
            report.meta = {k: v for k, v in fields.items() if k not in hidden}
            self._receive_status(report)
            return "", 200

        return views


def _says_refused(answer: Answer) -> bool:
    """Does the text say that nothing was sent, whatever the code of the only recipient?"""
    return str(answer.get("SMSMessageData", "Message")).strip().startswith("Sent to 0/")


def _code(answer: Answer) -> int | None:
    """The code of the only recipient."""
    code = str(answer.get(*_RECIPIENTS, 0, "statusCode"))
    return int(code) if re.fullmatch("[0-9]{1,9}", code) else None


def _time(text: str | None) -> datetime | None:
    """The time of a message; None without a time zone."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else None
