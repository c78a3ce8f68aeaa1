"""Vonage SMS API (formerly Nexmo): forms, and JSON with status 200 even for errors.

Source: Vonage's OpenAPI descriptions of the SMS and Account APIs, its pages on error codes,
inbound and signed messages, and its Python SDK for signatures.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
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
from smsqueue.providers.authentic import (
    Refused,
    Secrets,
    any_equal,
    fresh,
    hmac_hex,
    secrets_of,
    signed,
)
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import MAX_RETRY_AFTER, Answer
from smsqueue.providers.reading import form_fields, json_body, json_object, query_fields

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["REPLAY_WINDOW", "VonageProvider", "signature"]

#: Ways to sign fields, under the names that Vonage's own libraries give them.
_METHODS = ("md5hash", "md5", "sha1", "sha256", "sha512")
#: Seconds. Vonage repeats a webhook for a day, and may repeat it with its first signature.
REPLAY_WINDOW = 25 * 3600.0
#: In a signed value, "&" and "=" become "_".
_MASK = str.maketrans("&=", "__")

#: Most characters of a callback URL.
_MAX_CALLBACK = 100
#: Fields of responses that are copied to ``meta``.
_META = ("message-price", "network", "remaining-balance")
#: "Throughput Rate Exceeded - please wait [ 250 ] and retry": milliseconds.
_WAIT = re.compile(r"\[\s*(\d{1,9})\s*\]")


class VonageProvider(AccountProvider):
    """Sends and receives through Vonage's SMS API.

    A long text is sent in parts, each with its own id and reports: ``msgid`` is then a list of ids.
    Long incoming messages arrive in parts, too; the ledger joins them.

    Args:
        api_key: The account.
        api_secret: Its secret; not needed with ``sign``.
        signature_secret: Signs webhooks; several while it rotates.
        signature_method: The account's setting: md5hash, md5, sha1, sha256 or sha512 (all but the
            first are HMACs).
        sign: Sign requests instead of sending the ``api_secret``.
        window: Seconds after which a signed webhook is too old; at most
            SMSQUEUE_REPORT_WAIT, for which the ledger detects repetitions.
        parts_wait: Seconds that the first part of an incoming message waits for the others. Then
            the message is reported without them, and ``meta["missing"]`` lists their numbers.
        subaccounts: API keys of other accounts whose webhooks are accepted if they are signed
            with one of our secrets.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
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
    #: Codes of refusals, even if the response has a message id.
    _refusal_codes: ClassVar = codes.keys() - {"5"}
    statuses: ClassVar = table(
        (MessageAccepted, ["accepted", "buffered"]),
        (MessageDelivered, ["delivered"]),
        (MessageExpired, ["expired"]),
        (MessageError, ["failed", "rejected"]),
        # "The network operator has returned an undocumented status code": no information.
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
        window: float = REPLAY_WINDOW,
        parts_wait: float = 600.0,
        subaccounts: Secrets = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=signature_secret, **config)
        self._account = (api_key, api_secret or "")
        self._accounts = (api_key, *secrets_of(subaccounts))
        if signature_method not in _METHODS:
            raise ValueError(f"signature_method must be one of {', '.join(_METHODS)}")
        if not (self._secrets if sign else self._account[1]):
            raise ValueError("Vonage needs an api_secret, or a signature_secret and sign=True")
        self._method, self._sign = signature_method, sign
        self._window, self._parts_wait = float(window), float(parts_wait)

    def submit(self, message: OutgoingMessage) -> None:
        src = sender(self.need_sender(message), plus=False, also=" ")
        form = {"from": src, "text": message.body}
        if message.segments().encoding == "ucs2":
            form["type"] = "unicode"  # otherwise Vonage replaces characters outside of GSM-7
        if message.provider_options.status_report:
            form["status-report-req"] = "1"
            callback = self.callback_url("status")
            if callback and len(callback) <= _MAX_CALLBACK:
                form["callback"] = callback
        validity = self.validity_of(message, 20, 604_800)
        if validity is not None:
            form["ttl"] = str(validity * 1000)
        params = beside(message.provider_params, *_RESERVED).items()
        form |= {name: form_value(value) for name, value in params if value is not None}
        form |= {"to": message.dst}
        form |= {"client-ref": message.reference} if message.reference else {}
        if self._sign:
            form |= {"api_key": self._account[0], "timestamp": str(int(time.time()))}
            form["sig"] = signature(form, self._secrets[0], self._method)
        auth = None if self._sign else self._account  # Vonage refuses both together (32)
        self._read_parts(message, self.call("POST", "/sms/json", auth=auth, data=form))

    def _read_parts(self, message: OutgoingMessage, answer: Answer) -> None:
        """Read a response: it has an entry for each part, accepted or refused."""
        if not answer.get("messages") and str(answer.get("message-count")) == "0":
            raise self.refusal(answer)
        answer.require("messages", 0, "status")
        entries = answer.json["messages"]
        refused = _refused_entry(answer)
        if refused is not None:
            error = self.error(answer)
            # Some parts were or may have been sent, so the message must not be sent again.
            some_sent = any(
                str(answer.get("messages", n, "status")) == "0" for n in range(len(entries))
            )
            clear = error.code in self._refusal_codes or (
                error.code and "message-id" not in refused
            )
            error.ambiguous = some_sent or not clear
            raise error
        ids = [answer.require("messages", n, "message-id") for n in range(len(entries))]
        message.msgid = ids if len(ids) > 1 else ids[0]
        message.meta = {"parts": len(ids)} | {name: entries[-1].get(name) for name in _META}

    def error_code(self, answer: Answer) -> str | None:
        refused = _refused_entry(answer)
        code = str(refused["status"]) if refused and "status" in refused else ""
        return code if re.fullmatch("[0-9]{1,3}", code) else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        refused = _refused_entry(answer)
        if refused is None and answer.get("messages", 0, "message-id"):
            error.ambiguous = True  # contradicts the HTTP status
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
        def answer_probe() -> ResponseReturnValue | None:
            # Vonage probes a URL so before it stores it.
            is_probe = request.method == "GET" and not request.args and not request.get_data()
            return ("", 200) if is_probe else None

        @views.route("/im", methods=["GET", "POST"])
        def im() -> ResponseReturnValue:
            fields = self._verified_fields("msisdn", "to", "messageId")
            if "status" in fields:
                raise Malformed("a report at the URL of incoming messages")
            message = IncomingMessage(
                fields["msisdn"],
                fields.get("text", ""),
                fields["messageId"],
                fields["to"],
                rtime=_time(fields.get("message-timestamp")),
                meta=_meta(fields),
            )
            message.part = _part(fields, self._parts_wait)
            self._receive_message(message)
            return "", 204

        @views.route("/status", methods=["GET", "POST"])
        def status() -> ResponseReturnValue:
            fields = self._verified_fields("messageId", "status")
            report = self.report(fields["status"], fields["messageId"], code=fields.get("err-code"))
            report.reference, report.of_part = fields.get("client-ref"), True
            report.rtime = _time(fields.get("message-timestamp")) or report.rtime
            report.meta = _meta(fields)
            self._receive_status(report)
            return "", 204

        return views

    def _verified_fields(self, *needed: str) -> dict[str, str]:
        """The fields of the running request; Refused unless Vonage signed them."""
        from flask import request

        # The signature is one of the fields and covers the others, which are in the query, JSON
        # or a form, depending on the account's settings.
        values: Mapping[str, Any] = {}
        if request.method == "GET":
            values = query_fields(*request.args)
        elif request.is_json:
            values = json_object(json_body())
        elif request.form:
            values = form_fields(*request.form)  # only the first of repeated values is signed
        present = {name: value for name, value in values.items() if value is not None}
        fields = {k: v if isinstance(v, str) else to_json(v) for k, v in present.items()}
        sig = fields.pop("sig", "")
        if not self.insecure:
            verify_signature(fields, sig, self._secrets, self._method)
            date = _time(fields.get("timestamp"))
            at = date.timestamp() if date else fields.get("timestamp")
            if not fresh(at, min(self._window, self.settings.report_wait)):
                raise Refused("the webhook is too old")
            register_signatures(sig.lower(), seconds=2 * self._window)
        if not all(fields.get(name) for name in needed):
            raise Malformed(f"a field is missing: one of {', '.join(needed)}")
        for name, form in _FORMS.items():
            if name in fields and not form.fullmatch(fields[name]):
                raise Malformed(f"{name} does not have Vonage's form")
        if not any_equal(fields.get("api-key", self._account[0]), self._accounts):
            raise Refused("it names another account")
        return fields


