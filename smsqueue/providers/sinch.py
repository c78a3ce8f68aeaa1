"""Sinch SMS, REST API (XMS) v1, with a service plan's token or a project's key.

Source: Sinch's documentation (batches, delivery reports, callbacks, status codes) and its SDKs for
Python, Java, Node and .NET (fields, signature). Callbacks are authenticated as the account manager
arranges: HTTP Basic, or the signature that the SDKs verify.
"""

from __future__ import annotations

import re
import threading
import time as clock
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import blocking
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
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer, HttpProvider
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
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["SinchProvider"]

_SIGNATURE = "X-Sinch-Webhook-Signature"
#: Status code: the validity ended in Sinch's own queue.
_EXPIRED = 406
#: Form of an error code.
_CODE = re.compile("[a-z][a-z0-9_]*")
_DAY = 86400
#: Longest call of the API, in seconds, without the wait for a token.
_CALL = 30.0
#: Seconds before its end at which a token is renewed.
_RENEWAL_MARGIN = 60.0


#: Fields that message parameters cannot replace.
_RESERVED = ("to", "callback_url", "client_reference", "delivery_report")


class AccessTokens(HttpProvider):
    """Fetches tokens of OAuth 2 (client credentials), and caches them. Shared by threads.

    Args:
        name: The provider's, for the errors.
        url: The token endpoint.
        user: Id of the key.
        password: Its secret.
    """

    deadline = 5.0

    def __init__(self, name: str, *, url: str, user: str, password: str) -> None:
        super().__init__(None, name, url=url, read_timeout=self.deadline, pool_size=2)
        self._auth = (user, password)
        self._fetching = threading.Lock()
        #: The token, and the monotonic time after which it is not used any more.
        self._cached = ("", 0.0)

    def token(self) -> str:
        """A valid token, within twice :attr:`deadline`.

        Raises:
            AuthError: the user or the password is wrong.
            ProviderError: the endpoint did not answer. Never ambiguous.
        """
        if self._is_valid():
            return self._cached[0]
        if not blocking(self._fetching.acquire, timeout=self.deadline):
            raise exc.ConnectionError("there is no token yet", provider=self.name)
        try:
            if not self._is_valid():  # another thread may have fetched it
                self._cached = self._fetch()
            return self._cached[0]
        finally:
            self._fetching.release()

    def forget(self, token: str) -> None:
        """Drop a token that was refused."""
        if self._cached[0] == token:
            self._cached = ("", 0.0)

    def _is_valid(self) -> bool:
        return clock.monotonic() < self._cached[1]

    def _fetch(self) -> tuple[str, float]:
        began = clock.monotonic()
        form = {"grant_type": "client_credentials"}
        answer = self.call("POST", safe=True, auth=self._auth, data=form)
        token, seconds = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise exc.ServerError("the provider's answer has no token", provider=self.name)
        is_valid = isinstance(seconds, int | float) and 0 < seconds < 1e9
        lifetime = seconds if is_valid else 2 * _RENEWAL_MARGIN
        return token, began + max(lifetime - _RENEWAL_MARGIN, 1.0)

    def error_code(self, answer: Answer) -> str | None:
        code = answer.get("error")
        return code if isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code) else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        if type(error) is not exc.RequestError:
            return error
        # Our key was refused (400 says so, too): that is not about a message.
        facts = {"code": error.code, "http_status": error.http_status}
        return exc.AuthError(*error.args, provider=self.name, **facts)


