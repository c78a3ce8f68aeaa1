"""Sinch SMS, REST API (XMS) v1, with a service plan's token or a project's key.

Source: Sinch's documentation (batches, delivery reports, callbacks, status codes) and its SDKs for
Python, Java, Node and .NET (fields, signature). Callbacks are authenticated as the account manager
arranges: HTTP Basic, or the signature that the SDKs verify.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import recipient, sender, sender_kind
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.account import AccountProvider, beside, table
from smsqueue.providers.authentic import (
    Refused,
    Secrets,
    basic_matches,
    fresh,
    hmac_base64,
    secrets_of,
    signed,
    users_of,
)
from smsqueue.providers.capabilities import Can
from smsqueue.providers.checked import Malformed
from smsqueue.providers.http import Answer
from smsqueue.providers.oauth import Tokens
from smsqueue.providers.reading import (
    address_of,
    event_views,
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

__all__ = ["SinchProvider"]

_SIGNATURE = "X-Sinch-Webhook-Signature"
#: Validity over while the message was in Sinch's own queue.
_EXPIRED = 406
#: How its error codes look.
_CODE = re.compile("[a-z][a-z0-9_]*")
_DAY = 86400
#: Longest call of the API, in seconds. It may have to wait for a token before.
_CALL = 30.0


#: What parameters do not replace.
_OURS = ("to", "callback_url", "client_reference", "delivery_report")


class SinchProvider(AccountProvider):
    """Sends and receives through Sinch. Each message is a batch of its own.

    Args:
        service_plan_id: Of the plan in Sinch's dashboard.
        api_token: The plan's token, which sends.
        project_id: In place of a plan: the project, whose key sends (OAuth 2).
        key_id: Of an access key of the project.
        key_secret: Its secret.
        region: ``us``, ``eu``, ``au``, ``br`` or ``ca``: where the plan or project is.
        auth_url: Where the tokens of OAuth 2 come from.
        secret: ``user:password`` that callbacks show (HTTP Basic); several while it changes.
        hmac_key: What callbacks are signed with; several while it changes.
        replay_window: Seconds by which a signature's time may differ from ours. Sinch repeats a
            callback for 23 hours, and may not sign it anew; the ledger knows a repetition.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    deadline = _CALL + 2 * Tokens.deadline
    capabilities = frozenset(Can) - {Can.BALANCE, Can.DEDUPLICATION}
    url_arguments = ("service_plan_id", "api_token")
    codes: ClassVar = table(
        (exc.RequestError, ["syntax_invalid_json", "syntax_invalid_parameter_format"]),
        (exc.RequestError, ["syntax_constraint_violation"]),
        # These come with a 403, which is about the account otherwise.
        (exc.RequestError, ["unknown_group", "unknown_campaign", "missing_callback_url"]),
    )
    #: In small letters: documentation and SDKs do not agree on them.
    statuses: ClassVar = table(
        (MessageAccepted, ["queued", "dispatched"]),
        # Nobody will ever know more: what was accepted stays so.
        (MessageAccepted, ["unknown"]),
        (MessageDelivered, ["delivered"]),
        (MessageExpired, ["expired"]),
        (MessageError, ["aborted", "cancelled", "rejected", "deleted", "failed"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        service_plan_id: str | None = None,
        api_token: str | None = None,
        project_id: str | None = None,
        key_id: str | None = None,
        key_secret: str | None = None,
        region: str = "us",
        url: str | None = None,
        auth_url: str = "https://auth.sinch.com/oauth2/token",
        secret: Secrets = None,
        hmac_key: Secrets = None,
        replay_window: float = _DAY,
        **config: Any,
    ) -> None:
        if not region.isalnum():
            raise SettingsError("the region of Sinch must be like us, eu, au, br or ca")
        host = url or f"https://{'zt.' if project_id else ''}{region}.sms.api.sinch.com"
        super().__init__(gateway, name, url=host, secret=secret, **config)
        self._users = users_of(self._secrets, "Sinch's callbacks")
        self._token, self._tokens = api_token, None
        if service_plan_id and api_token and not (project_id or key_id or key_secret):
            account = service_plan_id
        elif project_id and key_id and key_secret and not (service_plan_id or api_token):
            account = project_id
            self._tokens = Tokens(name, url=auth_url, user=key_id, password=key_secret)
        else:
            raise SettingsError(
                f"the provider {name!r} (Sinch) needs service_plan_id and api_token, or in their "
                "place project_id, key_id and key_secret"
            )
        self._batches = f"/xms/v1/{quote(account, safe='')}/batches"
        self._keys = secrets_of(hmac_key)
        self._replay_window = replay_window

    def _call(self, method: str, **request: Any) -> Answer:
        token = self._tokens.token() if self._tokens else self._token
        headers = {"Authorization": f"Bearer {token}"}
        try:
            return self.call(method, self._batches, headers=headers, within=_CALL, **request)
        except exc.AuthError:
            if self._tokens:
                self._tokens.forget(str(token))
            raise

    def submit(self, message: OutgoingMessage) -> None:
        body: dict[str, Any] = {"body": message.body, "type": "mt_text"}
        source = self.sender_of(message)
        if source:
            number = sender_kind(source) != "alphanumeric"
            body["from"] = sender(source, plus=True) if number else source
        if message.provider_options.status_report:
            url = self.callback_url("status")
            body["delivery_report"] = "per_recipient"
            body |= {"callback_url": url} if url else {}
        # Clocks differ: an end that has passed would be refused.
        validity = self.validity_of(message, 60, 3 * _DAY - 60)
        if validity is not None:
            body["expire_at"] = _iso(datetime.now(UTC) + timedelta(seconds=validity))
        ours: dict[str, Any] = {"to": [recipient(message.dst)]}
        if message.reference:
            ours["client_reference"] = message.reference
        answer = self._call("POST", json=body | beside(message.provider_params, *_OURS) | ours)
        batch = answer.get("id")
        nobody = answer.get("to") == [] or answer.get("canceled") is True
        if (batch and nobody) or (not batch and self.error_code(answer)):
            raise self.refusal(answer)
        message.msgid = answer.require("id")

    def error_code(self, answer: Answer) -> str | None:
        code, about = answer.get("code"), answer.get("text")
        own = isinstance(code, str) and _CODE.fullmatch(code) and isinstance(about, str)
        return code if own else None

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        ours = message.reference
        asked = {"client_reference": ours, "start_date": _iso(since - timedelta(hours=1))}
        for batch in self._call("GET", safe=True, params=asked).objects("batches"):
            # Sinch may list more, if it does not look at what was asked for.
            if ours and batch.get("client_reference") == ours and batch.get("id"):
                report = self.report("listed", batch["id"], kind=MessageAccepted)
                report.reference = ours
                return report
        return None

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_secret(*self._keys)

        def read() -> Sequence[IncomingMessage | MessageStatus | Malformed]:
            self._authenticate()
            return self._events(json_object(json_body()))

        return event_views(self, read)

    def _events(
        self, told: dict[str, Any]
    ) -> Sequence[IncomingMessage | MessageStatus | Malformed]:
        if told.get("origin") == "MMS_MO":
            return [_incoming_mms(told)]
        kind = told["type"]
        if kind.startswith("mo_"):
            return [_incoming(told)]
        if kind.startswith("recipient_delivery_report_"):
            return [self._report(told, told)]
        if kind.startswith("delivery_report_"):
            return list(read_each(told["statuses"], partial(self._report, told)))
        raise Malformed("neither a message nor a report")

    def _report(self, told: dict[str, Any], status: dict[str, Any]) -> MessageStatus:
        """The report of a recipient, or what that of a batch says of some of them."""
        word, code = text_of(status, "status"), status.get("code")
        kind = self.statuses.get(word.lower())
        late = code == _EXPIRED and kind is MessageError
        kind = MessageExpired if late else kind
        report = self.report(word, id_of(told, "batch_id"), code=code, kind=kind)
        reference = told.get("client_reference")
        report.reference = reference if reference and isinstance(reference, str) else None
        report.rtime = time_of(told.get("at")) or report.rtime
        hidden = ("type", "batch_id", "recipient", "client_reference", "statuses", "code", "status")
        report.meta = {k: v for k, v in told.items() if k not in hidden}
        return report

    def _authenticate(self) -> None:
        """PermissionError unless the running request shows a secret or is signed with one."""
        from flask import request

        if self.insecure or basic_matches(request.headers.get("Authorization"), self._users):
            return
        given = request.headers.get(_SIGNATURE)
        nonce = request.headers.get(f"{_SIGNATURE}-Nonce", "")
        time = request.headers.get(f"{_SIGNATURE}-Timestamp", "")
        text = request.get_data() + f".{nonce}.{time}".encode()
        if not signed(given, self._keys, lambda key: hmac_base64(key, text)):
            raise Refused("neither a user of Sinch's nor its signature")
        if not fresh(time, self._replay_window):
            raise Refused("the signature is too old, or from the future")
        signed_with(str(given), seconds=2 * self._replay_window, whole=True)


def _incoming(told: dict[str, Any]) -> IncomingMessage:
    """Text; of what is binary (Base64) only what text it has: the rest is in meta."""
    body = told["body"]
    binary = told["type"] != "mo_text"
    text = (body.get("message") or "" if isinstance(body, dict) else "") if binary else body
    if not isinstance(text, str):
        raise Malformed("the body is no text")
    message = IncomingMessage(address_of(told, "from"), text, id_of(told), _to(told))
    message.rtime = time_of(told.get("received_at")) or message.rtime
    hidden = ("from", "to") if binary else ("from", "to", "body")
    message.meta = {k: v for k, v in told.items() if k not in hidden}
    files = listed(body.get("media")) if isinstance(body, dict) else []
    message.media = media_of([(each.get("url"), each.get("content_type")) for each in files])
    return message


def _incoming_mms(told: dict[str, Any]) -> IncomingMessage:
    """A postback of Sinch's MMS API (code N401): its texts are files, too."""
    message = IncomingMessage(
        address_of(told, "from", numeric=True),
        "",
        id_of(told, "tracking-id"),
        _to(told),
    )
    message.rtime = time_of(told.get("timestamp")) or message.rtime
    message.meta = {k: v for k, v in told.items() if k not in ("from", "to", "content", "copy-to")}
    others = (each.get("number") for each in listed(told.get("copy-to")))
    message.meta |= recipients_of(told.get("to"), *others)
    message.media = media_of([(each.get("file"), None) for each in listed(told.get("content"))])
    return message


def _to(told: dict[str, Any]) -> str | None:
    return address_of(told, "to", numeric=True) if told.get("to") else None


def _iso(time: datetime) -> str:
    utc = time.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
