"""Amazon SNS: Publish to a phone number.

Source: the service model in botocore (fields, errors), and the developer guide (attributes). SNS
reports delivery in CloudWatch logs only, and stores no reference of ours.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import urlencode

from smsqueue import exc
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.numbers import recipient, sender_kind
from smsqueue.message.numbers import sender as written
from smsqueue.providers.account import table
from smsqueue.providers.aws import AUTH_ERRORS, LIMIT_ERRORS, AwsProvider
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer

__all__ = ["AwsSnsProvider"]


class AwsSnsProvider(AwsProvider):
    """Sends through Amazon SNS; cannot receive.

    A message's parameters become its attributes:
    ``message.params(**{"AWS.SNS.SMS.MaxPrice": 0.5})``.

    Args:
        message_type: "Transactional" or "Promotional".
        config: Arguments of :class:`~smsqueue.providers.aws.AwsProvider`.
    """

    service = "sns"
    capabilities = frozenset({Can.ALPHANUMERIC})
    codes: ClassVar = table(
        (exc.AuthError, AUTH_ERRORS),
        (exc.AuthError, ["AuthorizationError", "InvalidSecurity"]),
        (exc.AuthError, ["KMSAccessDenied", "KMSDisabled", "KMSInvalidState", "KMSNotFound"]),
        (exc.AuthError, ["KMSOptInRequired"]),
        (exc.LimitsError, LIMIT_ERRORS),
        (exc.LimitsError, ["KMSThrottling"]),
        (exc.ServerError, ["InternalError", "InternalFailure", "ServiceUnavailable"]),
        (exc.RequestError, ["InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid"]),
        (exc.RequestError, ["ValidationError", "ValidationException", "NotFound"]),
        (exc.OptedOut, ["OptedOut"]),
        (exc.RequestError, ["EndpointDisabled", "PlatformApplicationDisabled", "UserError"]),
    )

    def __init__(
        self, gateway: Any, name: str, *, message_type: str = "Transactional", **config: Any
    ) -> None:
        super().__init__(gateway, name, **config)
        self._message_type = message_type

    def submit(self, message: OutgoingMessage) -> None:
        form = {
            "Action": "Publish",
            "Version": "2010-03-31",
            "PhoneNumber": recipient(message.dst),
            "Message": message.body,
        }
        attributes: dict[str, Any] = {"AWS.SNS.SMS.SMSType": self._message_type}
        sender = self.sender_of(message)
        if sender:
            if sender_kind(sender) in ("number", "short code"):
                attributes["AWS.MM.SMS.OriginationNumber"] = written(sender, plus=True)
            else:
                attributes["AWS.SNS.SMS.SenderID"] = sender
        for n, (name, value) in enumerate((attributes | message.provider_params).items(), 1):
            entry = f"MessageAttributes.entry.{n}"
            form[f"{entry}.Name"] = name
            form[f"{entry}.Value.DataType"] = "String" if isinstance(value, str) else "Number"
            form[f"{entry}.Value.StringValue"] = str(value)
        kind = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        answer = self.signed_call(urlencode(form), kind)
        message.msgid = _element(answer, "MessageId")
        if not message.msgid and self.error_code(answer):
            raise self.refusal(answer)
        if not message.msgid:
            raise exc.ServerError(
                f"SNS answered {answer.status} without a MessageId",
                provider=self.name,
                http_status=answer.status,
                ambiguous=True,
            )
        message.meta = {"RequestId": _element(answer, "RequestId")}

    def error_code(self, answer: Answer) -> str | None:
        return _element(answer, "Code") if b"<ErrorResponse" in answer.body else None


def _element(answer: Answer, name: str) -> str | None:
    """The text of an XML element without children; None if it is absent."""
    match = re.search(rf"<{name}>\s*([^<\s]+)\s*</{name}>".encode(), answer.body)
    return match[1].decode(errors="replace") if match else None
