"""Twilio, Programmable Messaging, API version 2010-04-01.

Source: Twilio's OpenAPI description and documentation, and its Python SDK for the signature.
Twilio says that its error codes may change, so the table only refines the HTTP status.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import recipient, sender
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
)
from smsqueue.providers.account import AccountProvider, Balance, beside, form_value, table
from smsqueue.providers.authentic import (
    Refused,
    Secrets,
    any_equal,
    equal,
    hmac_base64,
    secrets_of,
    sha256_hex,
)
from smsqueue.providers.base.field_boundaries import check_field_boundaries
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import form_fields, numbered, query_fields, recipients_of

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue
    from werkzeug.datastructures import MultiDict

__all__ = ["TwilioProvider", "signature"]

#: Error code: the validity of the message ended in Twilio's queue.
_EXPIRED = "30036"
#: Fields that message parameters cannot replace. The application has a URL for reports, too.
_RESERVED = ("To", "StatusCallback", "StatusCallbackMethod", "StatusCallbackUrl", "ApplicationSid")
#: Digests by the algorithm that a webhook names.
_DIGESTS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
_PORTS = {"https": ":443", "http": ":80"}
#: Fields that are not copied to ``meta``.
_NOT_META = {"From", "To", "Body", "MessageSid", "MessageStatus", "ErrorCode", "AccountSid"}


#: Names and values are signed as one text without separators, so another division of that text has
#: the same signature. So each field must have the form that Twilio documents.
_OTHERS = "(From|To)(City|Country|State|Zip)|MediaUrl|MessageSid|AccountSid|SmsSid|ApiVersion"
#: A number in E.164 or a short code, a sender id, or an address of another channel, such as
#: ``whatsapp:+15551234567``.
_ADDRESS = re.compile(
    rf"(?!.*({_OTHERS}))(\+?[0-9]{{2,15}}|(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9 +_&.-]{{1,11}}|"
    r"[a-z]{2,20}:\+?[A-Za-z0-9][A-Za-z0-9._@-]{0,99})"
)
_FORMS = {
    "MessageSid": re.compile("(SM|MM)[0-9a-fA-F]{32}"),
    "SmsSid": re.compile("(SM|MM)[0-9a-fA-F]{32}"),
    "SmsMessageSid": re.compile("(SM|MM)[0-9a-fA-F]{32}"),
    "MessagingServiceSid": re.compile("MG[0-9a-fA-F]{32}"),
    "ApiVersion": re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "NumMedia": re.compile("[0-9]{1,2}"),
    "NumSegments": re.compile("[0-9]{1,3}"),
    "MessageStatus": re.compile("[a-z][a-z_-]{0,39}"),
    "SmsStatus": re.compile("[a-z][a-z_-]{0,39}"),
    "ErrorCode": re.compile("([0-9]{1,6})?"),
    "From": _ADDRESS,
    "To": _ADDRESS,
}
#: A name with the beginning of its value, within another value: the boundary was moved. Only free
#: texts may contain that.
_SWALLOWED = re.compile(
    "(AccountSid)AC|(MessageSid|SmsSid)(SM|MM)|(ApiVersion|NumMedia|NumSegments|ErrorCode)[0-9]|"
    r"(From|To)(\+|[a-z]{2,20}:\+?)?[0-9]{3}|(MediaUrl)[0-9]|(MessageStatus|SmsStatus)[a-z]"
)
_FREE_TEXTS = frozenset({"Body", "ProfileName", "ButtonText", "ButtonPayload", "Payload"})
_NAME = re.compile("[A-Za-z][A-Za-z0-9_.-]{0,60}")


class TwilioProvider(AccountProvider):
    """Sends and receives through Twilio.

    Args:
        account_sid: ``AC...``.
        auth_token: The account's token. Webhooks are signed with it; several while it rotates.
        shared_key: The key with which a webhook rule of the account signs instead; several while
            it rotates.
        api_key: ``(SK..., its secret)`` to send with in place of the token.
        service: ``MG...``, a messaging service that picks the sender.
        repeat: When Twilio repeats a report that was not accepted: the part after the ``#`` of
            its URL. Empty: Twilio's default, which hardly repeats.
        subaccounts: ``AC...`` of other accounts whose webhooks are accepted if they are signed
            with one of our tokens.
        fields: More names of fields that your webhooks have.
        config: Arguments of :class:`~smsqueue.providers.account.AccountProvider`.
    """

    base_url = "https://api.twilio.com"
    capabilities = frozenset(Can) - {Can.LOOKUP, Can.DEDUPLICATION}
    url_arguments = ("account_sid", "auth_token")
    ids: ClassVar = _FORMS["MessageSid"]
    opt_out_codes = frozenset({"21610"})
    codes: ClassVar = table(
        (exc.AuthError, [20003, 20006, 20008, 20403, *range(20101, 20108), 10002]),
        (exc.CreditError, [10001, 20005]),
        (exc.LimitsError, [20429, 14107, 21611, 63018, 63038, 35125]),
        (exc.ServerError, [20500, 20501, 20503, 20504]),
        (exc.UnsupportedError, [21407, 21408, 21612, 21621, 21622, 21703, 21704, 30011]),
        # The recipient
        (exc.RequestError, [21211, 21214, 21217, 21219, 21265, 21266, 21604, 21608]),
        (exc.OptedOut, [21610]),
        (exc.RequestError, [21614, 21635]),
        # The sender
        (exc.RequestError, [21212, 21603, 21606, 21616, 21659, 21660, 21701, 21705, 21709]),
        # The content and the parameters
        (exc.RequestError, [20001, 20404, 20422, 21601, 21602, 21605, 21609, 21617, 21618]),
        (exc.RequestError, [21619, 21620, 21623, 21624, 21656, 35111, 35114, 35118]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["accepted", "scheduled", "queued", "sending", "sent"]),
        (MessageAccepted, ["partially_delivered"]),
        (MessageDelivered, ["delivered", "read"]),
        (MessageError, ["undelivered", "failed", "canceled"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        account_sid: str,
        auth_token: Secrets = None,
        shared_key: Secrets = None,
        api_key: tuple[str, str] | None = None,
        service: str | None = None,
        repeat: str = "rc=3&rp=all",
        subaccounts: Secrets = None,
        fields: Sequence[str] = (),
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, secret=auth_token, **config)
        self._accounts = (account_sid, *secrets_of(subaccounts))
        self._account = f"/2010-04-01/Accounts/{account_sid}"
        if not (api_key or self._secrets):
            raise ValueError("Twilio needs an auth_token, or an api_key with its secret, to send")
        self._auth = api_key or (account_sid, self._secrets[0])
        self._shared = secrets_of(shared_key)
        self._service = service
        self._more = frozenset(fields)
        self._repeat = f"#{repeat}" if repeat else ""

    def submit(self, message: OutgoingMessage) -> None:
        form: dict[str, Any] = {"Body": message.body}
        src = self.sender_of(message)
        if src:
            form["From"] = sender(src, plus=True, also=" +-_&")
        elif self._service:
            form["MessagingServiceSid"] = self._service
        elif not {"From", "MessagingServiceSid"} & message.provider_params.keys():
            self.need_sender(message)
        callback = self.callback_url("status", message)
        if callback and message.provider_options.status_report:
            form["StatusCallback"] = callback + self._repeat
        validity = self.validity_of(message, 1, 36000)
        if validity is not None:
            form["ValidityPeriod"] = str(validity)
        for name, value in beside(message.provider_params, *_RESERVED).items():
            several = value if isinstance(value, list) else [value]
            form[name] = [form_value(item) for item in several if item is not None]
        form["To"] = recipient(message.dst)
        answer = self.call("POST", f"{self._account}/Messages.json", auth=self._auth, data=form)
        status = answer.get("status")
        ended = isinstance(status, str) and self.statuses.get(status) is MessageError
        if ended or (not answer.get("sid") and self.error_code(answer)):
            code = answer.get("error_code")  # no report follows
            raise self.refusal(answer, code if isinstance(code, int) else None)
        message.msgid = answer.require("sid")
        message.meta = {
            name: answer.get(name) for name in ("status", "num_segments", "price", "price_unit")
        }

    def error_code(self, answer: Answer) -> int | None:
        code = answer.get("code")
        # Five digits. Gateways write an HTTP or gRPC status into a "code", too.
        return code if isinstance(code, int) and 10000 <= code <= 99999 else None

    def balance(self) -> Balance:
        answer = self.call("GET", f"{self._account}/Balance.json", safe=True, auth=self._auth)
        return Balance(answer.amount("balance"), answer.get("currency"))

    def make_receiver_blueprint(self) -> Blueprint:
        from flask import Blueprint

        self.need_secret(*self._shared, name="auth_token")
        views = Blueprint("twilio", __name__)

        @views.route("/im", methods=["GET", "POST"])
        def im() -> ResponseReturnValue:
            fields = self._verified_fields("From", "To", "MessageSid")
            if fields.get("MessageStatus", "received") not in ("received", "receiving"):
                raise Malformed("a report at the URL of incoming messages")
            message = IncomingMessage(
                fields["From"],
                fields.get("Body", ""),
                fields["MessageSid"],
                fields["To"],
                meta=_meta(fields),
            )
            others = (number for _, number in numbered(fields, "OtherRecipients"))
            message.meta |= recipients_of(fields["To"], *others)
            urls = numbered(fields, "MediaUrl")
            message.media = media_of([(url, fields.get(f"MediaContentType{n}")) for n, url in urls])
            channel, separator, _ = fields["From"].partition(":")
            message.channel = channel if separator else None
            self._receive_message(message)
            return "<Response/>", 200, {"Content-Type": "text/xml"}

        @views.post("/status")
        def status() -> ResponseReturnValue:
            fields = self._verified_fields("MessageSid", "MessageStatus")
            word, code = fields["MessageStatus"], fields.get("ErrorCode")
            if word in ("receiving", "received"):
                return "", 204  # an incoming message, which is posted to /im
            expired = code == _EXPIRED and self.statuses.get(word) is MessageError
            kind = MessageExpired if expired else None
            report = self.report(word, fields["MessageSid"], code=code, kind=kind)
            report.reference = self.seen_reference()
            report.meta = _meta(fields)
            self._receive_status(report)
            return "", 204

        return views

    def _verified_fields(self, *needed: str) -> MultiDict[str, str]:
        """The fields of the running request; Refused unless Twilio signed it."""
        from flask import request

        self._authenticate()
        # The order of values of one name is not signed, so fields that we read must not repeat.
        if request.method == "GET":
            fields = query_fields(*request.args.keys() - _NOT_META)
        elif "AccountSid" in request.query_string.decode("latin-1"):
            # URL and form are signed as one text, in which the form begins with this name.
            raise Malformed("a POST request has fields of the form in its query")
        else:
            fields = form_fields(*request.form.keys() - _NOT_META)
            check_field_boundaries(
                fields,
                known=_KNOWN | self._more,
                numbered=("MediaContentType", "MediaUrl", "OtherRecipients"),
                optional=("Body", "ErrorCode"),
                texts=_FREE_TEXTS,
                words=("From", "To"),
            )
        if not all(fields.get(name) for name in (*needed, "AccountSid")):
            raise Malformed(f"a field is missing: one of {', '.join(needed)}, AccountSid")
        _check_forms(fields)
        if fields["AccountSid"] not in self._accounts:
            raise Refused("it names another account")
        return fields

    def _authenticate(self) -> None:
        """Raise Refused unless Twilio signed the running request."""
        from flask import request

        if self.insecure:
            return
        secrets, digest = self._signing(request.headers.get("X-Twilio-Webhooks-Signature-Settings"))
        body_hash = request.args.get("bodySHA256")
        if body_hash is not None and not equal(body_hash, sha256_hex(request.get_data())):
            raise Refused("the body does not match bodySHA256")
        signs_form = body_hash is None and request.method == "POST"
        form = request.form.to_dict(flat=False) if signs_form else {}
        urls = _urls_with_and_without_port(self.seen_url())
        expected = [signature(url, form, key, digest) for key in secrets for url in urls]
        if not any_equal(request.headers.get("X-Twilio-Signature"), expected):
            raise Refused("the signature is not by Twilio")
        register_signatures(request.headers["X-Twilio-Signature"])

    def _signing(self, settings: str | None) -> tuple[tuple[str, ...], str]:
        """The keys and the digest of a webhook's signature.

        Args:
            settings: The header, if the webhook is not signed with the token:
                ``key=...,algorithm=HMAC_SHA256``.
        """
        if not settings:
            return self._secrets, "sha1"
        named = dict(part.strip().partition("=")[::2] for part in settings.split(","))
        digest = _DIGESTS.get(named.get("algorithm", "HMAC_SHA1").upper())
        if digest is None:
            raise Refused("the webhook is signed with an unknown algorithm")
        return self._shared, digest


def signature(url: str, form: Mapping[str, Iterable[str]], key: str, digest: str = "sha1") -> str:
    """The value of X-Twilio-Signature.

    Args:
        url: With its query, as it was called.
        form: Values by field; empty if the body is not a form.
    """
    pairs = [name + value for name in sorted(form) for value in sorted(set(form[name]))]
    return hmac_base64(key, (url + "".join(pairs)).encode(), digest)


def _urls_with_and_without_port(url: str) -> list[str]:
    """The URLs that Twilio may have signed: with its port, even the default one, or without."""
    match = re.fullmatch(r"(https?)://([^/?#]*?)(:\d+)?([/?#].*)?", url)
    if match is None:
        return [url]
    scheme, host, port, rest = match.groups("")
    return [f"{scheme}://{host}{suffix}{rest}" for suffix in ("", port or _PORTS[scheme])]


#: Documented names of fields in webhooks of messages. There may be more.
_KNOWN = frozenset(
    {
        *("AccountSid", "Address", "ApiVersion", "Body", "ButtonPayload", "ButtonText"),
        *("ButtonType", "ChannelInstallSid", "ChannelMetadata", "ChannelPrefix"),
        *("ChannelStatusMessage", "ChannelToAddress", "Direction", "ErrorCode", "ErrorMessage"),
        *("EventType", "ExternalUserId", "Forwarded", "FrequentlyForwarded", "From", "FromCity"),
        *("FromCountry", "FromState", "FromZip", "Label", "Latitude", "Longitude"),
        *("MediaContentType", "MediaUrl", "MessageSid", "MessageStatus", "MessageType"),
        *("MessagingServiceSid", "NumMedia", "NumSegments", "OptOutType"),
        *("OriginalRepliedMessageSender", "OriginalRepliedMessageSid", "OtherRecipients"),
        *("Payload", "Price", "PriceUnit", "ProfileName", "RawDlrDoneDate", "ReferralBody"),
        *("ReferralHeadline", "ReferralMediaContentType", "ReferralMediaUrl", "ReferralNumMedia"),
        *("ReferralSourceId", "ReferralSourceType", "ReferralSourceUrl", "ReferralCtwaClid"),
        *("SmsMessageSid", "SmsSid", "SmsStatus", "StructuredMessage", "To", "ToCity"),
        *("ToCountry", "ToState", "ToZip", "WaId"),
    }
)


def _check_forms(fields: MultiDict[str, str]) -> None:
    """Raise Malformed for a field without the form that Twilio documents."""
    for name, value in fields.items(multi=True):
        if not _NAME.fullmatch(name) or _SWALLOWED.search(name, 1):
            raise Malformed("the name of a field is not one of Twilio's")
        form = _ADDRESS if name.startswith("OtherRecipients") else _FORMS.get(name)
        if form is not None and not form.fullmatch(value):
            raise Malformed(f"{name} does not have Twilio's form")
        if name not in _FREE_TEXTS and _SWALLOWED.search(value):
            raise Malformed("the value of a field contains another field")
    # If the town's name became the sender, the text may contain the number.
    town = re.match("City|Country|State|Zip", fields.get("From", ""))
    if town and _ENDS_IN_SENDER.search(fields.get("Body", "")):
        raise Malformed("the text contains the sender")


_ENDS_IN_SENDER = re.compile(r"From(\+|[a-z]{2,20}:\+?)?[0-9]{3,15}\Z")


def _meta(fields: MultiDict[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in _NOT_META}
