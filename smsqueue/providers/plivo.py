"""Plivo, Message API v1.

Source: Plivo's documentation (sending, callbacks, repetitions) and its Python SDK (signatures,
balance). Plivo's errors have no codes, so they are mapped by HTTP status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

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
from smsqueue.providers.account import AccountProvider, Balance, beside, table
from smsqueue.providers.authentic import Refused, Secrets, any_equal, hmac_base64
from smsqueue.providers.base.field_boundaries import check_field_boundaries
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import form_fields, numbered, query_fields
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue
    from werkzeug.datastructures import MultiDict

__all__ = ["PlivoProvider"]

_CREDIT = re.compile(r"(insufficient|not enough)\W.{0,20}(credit|balance|fund)", re.IGNORECASE)
_EXPIRED = "420"
#: A number, a short code or a sender id.
_ADDRESS = r"(\+?[0-9]{1,15}|(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9 _&.-]{1,11})"
#: Version 3 signs the names and values of a form as one text without separators, so another
#: division of that text has the same signature. So each field must have its documented form. The id
#: is a UUID; other ids are accepted unless they contain the name of another field.
_FORMS = {
    "MessageUUID": re.compile(
        "(?![0-9A-Za-z-]*(Text|To|Type|From|Body|Status|Units|Media|Price|MCC|MNC))[0-9A-Za-z-]{1,64}"
    ),
    "From": re.compile(r"(?!.*(MessageUUID|PowerpackUUID))" + _ADDRESS),
    "To": re.compile(r"(?!.*(Type[sm]ms|TotalAmount|TotalRate|Units[0-9]))" + _ADDRESS),
    "Type": re.compile("[a-z]{1,10}"),
    "Status": re.compile("[a-z][a-z_-]{0,39}"),
    "ErrorCode": re.compile("([0-9]{1,6})?"),
    "Units": re.compile("[0-9]{1,4}"),
}
_SWALLOWED = re.compile(r"(MessageUUID)[0-9A-Za-z]|(From|To)\+?[0-9]{3}|(Status|Type)[a-z]{3}")
#: Fields of webhooks that must not repeat.
_SINGLE = frozenset({"From", "To", "Text", "Body", "MessageUUID", "Status", "ErrorCode", "Type"})


#: Fields that message parameters cannot replace.
_RESERVED = ("dst", "to", "url", "method")


class PlivoProvider(AccountProvider):
    """Sends and receives through Plivo.

    Args:
        auth_id: ``MA...``, or ``SA...`` of a subaccount.
        auth_token: Its token. It signs webhooks; several while it rotates, or to also accept
            the signatures of a main account.
        powerpack: The UUID of a powerpack that picks the sender.
        v2: Accept webhooks that have only a signature of version 2, as Plivo documents for
            messages. It signs neither fields nor query: set False once yours have version 3.
        fields: More names of fields that your webhooks have.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://api.plivo.com"
    capabilities = frozenset(Can) - {Can.SCHEDULING, Can.LOOKUP, Can.DEDUPLICATION}
    url_arguments = ("auth_id", "auth_token")
    ids: ClassVar = _FORMS["MessageUUID"]
    opt_out_codes = frozenset({"200"})
    #: By names of ours, see :meth:`error_code`.
    codes: ClassVar = table(
        (exc.CreditError, ["credit"]),
        (exc.UnsupportedError, ["forbidden"]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["queued", "sent"]),
        (MessageDelivered, ["delivered", "read"]),
        (MessageError, ["undelivered", "failed", "rejected"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        auth_id: str,
        auth_token: Secrets,
        powerpack: str | None = None,
        v2: bool = True,
        fields: Sequence[str] = (),
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=auth_token, **config)
        if not self._secrets:
            raise SettingsError(f"the provider {name!r} (Plivo) needs auth_token=... to send")
        self._account = f"/v1/Account/{auth_id}/"
        self._auth = (auth_id, self._secrets[0])
        self._powerpack = powerpack
        self._v2 = v2
        self._more = frozenset(fields)
        self._seals = self._secrets  # version 2 does not sign the query

    def submit(self, message: OutgoingMessage) -> None:
        body: dict[str, Any] = {"dst": message.dst, "text": message.body, "type": "sms"}
        source = self.sender_of(message)
        if source:
            is_alphanumeric = sender_kind(source) == "alphanumeric"  # Plivo strips other characters
            body["src"] = source if is_alphanumeric else sender(source, plus=False)
        elif self._powerpack:
            body["powerpack_uuid"] = self._powerpack
        callback = self.callback_url("status", message)
        if callback and message.provider_options.status_report:
            body |= {"url": callback, "method": "POST"}
        validity = self.validity_of(message, 5, 10799)
        if validity is not None:
            body["message_expiry"] = validity
        answer = self.call(
            "POST",
            f"{self._account}Message/",
            auth=self._auth,
            json=body | beside(message.provider_params, *_RESERVED),
        )
        uuid = answer.get("message_uuid")
        if uuid in ([], "") or (uuid is None and answer.get("error") is not None):
            raise self.refusal(answer)
        uuid = answer.require("message_uuid")
        message.msgid = answer.require("message_uuid", 0) if isinstance(uuid, list) else uuid
        message.meta = {"api_id": answer.get("api_id")}

    def error_code(self, answer: Answer) -> str | None:
        """A name of ours for what the status does not say. 403: a country that is not enabled."""
        text = answer.get("error")
        if text is None or not _is_plivo_error(answer):
            return None
        if _CREDIT.search(json.dumps(text)):
            return "credit"
        return "forbidden" if answer.status == 403 else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        # Its errors have no codes. Plivo's 500 may follow a send, its 503 is a refusal.
        if answer.status == 503 and _is_plivo_error(answer):
            error.ambiguous = False
        return error

    def balance(self) -> Balance:
        answer = self.call("GET", self._account, safe=True, auth=self._auth)
        return Balance(answer.amount("cash_credits"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret(name="auth_token")
        views = Blueprint("plivo", __name__)

        @views.route("/im", methods=["GET", "POST"])
        def im() -> ResponseReturnValue:
            fields = self._verified_fields()
            text = fields.get("Text") or fields.get("Body", "")  # of an SMS, and of an MMS
            message = IncomingMessage(fields["From"], text, fields["MessageUUID"], fields["To"])
            hidden = ("From", "Text", "Body", "To")
            message.meta = {k: v for k, v in fields.items() if k not in hidden}
            message.media = media_of([(url, None) for _, url in numbered(fields, "Media")])
            self._receive_message(message)
            return "", 200

        @views.route("/status", methods=["GET", "POST"])
        def status() -> ResponseReturnValue:
            fields = self._verified_fields()
            word, code = fields["Status"], fields.get("ErrorCode") or None
            expired = code == _EXPIRED and self.statuses.get(word) is MessageError
            report = self.report(
                word, fields["MessageUUID"], code=code, kind=MessageExpired if expired else None
            )
            hidden = ("From", "To", "Status", "ErrorCode", "MessageUUID", "ref")
            report.meta = {k: v for k, v in fields.items() if k not in hidden}
            report.reference = self.seen_reference()
            self._receive_status(report)
            return "", 200

        return views

    def _verified_fields(self) -> MultiDict[str, str]:
        """The fields of the running request; Refused unless Plivo signed it."""
        from flask import request

        if not self.insecure:
            self._authenticate()
        if request.method == "GET":
            return self._check_fields(query_fields(*request.args.keys() - _SINGLE))
        if {"From", "MessageUUID"} & request.args.keys():
            # Version 3 signs "?query.form" as one text: no field may move from one to the other.
            raise Malformed("a POST request has fields of the webhook in its query")
        return self._check_fields(form_fields(*request.form.keys() - _SINGLE))

    def _check_fields(self, fields: MultiDict[str, str]) -> MultiDict[str, str]:
        """The fields; Malformed if Plivo would not have signed them as these fields."""
        # The query of a GET request also has our reference.
        theirs = {name: value for name, value in fields.items() if name != "ref"}
        check_field_boundaries(
            theirs,
            known=_KNOWN | self._more,
            numbered=("Media",),
            optional=("Text", "Body", "ErrorCode"),
            texts=("Text", "Body"),
            words=("From", "To"),
        )
        return _check_forms(fields)

    def _authenticate(self) -> None:
        """Raise Refused unless Plivo signed the running request."""
        from flask import request

        url = urlsplit(self.seen_url())._replace(query="", fragment="").geturl()
        version = 3 if _signatures(3) else 2
        if version == 2 and not self._v2:
            raise Refused("there is no signature of version 3, and v2=False")
        nonce = request.headers.get(f"X-Plivo-Signature-V{version}-Nonce", "")
        if version == 2 and not nonce:
            raise Refused("a signature of version 2 has no nonce")
        if version == 3:
            query = "&".join(_sorted_pairs(request.args, "="))
            form = "".join(_sorted_pairs(request.form, "")) if request.method == "POST" else ""
            if query or form:
                url += f"?{query}{'.' if query and form else ''}{form}"
            nonce = f".{nonce}"
        expected = [hmac_base64(secret, (url + nonce).encode()) for secret in self._secrets]
        valid = [sig for sig in _signatures(version) if any_equal(sig, expected)]
        if not valid:
            raise Refused("the signature is not by Plivo")
        # Version 2 signs only URL and nonce. So the nonce counts as used even with a signature of
        # version 3, which an attacker could remove.
        register_signatures(*valid[:1], request.headers.get("X-Plivo-Signature-V2-Nonce", ""))


#: Documented names of fields in webhooks of messages. There may be more.
_KNOWN = frozenset(
    {
        *("Body", "ContextMessageUUID", "DLT", "DeliveryReportTime", "DestinationCountryISO2"),
        *("ErrorCode", "From", "MCC", "MNC", "Media", "MediaCount", "MessageState", "MessageUUID"),
        *("MessageTime", "ParentMessageUUID", "PartInfo", "PowerpackID", "PowerpackUUID"),
        *("QueuedTime", "SentTime", "Sequence", "Status", "TendlcCampaignID"),
        *("TendlcRegistrationStatus", "Text", "To", "TotalAmount", "TotalRate", "Type", "Units"),
    }
)


def _check_forms(fields: MultiDict[str, str]) -> MultiDict[str, str]:
    """The fields; Malformed if one does not have the form that Plivo documents."""
    for name, value in fields.items(multi=True):
        form = _FORMS.get(name)
        if form is not None and not form.fullmatch(value):
            raise Malformed(f"{name} does not have Plivo's form")
        if name not in ("Text", "Body") and _SWALLOWED.search(value):
            raise Malformed("the value of a field contains another field")
    return fields


def _signatures(version: int) -> list[str]:
    """The signatures of the running request: by the account's token, and by its main account's."""
    from flask import request

    names = (f"X-Plivo-Signature-V{version}", f"X-Plivo-Signature-Ma-V{version}")
    joined = ",".join(request.headers.get(name, "") for name in names)
    return [part for part in (part.strip() for part in joined.split(",")) if part]


def _sorted_pairs(fields: MultiDict[str, str], separator: str) -> list[str]:
    """Names and values in the order in which they are signed: by name, then by value."""
    lists = dict(fields.lists())
    return [f"{name}{separator}{value}" for name in sorted(lists) for value in sorted(lists[name])]


def _is_plivo_error(answer: Answer) -> bool:
    """Is it an error of Plivo? A gateway's has no ``api_id``."""
    return answer.get("error") is not None and isinstance(answer.get("api_id"), str)
