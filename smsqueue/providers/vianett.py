"""Vianett, HTTP API V3 CPA.

Source: Vianett's documentation of its HTTP API (fields, the acknowledgement, code 100, incoming
messages and reports, in its current and its older version) and public clients of it. Other error
codes are not published: see ``codes``.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from smsqueue import exc
from smsqueue.message.ids import new_id
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import sender, sender_kind
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.account import AccountProvider, beside, table
from smsqueue.providers.authentic import Refused, any_equal, users_of
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import address_of, form_fields, query_fields
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["VianettProvider"]

_OK = "200"
#: Longest acknowledgement that is parsed, in bytes.
_MAX_ACK = 4096
_SENDER_TYPES = {"number": "1", "short code": "2", "alphanumeric": "5"}


#: Fields that message parameters cannot replace; their names are case-insensitive.
_RESERVED = ("Tel", "destinationaddr", "to", "msgid", "refno", "username", "password", "nrq")


class VianettProvider(AccountProvider):
    """Sends and receives through Vianett.

    Vianett does not sign its webhooks: the secret URL prefix is the only protection, unless Vianett
    adds a user and a password, see ``secret``.

    Args:
        user: The account's name.
        password: Its password.
        secret: ``user:password`` that webhooks must have; by default they are not authenticated.
        charset: Encoding of the request; other characters are refused. Vianett documents
            ISO-8859-1.
        numeric_ids: Make the message id a number, as Vianett documents it; reports are matched by
            that number. False: it is our reference, and a report is matched even if the worker
            died before the response.
        use_prefix: Vianett splits off the first word of an incoming text. True leaves it in
            ``meta["prefix"]`` only; by default the body is the whole text.
        reply_minutes: Minutes for which a reply is accepted, if the message allows replies; 0: the
            account's default.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://smsc.vianett.no"
    capabilities = frozenset({Can.ALPHANUMERIC, Can.SCHEDULING, Can.REPORTS, Can.INBOUND})
    url_arguments = ("user", "password")
    authenticates = False
    codes: ClassVar = table((exc.AuthError, ["100"]))
    #: Statuses of reports from the phone, as in SMPP.
    statuses: ClassVar = table(
        (MessageStatus, ["UNKNOWN"]),
        (MessageAccepted, ["ACCEPTD", "BUFFERD", "ENROUTE"]),
        (MessageDelivered, ["DELIVRD"]),
        (MessageExpired, ["EXPIRED"]),
        (MessageError, ["UNDELIV", "REJECTD", "DELETED"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        user: str,
        password: str,
        charset: str = "iso-8859-1",
        numeric_ids: bool = True,
        use_prefix: bool = False,
        reply_minutes: int = 1440,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, **config)
        users_of(self._secrets, "Vianett's webhooks")  # only validates them
        try:
            codecs.lookup(charset)
        except LookupError:
            raise SettingsError("Vianett's charset must be like iso-8859-1 or utf-8") from None
        self._account = {"username": user, "password": password}
        self._charset, self._numeric_ids = charset, numeric_ids
        self._use_prefix, self._reply_minutes = use_prefix, reply_minutes

    def submit(self, message: OutgoingMessage) -> None:
        options, form = message.provider_options, {"msg": message.body}
        source = self.sender_of(message)
        kind = sender_kind(source)
        if source:
            form["SenderAddress"] = source if kind == "alphanumeric" else sender(source, plus=False)
            form["SenderAddressType"] = _SENDER_TYPES[kind or "number"]
        form |= {"Priority": "1"} if options.escalate else {}
        form |= {"nrq": "1"} if options.status_report else {}
        if options.allow_reply and self._reply_minutes:
            form["ReplyPathValue"] = str(self._reply_minutes)
        reference = message.reference or new_id()
        msgid = _numeric_id(reference) if self._numeric_ids else reference
        # Parameters do not replace these: semicolons would separate several recipients.
        form |= (
            beside(message.provider_params, *_RESERVED)
            | self._account
            | {"msgid": msgid, "Tel": message.dst}
        )
        message.msgid = msgid  # now, so that reports match even if the response is lost
        try:
            body = urlencode(form, encoding=self._charset)
        except UnicodeEncodeError:  # it quotes the message
            raise exc.UnsupportedError(
                f"the text has characters that {self._charset} does not have",
                provider=self.name,
            ) from None
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.call("POST", "/V3/CPA/MT/MT.ashx", data=body, headers=headers)
        code = _code(answer)
        # 0 means success in older versions of the API, and is undefined in this one.
        if code in (None, "0"):
            raise exc.ServerError(
                "the provider's acknowledgement cannot be read",
                provider=self.name,
                http_status=answer.status,
                ambiguous=True,
            )
        if code != _OK:
            raise self.refusal(answer)
        message.msgid = _ack(answer).get("refno") or msgid

    def error_code(self, answer: Answer) -> str | None:
        code = _code(answer)
        return None if code in (_OK, "0") else code

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        if _code(answer) in (_OK, "0"):  # contradicts the HTTP status
            error.ambiguous = True
        return error

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        views = Blueprint("vianett", __name__)

        @views.route("/im", methods=["GET", "POST"])
        def im() -> ResponseReturnValue:
            fields = self._read_fields()
            words = (
                [fields["message"]]
                if self._use_prefix
                else [fields.get("prefix"), fields["message"]]
            )
            message = IncomingMessage(
                address_of(fields, "sourceaddr"),
                " ".join(word for word in words if word),
                fields["refno"],
                address_of(fields, "destinationaddr") if fields.get("destinationaddr") else None,
            )
            names = ("prefix", "operator", "replypathid", "retrycount")
            message.meta = {name: fields[name] for name in names if name in fields}
            self._receive_message(message)
            return _acknowledge(fields["refno"])

        @views.route("/status", methods=["GET", "POST"])
        def status() -> ResponseReturnValue:
            fields = self._read_fields()
            report = self._report(fields)
            report.reference = fields["refno"] if "." in fields["refno"] else None
            self._receive_status(report)
            return _acknowledge(fields["refno"])

        return views

    def _report(self, fields: Mapping[str, str]) -> MessageStatus:
        if fields["requesttype"] == "notificationstatus":
            report = self.report(fields["Status"], fields["refno"], code=fields.get("StatusCode"))
            report.meta = {"description": fields.get("StatusDescription")}
            return report
        if fields["requesttype"] != "mtstatus":
            raise Malformed("neither kind of report")
        # From the operator, in two dialects: it only says that the operator accepted the message.
        is_current = "ErrorCode" in fields
        code = fields["ErrorCode"] if is_current else fields["errorcode"]
        pending = fields.get("msgok", "true").lower() in ("true", "1", "-1")
        kind = MessageAccepted if pending else MessageStatus
        if code != (_OK if is_current else "0"):
            kind = MessageError
        report = self.report("mtstatus", fields["refno"], code=code, kind=kind)
        report.meta = {
            "description": fields.get("ErrorDescription"),
            "status": fields.get("Status"),
        }
        return report

    def _read_fields(self) -> Mapping[str, str]:
        """Fields of the running request; Refused without the user and password in ``secret``."""
        from flask import request

        if request.method == "GET":
            # For its errors only: the fields may have another character set.
            query_fields(*request.args)
            raw = request.query_string
        else:
            form_fields(*request.form)
            raw = request.get_data()
        fields = _Fields(_parse_fields(raw.decode("latin-1")))
        if self._secrets and not self.insecure:
            credentials = f"{fields.get('username', '')}:{fields.get('password', '')}"
            if not any_equal(credentials, self._secrets):
                raise Refused("the webhook does not have the user and password")
        return fields


class _Fields(dict[str, str]):
    """A missing field raises Malformed."""

    def __missing__(self, name: str) -> str:
        raise Malformed(f"{name} is missing")


def _parse_fields(text: str) -> list[tuple[str, str]]:
    """Decode fields as UTF-8, or as the documented ISO-8859-1 if they are not UTF-8."""
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return parse_qsl(text, keep_blank_values=True, encoding="latin-1")


def _ack(answer: Answer) -> Mapping[str, str]:
    """Attributes of the response's ``ack`` element; {} if there is none."""
    # Decoded here, so that a DOCTYPE is detected in every encoding, and entities are never parsed.
    text = answer.body.decode("utf-8", "replace")
    if len(answer.body) > _MAX_ACK or "<!" in text:
        return {}
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  short, and without a DOCTYPE
    except (ElementTree.ParseError, ValueError):
        return {}
    return root.attrib if root.tag == "ack" else {}


def _code(answer: Answer) -> str | None:
    """The code in an acknowledgement, including the one of success."""
    return _ack(answer).get("errorcode", "").strip() or None


def _numeric_id(reference: str) -> str:
    """A number of 15 digits, derived from a reference."""
    value = int.from_bytes(hashlib.sha256(reference.encode()).digest()[:16])
    return str(10**14 + value % (9 * 10**14))


def _acknowledge(refno: str) -> ResponseReturnValue:
    """The response that Vianett expects."""
    xml = f'<?xml version="1.0"?><ack refno={quoteattr(refno)} errorcode="0"/>'
    return xml, 200, {"Content-Type": "text/xml"}
