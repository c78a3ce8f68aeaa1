"""AWS End User Messaging SMS, API version 2 (once called Pinpoint SMS and voice).

Source: the service model in botocore (fields, errors and their reasons), and the user guide
(events, incoming messages). Events and incoming messages come through topics of Amazon SNS.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import recipient, sender_kind
from smsqueue.message.numbers import sender as written
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.providers.account import beside, table
from smsqueue.providers.aws import AUTH_ERRORS, LIMIT_ERRORS
from smsqueue.providers.aws_topics import SnsReceiver
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import address_of, event_views, text_of, time_of

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["AwsMessagingProvider"]

#: What an event tells beside, for ``meta``.
_BESIDE = (
    *("isFinal", "totalMessageParts", "totalMessagePrice", "messageEncoding"),
    *("messageStatusDescription", "mcc", "mnc"),
)
#: Where our reference is in a message's context.
_CONTEXT = "smsqueue"


class AwsMessagingProvider(SnsReceiver):
    """Sends and receives through AWS End User Messaging SMS.

    Args:
        configuration_set: Name or ARN of the set whose events tell what became of messages.
        message_type: "TRANSACTIONAL" or "PROMOTIONAL".
        config: As :class:`~smsqueue.providers.aws_topics.SnsReceiver` has it: ``region``,
            ``topics``, credentials.
    """

    service = "sms-voice"
    capabilities = frozenset({Can.ALPHANUMERIC, Can.VALIDITY, Can.REPORTS, Can.INBOUND})
    #: Exceptions, and reasons that say more than their exception.
    codes: ClassVar = table(
        (exc.AuthError, AUTH_ERRORS),
        (exc.AuthError, ["ACCOUNT_DISABLED", "INSUFFICIENT_ACCOUNT_REPUTATION"]),
        (exc.LimitsError, LIMIT_ERRORS),
        (exc.LimitsError, ["ServiceQuotaExceededException"]),
        (exc.CreditError, ["MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT"]),
        (exc.ServerError, ["InternalServerException", "InternalFailure", "ServiceUnavailable"]),
        (exc.UnsupportedError, ["DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION"]),
        (exc.UnsupportedError, ["DESTINATION_COUNTRY_BLOCKED", "COUNTRY_NOT_ENABLED"]),
        (exc.UnsupportedError, ["CHANNEL_NOT_ENABLED", "INTERNATIONAL_SENDING_NOT_SUPPORTED"]),
        (exc.UnsupportedError, ["SENDER_ID_NOT_SUPPORTED"]),
        (exc.UnsupportedError, ["INVALID_IDENTITY_FOR_DESTINATION_COUNTRY"]),
        (exc.RequestError, ["DESTINATION_PHONE_NUMBER_OPTED_OUT", "RESOURCE_NOT_ACTIVE"]),
        (exc.RequestError, ["DESTINATION_PHONE_NUMBER_NOT_VERIFIED", "INVALID_PARAMETER"]),
        (exc.RequestError, ["DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE"]),
        (exc.RequestError, ["NO_ORIGINATION_IDENTITIES_FOUND", "MAXIMUM_SIZE_EXCEEDED"]),
        (exc.RequestError, ["PRICE_OVER_THRESHOLD", "SENDER_ID_NOT_REGISTERED"]),
        (exc.RequestError, ["SENDER_ID_REQUIRES_REGISTRATION", "FIELD_VALIDATION_FAILED"]),
        (exc.RequestError, ["ConflictException", "ResourceNotFoundException"]),
        (exc.RequestError, ["ValidationException"]),
    )
    statuses: ClassVar = table(
        (MessageAccepted, ["TEXT_QUEUED", "TEXT_PENDING", "TEXT_SENT"]),
        # After 72 hours without a word from the network: what was accepted stays so.
        (MessageAccepted, ["TEXT_UNKNOWN"]),
        (MessageDelivered, ["TEXT_DELIVERED", "TEXT_SUCCESSFUL"]),
        (MessageExpired, ["TEXT_TTL_EXPIRED"]),
        (MessageError, ["TEXT_INVALID", "TEXT_INVALID_MESSAGE", "TEXT_UNREACHABLE"]),
        (MessageError, ["TEXT_CARRIER_UNREACHABLE", "TEXT_BLOCKED", "TEXT_CARRIER_BLOCKED"]),
        (MessageError, ["TEXT_SPAM", "TEXT_PROTECT_BLOCKED"]),
    )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        configuration_set: str | None = None,
        message_type: str = "TRANSACTIONAL",
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, **config)
        self._configuration_set = configuration_set
        # It says where reports go.
        self._ours = ("ConfigurationSetName",) if configuration_set else ()
        self._message_type = message_type

    def submit(self, message: OutgoingMessage) -> None:
        body: dict[str, Any] = {"MessageBody": message.body, "MessageType": self._message_type}
        sender = self.sender_of(message)
        if sender:  # or a pool's id, or an ARN
            number = sender_kind(sender) in ("number", "short code")
            body["OriginationIdentity"] = written(sender, plus=True) if number else sender
        if self._configuration_set:
            body["ConfigurationSetName"] = self._configuration_set
        validity = self.validity_of(message, 5, 259200)
        if validity is not None:
            body["TimeToLive"] = validity
        params = beside(message.provider_params, "DestinationPhoneNumber", *self._ours)
        body |= params | {"DestinationPhoneNumber": recipient(message.dst)}
        if message.reference:
            body["Context"] = {**(body.get("Context") or {}), _CONTEXT: message.reference}
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": "PinpointSMSVoiceV2.SendTextMessage",
        }
        answer = self.signed_call(json.dumps(body), headers)
        if not answer.get("MessageId") and self.error_code(answer):
            raise self.refusal(answer)
        message.msgid = answer.require("MessageId")

    def error_code(self, answer: Answer) -> str | None:
        reason = answer.get("Reason")
        if isinstance(reason, str) and reason in self.codes:
            return reason
        # "com.amazonaws.pinpointsmsvoicev2#ThrottlingException", or without what is before,
        # or "ThrottlingException:http://..." in a header.
        kind = answer.get("__type")
        if not kind and answer.status < 500:  # AWS's gateways set the header on a 5xx of theirs
            kind = answer.headers.get("x-amzn-ErrorType")
        return kind.rpartition("#")[2].partition(":")[0] if isinstance(kind, str) else None

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_topics()
        return event_views(self, self._events)  # several topics, or one for everything

    def _events(self) -> Iterator[IncomingMessage | MessageStatus]:
        told = self.notification()
        event = self._event(told) if isinstance(told, dict) else None
        if event is not None:
            yield event

    def _event(self, told: dict[str, Any]) -> IncomingMessage | MessageStatus | None:
        """What an event tells; None: nothing that we want to know."""
        if "inboundMessageId" in told:
            message = IncomingMessage(
                address_of(told, "originationNumber"),
                "" if told.get("messageBody") is None else text_of(told, "messageBody"),
                text_of(told, "inboundMessageId"),
                address_of(told, "destinationNumber"),
            )
            names = ("messageKeyword", "previousPublishedMessageId")
            message.meta = {name: told.get(name) for name in names}
            return message
        kind = told.get("eventType")
        if not isinstance(kind, str) or not kind.startswith("TEXT_"):
            return None
        # The network took it; whether it will say more differs from country to country.
        taken = kind == "TEXT_SUCCESSFUL" and told.get("isFinal") is not True
        report = self.report(
            kind,
            text_of(told, "messageId"),
            code=told.get("messageStatus"),
            kind=MessageAccepted if taken else None,
        )
        context = told.get("context") or {}
        report.reference = text_of(context, _CONTEXT) if context.get(_CONTEXT) else None
        report.rtime = time_of(told.get("eventTimestamp"), 1000) or report.rtime
        report.meta = {name: told.get(name) for name in _BESIDE}
        return report
