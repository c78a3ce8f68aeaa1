"""Infobip, SMS API v3.

Source: Infobip's OpenAPI description of SMS (3.210.0), account management and subscriptions, its
tables of status codes, and its documentation of webhooks. It says that a message id that was used
before is refused, not for how long; how webhooks are signed with HMAC is not published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import sender, sender_kind
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
)
from smsqueue.message.statuses import MessageStatus as Report
from smsqueue.providers import authentic
from smsqueue.providers.account import AccountProvider, Balance, beside, merged, table
from smsqueue.providers.authentic import (
    Refused,
    Secrets,
    any_equal,
    basic_matches,
    secrets_of,
    sha256_hex,
    users_of,
)
from smsqueue.providers.capabilities import Can
from smsqueue.providers.checked import Malformed
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import (
    address_of,
    id_of,
    json_body,
    json_object,
    listed,
    read_each,
    recipients_of,
    text_of,
    time_of,
)
from smsqueue.providers.used import signed_with
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["InfobipProvider"]

#: Status "duplicate message id": says that the id was used, not what became of that message.
_DUPLICATE = "23"
#: For how long Infobip shows a message in its log, in seconds.
_LOGGED = 48 * 3600
#: What a status means by its group. DELIVERED may be to the operator only.
_GROUPS: dict[str, type[Report]] = table(
    (MessageAccepted, ["ACCEPTED", "PENDING"]),
    (MessageExpired, ["EXPIRED"]),
    (MessageError, ["UNDELIVERABLE", "REJECTED"]),
)
#: Groups by their ids, which a status has as well.
_GROUP_IDS = dict(enumerate(["ACCEPTED", "PENDING", "UNDELIVERABLE", "DELIVERED", "EXPIRED"]))
_GROUP_IDS[5] = "REJECTED"
#: Statuses of other groups that say that the message was not sent: UNDELIVERABLE_NOT_SENT and
#: EXPIRED_SIGNALS_BLOCKED.
_NOT_SENT = frozenset({31, 87})
#: Its codes of errors of the whole request.
_ERROR = re.compile("E[0-9]{3}")
#: Parameters that are options of the request, beside those of the message.
_OF_REQUEST = {"schedule", "tracking", "conversionTracking", "includeSmsCountInResponse"}
_DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


#: What parameters do not replace; the names of older versions of the API as well.
_OURS = (
    *("destinations", "destination", "to", "messageId", "callbackData", "notifyUrl", "notify"),
    *("bulkId", "intermediateReport", "messages"),
)


class InfobipProvider(AccountProvider):
    """Sends and receives through Infobip.

    Args:
        api_key: Sends the messages.
        secret: ``user:password`` that webhooks show (HTTP Basic); several while it changes.
        hmac_key: What webhooks are signed with instead; needs ``hmac_header``.
        hmac_header: The header that has the HMAC of the body, hexadecimal or Base64.
        hmac_digest: Its algorithm: md5, sha1, sha224, sha256, sha384 or sha512.
        dedup_window: Seconds for which Infobip is trusted to send once what has the same message
            id, 172800 at most; 0: not at all.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it; ``url`` is the
            account's own address, ``https://xxxxx.api.infobip.com``.
    """

    base_url = "https://api.infobip.com"
    capabilities = frozenset(Can)
    url_arguments = ("api_key", "secret")
    #: By the id of the status in a 200. Flooding (20) is about one recipient, so it is not a limit
    #: of ours that would pause the provider for all.
    codes: ClassVar = table(
        (exc.CreditError, [12, 17]),
        (exc.ServerError, [21, 100]),
        (exc.UnsupportedError, [6, 19]),
        # The recipient, the sender, the content
        (exc.RequestError, [8, 10, 14, 18, 20, 51, 52, 87, 99, 11, 13, 23, 24, 25]),
    )
    #: Those that their group alone does not tell.
    statuses: ClassVar = table(
        (MessageAccepted, ["DELIVERED_TO_OPERATOR"]),
        (MessageDelivered, ["DELIVERED_TO_HANDSET"]),
        (MessageError, ["SIGNALS_BLOCKED"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        api_key: str,
        secret: Secrets = None,
        hmac_key: Secrets = None,
        hmac_header: str | None = None,
        hmac_digest: str = "sha256",
        dedup_window: float = 3600.0,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=secret, **config)
        self._users = users_of(self._secrets, "Infobip's webhooks")
        if hmac_key and not hmac_header:
            raise SettingsError("hmac_key needs hmac_header: which header has the signature?")
        if hmac_digest not in _DIGESTS:
            raise SettingsError(f"hmac_digest must be one of {', '.join(_DIGESTS)}")
        if not 0 <= dedup_window <= _LOGGED:
            raise SettingsError(f"Infobip's dedup_window must be 0 to {_LOGGED}")
        self._headers = {"Authorization": f"App {api_key}"}
        self._hmac = (hmac_header or "", secrets_of(hmac_key), hmac_digest)
        self.dedup_window = float(dedup_window)
        if not dedup_window:
            self.capabilities = self.capabilities - {Can.DEDUPLICATION}

    def submit(self, message: OutgoingMessage) -> None:
        key = message.dedup_key or message.reference
        reference = {"callbackData": message.reference} if message.reference else {}
        webhooks: dict[str, Any] = {"contentType": "application/json"}
        if message.provider_options.status_report:
            url = self.callback_url("status")
            webhooks["delivery"] = {"notify": True} | ({"url": url} if url else {})
        entry: dict[str, Any] = {"content": {"text": message.body}, "webhooks": webhooks}
        source = self.sender_of(message)
        if source:
            number = sender_kind(source) != "alphanumeric"
            entry["sender"] = sender(source, plus=False) if number else source
        validity = self.validity_of(message, 1, _LOGGED)
        if validity is not None:
            entry["options"] = {"validityPeriod": {"amount": validity, "timeUnit": "SECONDS"}}
        to = {"to": message.dst} | ({"messageId": key} if key else {})
        params = beside(message.provider_params, *_OURS)
        if isinstance(params.get("webhooks"), Mapping):
            params["webhooks"] = beside(params["webhooks"], "delivery", "callbackData")
        else:
            params.pop("webhooks", None)
        options = {"includeSmsCountInResponse": True}
        options |= {n: params[n] for n in params if n in _OF_REQUEST}
        entry = merged(entry, {n: params[n] for n in params if n not in _OF_REQUEST})
        entry = merged(entry, {"destinations": [to], "webhooks": reference})
        body = {"messages": [entry], "options": options}
        answer = self.call("POST", "/sms/3/messages", headers=self._headers, json=body)
        no_messages = answer.get("messages") == []
        if no_messages or (not answer.get("messages") and self.error_code(answer)):
            raise self.refusal(answer)
        # That the id was used by us, for this very sending, only the caller can know.
        duplicate = str(answer.get("messages", 0, "status", "id")) == _DUPLICATE
        if not (duplicate and key and message.repeated):
            self._check(answer, duplicate)
        message.msgid = answer.get("messages", 0, "messageId") or key or answer.require("bulkId")
        message.meta = {"parts": answer.get("messages", 0, "details", "messageCount")}

    def _check(self, answer: Answer, duplicate: bool) -> None:
        """Raise an error unless a 200 says that the message was taken."""
        group = _group(answer.require("messages", 0, "status"))
        if group in ("ACCEPTED", "PENDING", "DELIVERED") and not duplicate:
            return
        code = answer.get("messages", 0, "status", "id")
        code = code if isinstance(code, int) else None
        # UNDELIVERABLE and EXPIRED are said of what was sent, and a duplicate may have been.
        if not duplicate and (group == "REJECTED" or code in _NOT_SENT):
            raise self.refusal(answer, code)
        known = None if code is None else self.codes.get(code)
        raise (known or exc.ServerError)(
            "the provider did not say that it took the message",
            code=code,
            provider=self.name,
            http_status=answer.status,
            ambiguous=True,
        )

    def error_code(self, answer: Answer) -> str | None:
        old = answer.get("requestError", "serviceException", "messageId")
        code = answer.get("errorCode")
        if isinstance(code, str) and _ERROR.fullmatch(code):
            return code
        return old if isinstance(old, str) else None

    def look_up(self, message: OutgoingMessage, since: datetime) -> Report | None:
        key = message.dedup_key or message.reference
        # Not /sms/3/reports: what is read there is not given again.
        answer = self.call(
            "GET", "/sms/3/logs", safe=True, headers=self._headers, params={"messageId": key}
        )
        try:
            entries = answer.json["results"]
            reports = [self._report(each) for each in entries if each["messageId"] == key]
        except (KeyError, TypeError, AttributeError, ValueError):
            raise exc.ServerError("the provider's log cannot be read", provider=self.name) from None
        # Repetitions have the same id. Is there one that was not refused, it is the message.
        reports = [each for each in reports if str(each.status_code) != _DUPLICATE]
        for each in reports:
            each.reference = message.reference
        return min(reports, key=lambda each: (each.error, not each.delivered), default=None)

    def balance(self) -> Balance:
        answer = self.call("GET", "/account/1/balance", safe=True, headers=self._headers)
        return Balance(answer.amount("balance"), answer.get("currency"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret(*self._hmac[1])
        views = Blueprint("infobip", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            return self._take(_incoming, self._receive_message)

        @views.post("/status")
        def status() -> ResponseReturnValue:
            return self._take(self._report, self._receive_status)

        return views

    def _take(self, make: Callable[[Any], Any], record: Callable[[Any], Any]) -> tuple[str, int]:
        """Record all of a webhook that can be understood; ValueError if that was not all."""

        self._authenticate()
        # A letter that is none spoils its own entry, not the others.
        body = json_body().decode("utf-8", "replace").encode()
        results = json_object(body).get("results")
        if not isinstance(results, list):
            raise Malformed("results is no list")
        events = list(read_each(results, lambda told: self.validated(make(told))))
        for event in events:
            if not isinstance(event, Malformed):
                record(event)
        for event in events:
            if isinstance(event, Malformed):
                raise event
        return "", 200

    def _report(self, told: dict[str, Any]) -> Report:
        status = told["status"]
        name, code = text_of(status, "name"), status.get("id")
        kind = self.statuses.get(name) or _GROUPS.get(_group(status))
        # The refusal of a repetition: what it repeated is not refused.
        kind = Report if str(code) == _DUPLICATE else kind
        report = self.report(name, id_of(told, "messageId"), code=code, kind=kind)
        report.reference = told.get("callbackData") or None
        report.rtime = time_of(told.get("doneAt")) or report.rtime
        report.meta = {n: told.get(n) for n in ("error", "messageCount", "price", "mccMnc")}
        return report

    def _authenticate(self) -> None:
        """PermissionError unless the running request shows one of the secrets."""
        from flask import request

        header, keys, digest = self._hmac
        body, signs = request.get_data(), (authentic.hmac_hex, authentic.hmac_base64)
        given = request.headers.get(header)
        signed = [any_equal(given, [sign(key, body, digest) for sign in signs]) for key in keys]
        known = basic_matches(request.headers.get("Authorization"), self._users)
        if not (known or any(signed) or self.insecure):
            raise Refused("the webhook shows no secret of Infobip's")
        if any(signed):
            # Nothing else than the body is signed, and the signature has two forms.
            signed_with(f"hmac:{sha256_hex(body)}", whole=True)


def _incoming(told: dict[str, Any]) -> IncomingMessage:
    """An SMS, or an MMS, whose ``message`` is a list of its parts (webhooks of the kind MO_MMS_2)
    or has it as JSON text."""
    parts = listed(_unpacked(told.get("message")))
    texts = [text_of(told, "text")] if told.get("text") else []
    for part in parts:
        texts += [v for v in (part.get("value"), part.get("text")) if isinstance(v, str) and v]
    message = IncomingMessage(
        address_of(told, "from", numeric=True),
        "\n".join(texts),
        id_of(told, "messageId"),
        address_of(told, "to", numeric=True) if told.get("to") else None,
        time_of(told.get("receivedAt")),
        {k: v for k, v in told.items() if k not in ("from", "to", "text", "cleanText")},
    )
    message.media = media_of([(part.get("url"), part.get("contentType")) for part in parts])
    group = listed(told.get("group"))
    others = [each.get(name) for each in group for name in ("to", "cc")]
    message.meta |= recipients_of(told.get("to"), *others)
    return message


def _unpacked(message: Any) -> Any:
    """The parts of an MMS; a text that is no JSON is the only part."""
    if not isinstance(message, str):
        return message
    with suppress(ValueError):
        return json_object(message.encode()).get("mms_parts")
    return {"value": message}


def _group(status: Any) -> str:
    """Name of the group that a status belongs to; empty if it tells none."""
    if not isinstance(status, dict):
        return ""
    name, id = status.get("groupName"), status.get("groupId")
    if isinstance(name, str) and name:
        return name.upper()
    return _GROUP_IDS.get(id, "") if isinstance(id, int) else ""