def signature(fields: Mapping[str, str], secret: str, method: str) -> str:
    """The ``sig`` of the fields of a request."""
    text = "".join(f"&{name}={value.translate(_MASK)}" for name, value in sorted(fields.items()))
    data = text.encode(errors="replace")
    if method == "md5hash":
        return hashlib.md5(data + secret.encode(), usedforsecurity=False).hexdigest()
    return hmac_hex(secret, data, method)


def verify_signature(
    fields: Mapping[str, str], sig: str, secrets: Iterable[str], method: str
) -> None:
    """Raise Refused unless ``sig`` signs exactly these fields."""
    # Only values are masked: a name like "a=1&b" has the signature of two fields, and would hide
    # one of them.
    if any("&" in name or "=" in name for name in fields):
        raise Refused("a field has a name that cannot be signed")
    if not signed(sig.lower(), secrets, lambda secret: signature(fields, secret, method)):
        raise Refused("the signature is not by Vonage")


#: Fields that message parameters cannot replace.
_RESERVED = (
    *("to", "callback", "client-ref", "status-report-req"),
    *("api_key", "api_secret", "sig", "timestamp"),
)

#: Fields are signed as one text, in which "&" and "=" in a value are "_". So each field must have
#: its documented form.
_FORMS = {
    "messageId": re.compile("[0-9A-Za-z-]{1,64}"),
    "status": re.compile("[A-Za-z][A-Za-z_-]{0,39}"),
    "err-code": re.compile("[0-9]{0,6}"),
    # A number, a short code, or a sender id: documented as letters and digits.
    "msisdn": re.compile(r"\w[\w .@+()/-]{0,49}|\+[0-9][0-9 ()/.-]{0,30}"),
    "to": re.compile(r"\w[\w .@+()/-]{0,49}|\+[0-9][0-9 ()/.-]{0,30}"),
    "concat-ref": re.compile("[0-9A-Za-z-]{0,40}"),
}

#: Fields that are not copied to ``meta``.
_NOT_META = {"msisdn", "to", "text", "messageId", "status", "err-code", "client-ref", "api-key"}


def _refused_entry(answer: Answer) -> Any:
    """The first entry of a response that was not accepted, as a dict; None if there is none."""
    entries = answer.get("messages") if isinstance(answer.get("messages"), list) else []
    objects = [entry if isinstance(entry, dict) else {} for entry in entries]
    return next((entry for entry in objects if str(entry.get("status")) != "0"), None)


def _meta(fields: Mapping[str, str]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in _NOT_META and not k.startswith("concat")}


_COUNT = re.compile("[0-9]{1,3}")


def _part(fields: Mapping[str, str], wait: float) -> Part | None:
    """The part of a long message in a webhook; None if the message is whole."""
    ref, number, total = (fields.get(f"concat-{name}", "") for name in ("ref", "part", "total"))
    are_counts = _COUNT.fullmatch(number) and _COUNT.fullmatch(total)
    if are_counts and fields.get("concat", "").lower() in ("true", "1"):
        with suppress(ValueError):
            return Part(ref, int(number), int(total), wait)
    return None


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text or "", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