class SinchProvider(AccountProvider):
    """Sends and receives through Sinch. Each message is a batch of its own.

    Args:
        service_plan_id: Id of the plan in Sinch's dashboard.
        api_token: The plan's token, which sends.
        project_id: In place of a plan: the project whose key authenticates (OAuth 2).
        key_id: Id of an access key of the project.
        key_secret: Its secret.
        region: Region of the plan or project: ``us``, ``eu``, ``au``, ``br`` or ``ca``.
        auth_url: The token endpoint of OAuth 2.
        secret: ``user:password`` of callbacks (HTTP Basic); several while it rotates.
        hmac_key: Signs callbacks; several while it rotates.
        replay_window: Most seconds by which a signature's time may differ from ours. Sinch repeats
            a callback for 23 hours, perhaps with its first signature; the ledger detects
            repetitions.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    deadline = _CALL + 2 * AccessTokens.deadline
    capabilities = frozenset(Can) - {Can.BALANCE, Can.DEDUPLICATION}
    url_arguments = ("service_plan_id", "api_token")
    codes: ClassVar = table(
        (exc.RequestError, ["syntax_invalid_json", "syntax_invalid_parameter_format"]),
        (exc.RequestError, ["syntax_constraint_violation"]),
        # These come with 403, which is otherwise about the account.
        (exc.RequestError, ["unknown_group", "unknown_campaign", "missing_callback_url"]),
    )
    #: In lower case: documentation and SDKs differ in case.
    statuses: ClassVar = table(
        (MessageAccepted, ["queued", "dispatched"]),
        # No further status follows: the message stays accepted.
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
            raise SettingsError("the region of Sinch must be us, eu, au, br or ca")
        host = url or f"https://{'zt.' if project_id else ''}{region}.sms.api.sinch.com"
        super().__init__(gateway, name, url=host, secret=secret, **config)
        self._users = users_of(self._secrets, "Sinch's callbacks")
        self._token, self._tokens = api_token, None
        if service_plan_id and api_token and not (project_id or key_id or key_secret):
            account = service_plan_id
        elif project_id and key_id and key_secret and not (service_plan_id or api_token):
            account = project_id
            self._tokens = AccessTokens(name, url=auth_url, user=key_id, password=key_secret)
        else:
            raise SettingsError(
                f"the provider {name!r} (Sinch) needs service_plan_id and api_token, or "
                "project_id, key_id and key_secret"
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
        # At least a minute: Sinch refuses an end in the past, and clocks differ.
        validity = self.validity_of(message, 60, 3 * _DAY - 60)
        if validity is not None:
            body["expire_at"] = _iso(datetime.now(UTC) + timedelta(seconds=validity))
        ours: dict[str, Any] = {"to": [recipient(message.dst)]}
        if message.reference:
            ours["client_reference"] = message.reference
        answer = self._call("POST", json=body | beside(message.provider_params, *_RESERVED) | ours)
        batch = answer.get("id")
        not_sent = answer.get("to") == [] or answer.get("canceled") is True
        if (batch and not_sent) or (not batch and self.error_code(answer)):
            raise self.refusal(answer)
        message.msgid = answer.require("id")

    def error_code(self, answer: Answer) -> str | None:
        code, about = answer.get("code"), answer.get("text")
        own = isinstance(code, str) and _CODE.fullmatch(code) and isinstance(about, str)
        return code if own else None

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        reference = message.reference
        filters = {"client_reference": reference, "start_date": _iso(since - timedelta(hours=1))}
        for batch in self._call("GET", safe=True, params=filters).objects("batches"):
            # Sinch may ignore the filter.
            if reference and batch.get("client_reference") == reference and batch.get("id"):
                report = self.report("listed", batch["id"], kind=MessageAccepted)
                report.reference = reference
                return report
        return None

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_secret(*self._keys)

        def read() -> Sequence[IncomingMessage | MessageStatus | Malformed]:
            self._authenticate()
            return self._events(json_object(json_body()))

        return event_views(self, read)

    def _events(
        self, fields: dict[str, Any]
    ) -> Sequence[IncomingMessage | MessageStatus | Malformed]:
        if fields.get("origin") == "MMS_MO":
            return [_incoming_mms(fields)]
        kind = fields["type"]
        if kind.startswith("mo_"):
            return [_incoming(fields)]
        if kind.startswith("recipient_delivery_report_"):
            return [self._report(fields, fields)]
        if kind.startswith("delivery_report_"):
            return list(read_each(fields["statuses"], partial(self._report, fields)))
        raise Malformed("neither a message nor a report")

    def _report(self, fields: dict[str, Any], status: dict[str, Any]) -> MessageStatus:
        """The report of a recipient, or an entry in the report of a batch."""
        word, code = text_of(status, "status"), status.get("code")
        kind = self.statuses.get(word.lower())
        expired = code == _EXPIRED and kind is MessageError
        kind = MessageExpired if expired else kind
        report = self.report(word, id_of(fields, "batch_id"), code=code, kind=kind)
        reference = fields.get("client_reference")
        report.reference = reference if reference and isinstance(reference, str) else None
        report.rtime = time_of(fields.get("at")) or report.rtime
        hidden = ("type", "batch_id", "recipient", "client_reference", "statuses", "code", "status")
        report.meta = {k: v for k, v in fields.items() if k not in hidden}
        return report

    def _authenticate(self) -> None:
        """Raise Refused unless the running request has a valid secret or signature."""
        from flask import request

        if self.insecure or basic_matches(request.headers.get("Authorization"), self._users):
            return
        signature = request.headers.get(_SIGNATURE)
        nonce = request.headers.get(f"{_SIGNATURE}-Nonce", "")
        time = request.headers.get(f"{_SIGNATURE}-Timestamp", "")
        text = request.get_data() + f".{nonce}.{time}".encode()
        if not signed(signature, self._keys, lambda key: hmac_base64(key, text)):
            raise Refused("neither a valid user and password nor a valid signature")
        if not fresh(time, self._replay_window):
            raise Refused("the signature is too old, or from the future")
        register_signatures(str(signature), seconds=2 * self._replay_window, whole=True)


def _incoming(fields: dict[str, Any]) -> IncomingMessage:
    """An SMS. Of a binary one (Base64) the body is only its text; the rest is in ``meta``."""
    body = fields["body"]
    binary = fields["type"] != "mo_text"
    text = (body.get("message") or "" if isinstance(body, dict) else "") if binary else body
    if not isinstance(text, str):
        raise Malformed("the body is not a string")
    message = IncomingMessage(address_of(fields, "from"), text, id_of(fields), _to(fields))
    message.rtime = time_of(fields.get("received_at")) or message.rtime
    hidden = ("from", "to") if binary else ("from", "to", "body")
    message.meta = {k: v for k, v in fields.items() if k not in hidden}
    files = listed(body.get("media")) if isinstance(body, dict) else []
    message.media = media_of([(file.get("url"), file.get("content_type")) for file in files])
    return message


def _incoming_mms(fields: dict[str, Any]) -> IncomingMessage:
    """A postback of Sinch's MMS API (code N401), whose texts are files, too."""
    message = IncomingMessage(
        address_of(fields, "from", numeric=True),
        "",
        id_of(fields, "tracking-id"),
        _to(fields),
    )
    message.rtime = time_of(fields.get("timestamp")) or message.rtime
    message.meta = {
        k: v for k, v in fields.items() if k not in ("from", "to", "content", "copy-to")
    }
    others = (party.get("number") for party in listed(fields.get("copy-to")))
    message.meta |= recipients_of(fields.get("to"), *others)
    message.media = media_of([(part.get("file"), None) for part in listed(fields.get("content"))])
    return message


def _to(fields: dict[str, Any]) -> str | None:
    return address_of(fields, "to", numeric=True) if fields.get("to") else None


def _iso(time: datetime) -> str:
    utc = time.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
