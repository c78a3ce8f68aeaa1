"""Vianett, HTTP API V3 CPA.

Source: Vianett's documentation of its HTTP API (fields, the acknowledgement, code 100, incoming
messages and reports, in its current and its older version) and what public clients of it send and
take. A list of all its error codes is not published: see ``codes``.
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
from smsqueue.providers.capabilities import Can
from smsqueue.providers.checked import Malformed
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import address_of, form_fields, query_fields
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["VianettProvider"]

_OK = "200"
#: Longest acknowledgement that is parsed, in bytes.
_LONGEST = 4096
_SENDER_TYPES = {"number": "1", "short code": "2", "alphanumeric": "5"}


#: What parameters do not replace; the service reads names in any case.
_OURS = ("Tel", "destinationaddr", "to", "msgid", "refno", "username", "password", "nrq")


class VianettProvider(AccountProvider):
    """Sends and receives through Vianett.

    Vianett does not sign its webhooks: the secret prefix of their address is what tells them from
    others. It can add a user and a password, which ``secret`` asks for.

    Args:
        user: The account's name.
        password: Its password.
        secret: ``user:password`` that webhooks must show; without it they show nothing.
        charset: Of the request. What cannot be written in it is not sent. Vianett documents
            ISO-8859-1.
        numeric_ids: Make the message id a number, as Vianett wants it: then a report is found by
            that number. False: it is our reference, and a report is found even if the worker died
            before the answer came.
        use_prefix: Vianett cuts the first word off an incoming text. True leaves it in
            ``meta["prefix"]`` only; by default the text is put together again.
        reply_minutes: For how long a reply is taken, if the message allows replies; 0: leave it
            to the account.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    base_url = "https://smsc.vianett.no"
    capabilities = frozenset({Can.ALPHANUMERIC, Can.SCHEDULING, Can.REPORTS, Can.INBOUND})
    url_arguments = ("user", "password")
    authenticates = False
    codes: ClassVar = table((exc.AuthError, ["100"]))
    #: Of reports from the phone: the words of SMPP.
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
        users_of(self._secrets, "Vianett's webhooks")  # they are shown as fields, not as Basic
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
        msgid = _number(reference) if self._numeric_ids else reference
        # Several recipients would be separated by semicolons: parameters do not change these.
        form |= (
            beside(message.provider_params, *_OURS)
            | self._account
            | {"msgid": msgid, "Tel": message.dst}
        )
        message.msgid = msgid  # already: so its report is known even if the answer is lost
        try:
            body = urlencode(form, encoding=self._charset)
        except UnicodeEncodeError:  # its text is the message's
            raise exc.UnsupportedError(
                f"the text has characters that {self._charset} does not have",
                provider=self.name,
            ) from None
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.call("POST", "/V3/CPA/MT/MT.ashx", data=body, headers=headers)
        code = _code(answer)
        # 0 is success in older versions of the API, and nothing in this one.
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
        if _code(answer) in (_OK, "0"):  # it contradicts its HTTP status
            error.ambiguous = True
        return error

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        views = Blueprint("vianett", __name__)

        @views.route("/im", methods=["GET", "POST"])
        def im() -> ResponseReturnValue:
            told = self._told()
            words = [told["message"]] if self._use_prefix else [told.get("prefix"), told["message"]]
            message = IncomingMessage(
                address_of(told, "sourceaddr"),
                " ".join(word for word in words if word),
                told["refno"],
                address_of(told, "destinationaddr") if told.get("destinationaddr") else None,
            )
            names = ("prefix", "operator", "replypathid", "retrycount")
            message.meta = {name: told[name] for name in names if name in told}
            self._receive_message(message)
            return _taken(told["refno"])

        @views.route("/status", methods=["GET", "POST"])
        def status() -> ResponseReturnValue:
            told = self._told()
            report = self._report(told)
            report.reference = told["refno"] if "." in told["refno"] else None
            self._receive_status(report)
            return _taken(told["refno"])

        return views

    def _report(self, told: Mapping[str, str]) -> MessageStatus:
        if told["requesttype"] == "notificationstatus":
            report = self.report(told["Status"], told["refno"], code=told.get("StatusCode"))
            report.meta = {"description": told.get("StatusDescription")}
            return report
        if told["requesttype"] != "mtstatus":
            raise Malformed("neither kind of report")
        # From the operator, who has two dialects. That it took the message is all that it says.
        wide = "ErrorCode" in told
        code = told["ErrorCode"] if wide else told["errorcode"]
        pending = told.get("msgok", "true").lower() in ("true", "1", "-1")
        kind = MessageAccepted if pending else MessageStatus
        if code != (_OK if wide else "0"):
            kind = MessageError
        report = self.report("mtstatus", told["refno"], code=code, kind=kind)
        report.meta = {"description": told.get("ErrorDescription"), "status": told.get("Status")}
        return report

    def _told(self) -> Mapping[str, str]:
        """Fields of the running request; PermissionError if a secret is asked for and not shown."""
        from flask import request

        if request.method == "GET":
            query_fields(
                *request.args
            )  # for its errors: the fields may be in another character set
            raw = request.query_string
        else:
            form_fields(*request.form)
            raw = request.get_data()
        told = _Fields(_parsed(raw.decode("latin-1")))
        if self._secrets and not self.insecure:
            shown = f"{told.get('username', '')}:{told.get('password', '')}"
            if not any_equal(shown, self._secrets):
                raise Refused("the webhook shows no secret of Vianett's")
        return told


class _Fields(dict[str, str]):
    """What a webhook lacks makes it malformed."""

    def __missing__(self, name: str) -> str:
        raise Malformed(f"{name} is missing")


def _parsed(text: str) -> list[tuple[str, str]]:
    """Fields in UTF-8, else in the character set that Vianett documents."""
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return parse_qsl(text, keep_blank_values=True, encoding="latin-1")


def _ack(answer: Answer) -> Mapping[str, str]:
    """Attributes of the answer's ``ack``; none if it is nothing of that kind."""
    # As text: whatever the encoding, a DOCTYPE is seen here, and entities never get in.
    text = answer.body.decode("utf-8", "replace")
    if len(answer.body) > _LONGEST or "<!" in text:
        return {}
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  short, and without a DOCTYPE
    except (ElementTree.ParseError, ValueError):
        return {}
    return root.attrib if root.tag == "ack" else {}


def _code(answer: Answer) -> str | None:
    """The code in an acknowledgement, of success too."""
    return _ack(answer).get("errorcode", "").strip() or None


def _number(reference: str) -> str:
    """A number of 15 digits that stands for a reference."""
    found = int.from_bytes(hashlib.sha256(reference.encode()).digest()[:16])
    return str(10**14 + found % (9 * 10**14))


def _taken(refno: str) -> ResponseReturnValue:
    xml = f'<?xml version="1.0"?><ack refno={quoteattr(refno)} errorcode="0"/>'
    return xml, 200, {"Content-Type": "text/xml"}
