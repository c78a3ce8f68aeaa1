"""Infobip, SMS API v3.

Source: Infobip's OpenAPI description of SMS (3.210.0), account management and subscriptions, its
tables of status codes, and its documentation of webhooks. It does not say for
how long a used message id is refused, nor how webhooks are signed with HMAC.
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
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
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
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["InfobipProvider"]

#: Status "duplicate message id": the id was used; it does not say whether that was sent.
_DUPLICATE = "23"
#: Seconds for which Infobip keeps a message in its log.
_LOG_RETENTION = 48 * 3600
#: Report classes by the group of a status. DELIVERED may mean to the operator only.
_GROUPS: dict[str, type[Report]] = table(
    (MessageAccepted, ["ACCEPTED", "PENDING"]),
    (MessageExpired, ["EXPIRED"]),
    (MessageError, ["UNDELIVERABLE", "REJECTED"]),
)
#: Groups by their ids.
_GROUP_IDS = dict(enumerate(["ACCEPTED", "PENDING", "UNDELIVERABLE", "DELIVERED", "EXPIRED"]))
_GROUP_IDS[5] = "REJECTED"
#: Statuses of other groups that say that nothing was sent: UNDELIVERABLE_NOT_SENT and
#: EXPIRED_SIGNALS_BLOCKED.
_NOT_SENT = frozenset({31, 87})
#: Form of an error code of the whole request.
_ERROR = re.compile("E[0-9]{3}")
#: Parameters that are options of the request, not of the message.
_REQUEST_OPTIONS = {"schedule", "tracking", "conversionTracking", "includeSmsCountInResponse"}
_DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


#: Fields that message parameters cannot replace, with the names of older API versions.
_RESERVED = (
    *("destinations", "destination", "to", "messageId", "callbackData", "notifyUrl", "notify"),
    *("bulkId", "intermediateReport", "messages"),
)


class InfobipProvider(AccountProvider):
    """Sends and receives through Infobip.

    Args:
        api_key: Authenticates our calls.
        secret: ``user:password`` of webhooks (HTTP Basic); several while it rotates.
        hmac_key: Signs webhooks instead; needs ``hmac_header``.
        hmac_header: The header with the HMAC of the body, hexadecimal or Base64.
        hmac_digest: Its algorithm: md5, sha1, sha224, sha256, sha384 or sha512.
        dedup_window: Seconds for which Infobip is trusted to send once per message id, at most
            172800; 0: not at all.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`; ``url`` is
            the account's own base URL, ``https://xxxxx.api.infobip.com``.
    """

    base_url = "https://api.infobip.com"
    capabilities = frozenset(Can)
    url_arguments = ("api_key", "secret")
    #: By the id of the status in a 200. Flooding (20) is about one recipient, so it must not be a
    #: LimitsError, which would pause the provider for all.
    codes: ClassVar = table(
        (exc.CreditError, [12, 17]),
        (exc.ServerError, [21, 100]),
        (exc.UnsupportedError, [6, 19]),
        # The recipient, the sender, the content
        (exc.RequestError, [8, 10, 14, 18, 20, 51, 52, 87, 99, 11, 13, 23, 24, 25]),
    )
    #: Statuses for which the group is not enough.
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
            raise SettingsError("hmac_key needs hmac_header, the name of the header")
        if hmac_digest not in _DIGESTS:
            raise SettingsError(f"hmac_digest must be one of {', '.join(_DIGESTS)}")
        if not 0 <= dedup_window <= _LOG_RETENTION:
            raise SettingsError(f"Infobip's dedup_window must be 0 to {_LOG_RETENTION}")
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
        validity = self.validity_of(message, 1, _LOG_RETENTION)
        if validity is not None:
            entry["options"] = {"validityPeriod": {"amount": validity, "timeUnit": "SECONDS"}}
        to = {"to": message.dst} | ({"messageId": key} if key else {})
        params = beside(message.provider_params, *_RESERVED)
        if isinstance(params.get("webhooks"), Mapping):
            params["webhooks"] = beside(params["webhooks"], "delivery", "callbackData")
        else:
            params.pop("webhooks", None)
        options = {"includeSmsCountInResponse": True}
        options |= {n: params[n] for n in params if n in _REQUEST_OPTIONS}
        entry = merged(entry, {n: params[n] for n in params if n not in _REQUEST_OPTIONS})
        entry = merged(entry, {"destinations": [to], "webhooks": reference})
        body = {"messages": [entry], "options": options}
        answer = self.call("POST", "/sms/3/messages", headers=self._headers, json=body)
        no_messages = answer.get("messages") == []
        if no_messages or (not answer.get("messages") and self.error_code(answer)):
            raise self.refusal(answer)
        # A duplicate id is ours if this call repeats an earlier one.
        duplicate = str(answer.get("messages", 0, "status", "id")) == _DUPLICATE
        if not (duplicate and key and message.repeated):
            self._check_accepted(answer, duplicate)
        message.msgid = answer.get("messages", 0, "messageId") or key or answer.require("bulkId")
        message.meta = {"parts": answer.get("messages", 0, "details", "messageCount")}

    def _check_accepted(self, answer: Answer, duplicate: bool) -> None:
        """Raise an error unless a 200 says that the message was accepted."""
        group = _group(answer.require("messages", 0, "status"))
        if group in ("ACCEPTED", "PENDING", "DELIVERED") and not duplicate:
            return
        code = answer.get("messages", 0, "status", "id")
        code = code if isinstance(code, int) else None
        # UNDELIVERABLE and EXPIRED are about sent messages, and a duplicate may have been sent.
        if not duplicate and (group == "REJECTED" or code in _NOT_SENT):
            raise self.refusal(answer, code)
        kind = None if code is None else self.codes.get(code)
        raise (kind or exc.ServerError)(
            "the provider did not confirm the message",
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
        # Not /sms/3/reports, which returns each report only once.
        answer = self.call(
            "GET", "/sms/3/logs", safe=True, headers=self._headers, params={"messageId": key}
        )
        try:
            entries = answer.json["results"]
            reports = [self._report(entry) for entry in entries if entry["messageId"] == key]
        except (KeyError, TypeError, AttributeError, ValueError):
            raise exc.ServerError("the provider's log cannot be read", provider=self.name) from None
        # Repetitions have the same id. If one of them was not refused, it is the message.
        reports = [report for report in reports if str(report.status_code) != _DUPLICATE]
        for report in reports:
            report.reference = message.reference
        return min(reports, key=lambda report: (report.error, not report.delivered), default=None)

    def balance(self) -> Balance:
        answer = self.call("GET", "/account/1/balance", safe=True, headers=self._headers)
        return Balance(answer.amount("balance"), answer.get("currency"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret(*self._hmac[1])
        views = Blueprint("infobip", __name__)

        @views.post("/im")
        def im() -> ResponseReturnValue:
            return self._record_all(_incoming, self._receive_message)

        @views.post("/status")
        def status() -> ResponseReturnValue:
            return self._record_all(self._report, self._receive_status)

        return views

    def _record_all(
        self, parse: Callable[[Any], Any], record: Callable[[Any], Any]
    ) -> tuple[str, int]:
        """Record all valid entries of a webhook; then raise Malformed if some are invalid."""
        self._authenticate()
        # Invalid UTF-8 affects only its own entry.
        body = json_body().decode("utf-8", "replace").encode()
        results = json_object(body).get("results")
        if not isinstance(results, list):
            raise Malformed("results is not a list")
        events = list(read_each(results, lambda entry: self.validated(parse(entry))))
        for event in events:
            if not isinstance(event, Malformed):
                record(event)
        for event in events:
            if isinstance(event, Malformed):
                raise event
        return "", 200

    def _report(self, entry: dict[str, Any]) -> Report:
        status = entry["status"]
        name, code = text_of(status, "name"), status.get("id")
        kind = self.statuses.get(name) or _GROUPS.get(_group(status))
        # Only the repetition was refused, not the message.
        kind = Report if str(code) == _DUPLICATE else kind
        report = self.report(name, id_of(entry, "messageId"), code=code, kind=kind)
        report.reference = entry.get("callbackData") or None
        report.rtime = time_of(entry.get("doneAt")) or report.rtime
        report.meta = {n: entry.get(n) for n in ("error", "messageCount", "price", "mccMnc")}
        return report

    def _authenticate(self) -> None:
        """Raise Refused unless the running request has a valid secret or signature."""
        from flask import request

        header, keys, digest = self._hmac
        body, signs = request.get_data(), (authentic.hmac_hex, authentic.hmac_base64)
        signature = request.headers.get(header)
        signed = [any_equal(signature, [sign(key, body, digest) for sign in signs]) for key in keys]
        has_password = basic_matches(request.headers.get("Authorization"), self._users)
        if not (has_password or any(signed) or self.insecure):
            raise Refused("the webhook has neither a valid user and password nor a valid signature")
        if any(signed):
            # Only the body is signed, and the signature has two encodings.
            register_signatures(f"hmac:{sha256_hex(body)}", whole=True)


def _incoming(entry: dict[str, Any]) -> IncomingMessage:
    """An SMS, or an MMS, whose ``message`` is a list of parts (webhooks MO_MMS_2) or JSON text."""
    parts = listed(_mms_parts(entry.get("message")))
    texts = [text_of(entry, "text")] if entry.get("text") else []
    for part in parts:
        texts += [v for v in (part.get("value"), part.get("text")) if isinstance(v, str) and v]
    message = IncomingMessage(
        address_of(entry, "from", numeric=True),
        "\n".join(texts),
        id_of(entry, "messageId"),
        address_of(entry, "to", numeric=True) if entry.get("to") else None,
        time_of(entry.get("receivedAt")),
        {k: v for k, v in entry.items() if k not in ("from", "to", "text", "cleanText")},
    )
    message.media = media_of([(part.get("url"), part.get("contentType")) for part in parts])
    group = listed(entry.get("group"))
    others = [party.get(name) for party in group for name in ("to", "cc")]
    message.meta |= recipients_of(entry.get("to"), *others)
    return message


def _mms_parts(message: Any) -> Any:
    """The parts of an MMS; a text that is not JSON is the only part."""
    if not isinstance(message, str):
        return message
    with suppress(ValueError):
        return json_object(message.encode()).get("mms_parts")
    return {"value": message}


def _group(status: Any) -> str:
    """The name of a status's group; "" if it has none."""
    if not isinstance(status, dict):
        return ""
    name, id = status.get("groupName"), status.get("groupId")
    if isinstance(name, str) and name:
        return name.upper()
    return _GROUP_IDS.get(id, "") if isinstance(id, int) else ""
