"""Vonage SMS API (once Nexmo): forms, and JSON that says 200 also for errors.

Source: Vonage's OpenAPI descriptions of the SMS and Account APIs, its pages on error codes,
inbound and signed messages, and its Python SDK for what is signed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage, OutgoingMessage, Part
from smsqueue.message.numbers import sender
from smsqueue.message.serialization import to_json
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.account import AccountProvider, Balance, beside, form_value, table
from smsqueue.providers.answer import MAX_RETRY_AFTER
from smsqueue.providers.authentic import Refused, Secrets, any_equal, fresh, secrets_of
from smsqueue.providers.capabilities import Can
from smsqueue.providers.checked import Malformed
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import form_fields, json_body, json_object, query_fields
from smsqueue.providers.used import signed_with
from smsqueue.providers.vonage_signing import METHODS, WINDOW, signature, verify

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["VonageProvider"]

_LONGEST_CALLBACK = 100
_TOLD = ("message-price", "network", "remaining-balance")
#: "Throughput Rate Exceeded - please wait [ 250 ] and retry": milliseconds.
_WAIT = re.compile(r"\[\s*(\d{1,9})\s*\]")


class VonageProvider(AccountProvider):
    """Sends and receives through Vonage's SMS API.

    A long text goes out in parts, each with an id and reports of its own: ``msgid`` is then the
    list of them. Long incoming messages come in parts too; the ledger puts them together.

    Args:
        api_key: The account.
        api_secret: Its secret; not needed with ``sign``.
        signature_secret: What webhooks are signed with; several while it rotates.
        signature_method: As set in the account: md5hash, md5, sha1, sha256 or sha512 (all but the
            first are HMACs).
        sign: Sign what is sent in place of sending the ``api_secret``.
        window: Seconds after which a signed webhook is too old; not more than
            SMSQUEUE_REPORT_WAIT, for which the ledger knows repetitions.
        parts_wait: Seconds that the first part of an incoming message waits for the others; then
            the message is told of with what there is, and ``meta["missing"]`` lists the rest.
        subaccounts: API keys of other accounts whose webhooks are taken, if they are signed with
            one of our secrets.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    base_url = "https://rest.nexmo.com"
    capabilities = frozenset(Can) - {
        *(Can.SCHEDULING, Can.LOOKUP, Can.DEDUPLICATION, Can.MEDIA),
    }
    url_arguments = ("api_key", "api_secret")
    codes: ClassVar = table(
        (exc.LimitsError, ["1", "10"]),
        (exc.RequestError, ["2", "3", "6", "7", "12", "15", "22", "23", "29", "33"]),
        (exc.AuthError, ["4", "8", "11", "14", "32"]),
        (exc.ServerError, ["5"]),
        (exc.CreditError, ["9"]),
    )
    #: Refused, even if the answer tells an id beside.
    _clear: ClassVar = codes.keys() - {"5"}
    statuses: ClassVar = table(
        (MessageAccepted, ["accepted", "buffered"]),
        (MessageDelivered, ["delivered"]),
        (MessageExpired, ["expired"]),
        (MessageError, ["failed", "rejected"]),
        # "The network operator has returned an undocumented status code": it says nothing.
        (MessageStatus, ["unknown"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        api_key: str,
        api_secret: str | None = None,
        signature_secret: Secrets = None,
        signature_method: str = "sha256",
        sign: bool = False,
        window: float = WINDOW,
        parts_wait: float = 600.0,
        subaccounts: Secrets = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=signature_secret, **config)
        self._account = (api_key, api_secret or "")
        self._accounts = (api_key, *secrets_of(subaccounts))
        if signature_method not in METHODS:
            raise ValueError(f"signature_method must be one of {', '.join(METHODS)}")
        if not (self._secrets if sign else self._account[1]):
            raise ValueError("Vonage needs an api_secret, or a signature_secret and sign=True")
        self._method, self._sign = signature_method, sign
        self._window, self._parts_wait = float(window), float(parts_wait)

    def submit(self, message: OutgoingMessage) -> None:
        src = sender(self.need_sender(message), plus=False, also=" ")
        form = {"from": src, "text": message.body}
        if message.segments().encoding == "ucs2":
            form["type"] = "unicode"  # else Vonage replaces what GSM-7 does not have
        if message.provider_options.status_report:
            form["status-report-req"] = "1"
            callback = self.callback_url("status")
            if callback and len(callback) <= _LONGEST_CALLBACK:
                form["callback"] = callback
        validity = self.validity_of(message, 20, 604_800)
        if validity is not None:
            form["ttl"] = str(validity * 1000)
        params = beside(message.provider_params, *_OURS).items()
        form |= {name: form_value(value) for name, value in params if value is not None}
        form |= {"to": message.dst}
        form |= {"client-ref": message.reference} if message.reference else {}
        if self._sign:
            form |= {"api_key": self._account[0], "timestamp": str(int(time.time()))}
            form["sig"] = signature(form, self._secrets[0], self._method)
        auth = None if self._sign else self._account  # both would be refused (32)
        self._take(message, self.call("POST", "/sms/json", auth=auth, data=form))

    def _take(self, message: OutgoingMessage, answer: Answer) -> None:
        """Read an answer: an entry for each part, each accepted or refused by itself."""
        if not answer.get("messages") and str(answer.get("message-count")) == "0":
            raise self.refusal(answer)
        answer.require("messages", 0, "status")
        entries = answer.json["messages"]
        refused = _refused(answer)
        if refused is not None:
            error = self.error(answer)
            # Some parts are on their way, or nobody knows: nothing may send them again.
            some = any(str(answer.get("messages", n, "status")) == "0" for n in range(len(entries)))
            clear = error.code in self._clear or (error.code and "message-id" not in refused)
            error.ambiguous = some or not clear
            raise error
        ids = [answer.require("messages", n, "message-id") for n in range(len(entries))]
        message.msgid = ids if len(ids) > 1 else ids[0]
        message.meta = {"parts": len(ids)} | {name: entries[-1].get(name) for name in _TOLD}

    def error_code(self, answer: Answer) -> str | None:
        refused = _refused(answer)
        code = str(refused["status"]) if refused and "status" in refused else ""
        return code if re.fullmatch("[0-9]{1,3}", code) else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        refused = _refused(answer)
        if refused is None and answer.get("messages", 0, "message-id"):
            error.ambiguous = True  # it contradicts its HTTP status
        wait = _WAIT.search(str(refused.get("error-text"))) if refused else None
        if wait and isinstance(error, exc.LimitsError):
            error.retry_after = min(int(wait[1]) / 1000, MAX_RETRY_AFTER)
        return error

    def balance(self) -> Balance:
        answer = self.call("GET", "/account/get-balance", safe=True, auth=self._account)
        return Balance(answer.amount("value"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint, request

        self.need_secret(name="signature_secret")
        views = Blueprint("vonage", __name__)

        @views.before_request
        def asked() -> ResponseReturnValue | None:
            # Vonage asks so if an address is there, before it keeps it.
            asks = request.method == "GET" and not request.args and not request.get_data()
            return ("", 200) if asks else None

        @views.route("/im", methods=["GET", "POST"])
        def im() -> ResponseReturnValue:
            fields = self._authentic("msisdn", "to", "messageId")
            if "status" in fields:
                raise Malformed("a report at the address of incoming messages")
            told = (fields["msisdn"], fields.get("text", ""), fields["messageId"], fields["to"])
            at = _time(fields.get("message-timestamp"))
            message = IncomingMessage(*told, rtime=at, meta=_rest(fields))
            message.part = _part(fields, self._parts_wait)
            self._receive_message(message)
            return "", 204

        @views.route("/status", methods=["GET", "POST"])
        def status() -> ResponseReturnValue:
            fields = self._authentic("messageId", "status")
            report = self.report(fields["status"], fields["messageId"], code=fields.get("err-code"))
            report.reference, report.of_part = fields.get("client-ref"), True
            report.rtime = _time(fields.get("message-timestamp")) or report.rtime
            report.meta = _rest(fields)
            self._receive_status(report)
            return "", 204

        return views

    def _authentic(self, *needed: str) -> dict[str, str]:
        """The running request's fields; PermissionError unless Vonage signed them."""
        from flask import request

        # The signature is one of the fields and covers the others, in whichever of these places
        # the account has them sent.
        given: Mapping[str, Any] = {}
        if request.method == "GET":
            given = query_fields(*request.args)
        elif request.is_json:
            given = json_object(json_body())
        elif request.form:
            given = form_fields(*request.form)  # the signature is that of the first values
        told = {name: value for name, value in given.items() if value is not None}
        fields = {k: v if isinstance(v, str) else to_json(v) for k, v in told.items()}
        sig = fields.pop("sig", "")
        if not self.insecure:
            verify(fields, sig, self._secrets, self._method)
            date = _time(fields.get("timestamp"))
            at = date.timestamp() if date else fields.get("timestamp")
            if not fresh(at, min(self._window, self.settings.report_wait)):
                raise Refused("the webhook is too old")
            signed_with(sig.lower(), seconds=2 * self._window)
        if not all(fields.get(name) for name in needed):
            raise Malformed(f"it lacks one of {', '.join(needed)}")
        for name, form in _FORMS.items():
            if name in fields and not form.fullmatch(fields[name]):
                raise Malformed(f"{name} is not as Vonage writes it")
        if not any_equal(fields.get("api-key", self._account[0]), self._accounts):
            raise Refused("it is about another account")
        return fields


#: What parameters do not replace.
_OURS = (
    *("to", "callback", "client-ref", "status-report-req"),
    *("api_key", "api_secret", "sig", "timestamp"),
)

#: Fields are signed as one text, in which what stands for "&" and "=" in a value is "_".
_FORMS = {
    "messageId": re.compile("[0-9A-Za-z-]{1,64}"),
    "status": re.compile("[A-Za-z][A-Za-z_-]{0,39}"),
    "err-code": re.compile("[0-9]{0,6}"),
    # A number, a short code, or a sender id: documented as letters and digits.
    "msisdn": re.compile(r"\w[\w .@+()/-]{0,49}|\+[0-9][0-9 ()/.-]{0,30}"),
    "to": re.compile(r"\w[\w .@+()/-]{0,49}|\+[0-9][0-9 ()/.-]{0,30}"),
    "concat-ref": re.compile("[0-9A-Za-z-]{0,40}"),
}

#: Fields of webhooks that stand elsewhere, or tell nothing of the message.
_NOT_META = {"msisdn", "to", "text", "messageId", "status", "err-code", "client-ref", "api-key"}


def _refused(answer: Answer) -> Any:
    """The first entry of an answer that is not accepted, as a dict; None: there is none."""
    entries = answer.get("messages") if isinstance(answer.get("messages"), list) else []
    found = [each if isinstance(each, dict) else {} for each in entries]
    return next((each for each in found if str(each.get("status")) != "0"), None)


def _rest(fields: Mapping[str, str]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in _NOT_META and not k.startswith("concat")}


_COUNT = re.compile("[0-9]{1,3}")


def _part(fields: Mapping[str, str], wait: float) -> Part | None:
    """Which part of a long message a webhook holds; None: all of it."""
    ref, number, total = (fields.get(f"concat-{name}", "") for name in ("ref", "part", "total"))
    written = _COUNT.fullmatch(number) and _COUNT.fullmatch(total)
    if written and fields.get("concat", "").lower() in ("true", "1"):
        with suppress(ValueError):
            return Part(ref, int(number), int(total), wait)
    return None


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text or "", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
