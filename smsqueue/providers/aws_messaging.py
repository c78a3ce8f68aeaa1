"""AWS End User Messaging SMS, API version 2 (once called Pinpoint SMS and voice).

Source: the service model in botocore (fields, errors and their reasons), and the user guide
(events, incoming messages). Events and incoming messages are published to topics
of Amazon SNS, which posts them to our webhooks.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from smsqueue import exc
from smsqueue.logs import get_logger
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
from smsqueue.providers.authentic import Refused, Secrets, any_equal, fresh, secrets_of
from smsqueue.providers.aws import AUTH_ERRORS, LIMIT_ERRORS, AwsProvider, missing_package
from smsqueue.providers.base.replay_protection import register_signatures
from smsqueue.providers.base.transport import NoAnswer, WriteTracker, build_request
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import Answer
from smsqueue.providers.reading import (
    address_of,
    event_views,
    json_body,
    json_object,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from flask import Blueprint

__all__ = ["AwsMessagingProvider"]

_log = get_logger(__name__)

#: Fields of events that are copied to ``meta``.
_META = (
    *("isFinal", "totalMessageParts", "totalMessagePrice", "messageEncoding"),
    *("messageStatusDescription", "mcc", "mnc"),
)
#: Key of our reference in a message's context.
_CONTEXT = "smsqueue"

#: Seconds to fetch a certificate or confirm a subscription: SNS waits 15 for our response.
_FETCH_TIMEOUT = 8.0
#: Amazon's host for certificates and confirmations. The region must have the form of one: anybody
#: can write to "sns.s3.amazonaws.com".
_SNS = r"https://sns\.[a-z]{2}(-[a-z]+)+-\d{1,2}\.amazonaws\.com(\.cn)?"
_CERTIFICATE = re.compile(_SNS + r"/SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem")
#: ARN of a topic; the group is its region.
_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_.-]+")
#: Bytes of a signature: RSA of 1024 to 4096 bits.
_SIGNATURE_BYTES = range(128, 513)
#: Longest certificate, in bytes.
_MAX_CERTIFICATE = 64 * 1024
#: Seconds after which a certificate is fetched again if that failed or it was invalid.
_RETRY_FAILED_AFTER = 10.0
#: Most fetches of certificates within a number of seconds, and most cached certificates.
_MAX_FETCHES, _FETCH_WINDOW, _MAX_CACHED = 10, 60.0, 20
#: Most characters of a URL that confirms a subscription; they have about 500.
_MAX_URL = 4096
_CONFIRM = re.compile(_SNS + r"/\?[!-~]*Action=ConfirmSubscription[!-~]*")
#: The signed fields of a message by its type, in this order.
_SIGNED_FIELDS = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        *("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_SIGNED_FIELDS["UnsubscribeConfirmation"] = _SIGNED_FIELDS["SubscriptionConfirmation"]


class AwsMessagingProvider(AwsProvider):
    """Sends and receives through AWS End User Messaging SMS.

    Args:
        configuration_set: Name or ARN of the set that publishes the events of messages.
        message_type: "TRANSACTIONAL" or "PROMOTIONAL".
        topics: ARNs of our topics of Amazon SNS. Anybody with an AWS account can have SNS sign
            messages: only those of these topics are ours.
        replay_window: Most seconds by which a message's time may differ from ours; SNS repeats
            for an hour what was not accepted.
        config: Arguments of :class:`~smsqueue.providers.aws.AwsProvider`: ``region``, credentials.
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
        (exc.OptedOut, ["DESTINATION_PHONE_NUMBER_OPTED_OUT"]),
        (exc.RequestError, ["RESOURCE_NOT_ACTIVE"]),
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
        # No report from the network for 72 hours: the message stays accepted.
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
        topics: Secrets = None,
        replay_window: float = 7200.0,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, **config)
        self.topics = SnsTopics(
            name,
            secrets_of(topics),
            replay_window=replay_window,
            insecure=self.insecure,
            fetch=lambda url: self.fetch(url),
        )
        self._configuration_set = configuration_set
        # It determines where reports go.
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
        # "com.amazonaws.pinpointsmsvoicev2#ThrottlingException", or without the prefix,
        # or "ThrottlingException:http://..." in a header.
        kind = answer.get("__type")
        if not kind and answer.status < 500:  # AWS's gateways set the header on a 5xx of theirs
            kind = answer.headers.get("x-amzn-ErrorType")
        return kind.rpartition("#")[2].partition(":")[0] if isinstance(kind, str) else None

    def make_receiver_blueprint(self) -> Blueprint:
        self.need_secret(*self.topics.arns, name="topics")
        if not self.insecure and find_spec("cryptography") is None:
            raise missing_package(self.name, "cryptography")
        return event_views(self, self._events)  # events and messages may share a topic

    def _events(self) -> Iterator[IncomingMessage | MessageStatus]:
        content = self.topics.notification()
        event = self._event(content) if isinstance(content, dict) else None
        if event is not None:
            yield event

    def _event(self, fields: dict[str, Any]) -> IncomingMessage | MessageStatus | None:
        """The incoming message or report in an event; None for other kinds of events."""
        if "inboundMessageId" in fields:
            message = IncomingMessage(
                address_of(fields, "originationNumber"),
                "" if fields.get("messageBody") is None else text_of(fields, "messageBody"),
                text_of(fields, "inboundMessageId"),
                address_of(fields, "destinationNumber"),
            )
            names = ("messageKeyword", "previousPublishedMessageId")
            message.meta = {name: fields.get(name) for name in names}
            return message
        kind = fields.get("eventType")
        if not isinstance(kind, str) or not kind.startswith("TEXT_"):
            return None
        # The network accepted it; whether it reports delivery depends on the country.
        is_interim = kind == "TEXT_SUCCESSFUL" and fields.get("isFinal") is not True
        report = self.report(
            kind,
            text_of(fields, "messageId"),
            code=fields.get("messageStatus"),
            kind=MessageAccepted if is_interim else None,
        )
        context = fields.get("context") or {}
        report.reference = text_of(context, _CONTEXT) if context.get(_CONTEXT) else None
        report.rtime = time_of(fields.get("eventTimestamp"), 1000) or report.rtime
        report.meta = {name: fields.get(name) for name in _META}
        return report

    def fetch(self, url: str) -> bytes:
        """The body of a URL of Amazon.

        Raises:
            ServiceUnavailable: it cannot be fetched now; SNS repeats what is answered 503.
        """
        from werkzeug.exceptions import ServiceUnavailable

        try:
            request = build_request("GET", url, safe=True)
            response = self._exchange(request, _FETCH_TIMEOUT, WriteTracker(safe=True))
            if response.status == 200:
                return response.body
            reason = str(response.status)
        except (NoAnswer, ValueError) as error:
            reason = str(error) if isinstance(error, NoAnswer) else type(error).__name__
        extra = {"provider": self.name}
        _log.warning("%s cannot fetch a URL of SNS: %s", self.name, reason, extra=extra)
        raise ServiceUnavailable


# --- Amazon SNS as the sender of webhooks -------------------------------------------------------


class SnsTopics:
    """Verifies what Amazon SNS posts for our topics, and confirms subscriptions to them.

    Source: the developer guide of Amazon SNS (signatures, confirmations, repetitions).

    Args:
        name: The provider's, for the log.
        arns: ARNs of our topics.
        replay_window: Most seconds by which a message's time may differ from ours.
        insecure: Accept notifications without a signature.
        fetch: Returns the body of a URL, or raises ``ServiceUnavailable``.
    """

    def __init__(
        self,
        name: str,
        arns: tuple[str, ...],
        *,
        replay_window: float,
        insecure: bool,
        fetch: Callable[[str], bytes],
    ) -> None:
        self.arns = arns
        self.certificates = _Certificates(fetch)
        self._name = name
        self._replay_window = replay_window
        self._insecure = insecure
        self._fetch = fetch

    def notification(self) -> Any:
        """The JSON value in the running request.

        None if the message is not JSON, or if it is about the subscription, which is confirmed.

        Raises:
            Refused: it is not from one of our topics.
            Malformed: it is not a message of SNS.
        """
        message = json_object(json_body("text/plain"))
        # A confirmation makes us fetch a URL, so it must be signed even if insecure=True.
        if not self._insecure or message.get("Type") == "SubscriptionConfirmation":
            self.verify(message)
        if message.get("Type") == "Notification":
            try:
                return json.loads(message["Message"])
            except (KeyError, TypeError, ValueError):
                return None  # a test message to the topic
        if message.get("Type") == "SubscriptionConfirmation":
            self._confirm(message.get("TopicArn"), str(message.get("SubscribeURL")))
            extra = {"provider": self._name}
            _log.info("%s has confirmed its subscription to a topic", self._name, extra=extra)
            return None
        if message.get("Type") == "UnsubscribeConfirmation":
            extra = {"provider": self._name}
            _log.warning("%s was unsubscribed from a topic", self._name, extra=extra)
            return None
        raise Malformed("it is not a message of SNS")

    def _confirm(self, topic: Any, url: str) -> None:
        """Confirm the subscription to one of our topics."""
        is_ours = isinstance(topic, str) and any_equal(topic, self.arns)
        is_sns = len(url) <= _MAX_URL and _CONFIRM.fullmatch(url)
        query = parse_qs(urlsplit(url).query) if is_sns else {}
        if not is_ours or query.get("TopicArn") != [topic]:
            raise Refused("the subscription is not to a topic of ours, or not of SNS")
        self._fetch(url)

    def verify(self, message: dict[str, Any]) -> None:
        """Raise Refused unless Amazon signed a message of one of our topics recently."""
        if find_spec("cryptography") is None:  # a confirmation, and insecure=True
            raise Refused("without the package cryptography no subscription can be confirmed")
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        names = [*_SIGNED_FIELDS.get(str(message.get("Type")), ())]
        if message.get("Subject") is None and "Subject" in names:
            names.remove("Subject")
        if not names or not all(isinstance(message.get(name), str) for name in names):
            raise Refused("it is not a message of SNS")
        if not any_equal(message["TopicArn"], self.arns):
            raise Refused("it is from a topic that is not in topics=[...]")
        at = time_of(message["Timestamp"])
        if not fresh(at.timestamp() if at else None, self._replay_window):
            raise Refused("it is too old, or from the future")
        version, url = message.get("SignatureVersion"), str(message.get("SigningCertURL"))
        signature = _decode_base64(message.get("Signature"))
        if version not in ("1", "2") or not _CERTIFICATE.fullmatch(url):
            raise Refused("the signature is not of a version or certificate of SNS")
        if len(signature) not in _SIGNATURE_BYTES:
            raise Refused("it has no signature of a valid length")
        topic = _TOPIC_ARN.fullmatch(message["TopicArn"])
        if topic is None or urlsplit(url).netloc.split(".")[1] != topic[1]:
            raise Refused("its certificate is from another region than the topic")
        text = "".join(f"{name}\n{message[name]}\n" for name in names)
        try:
            self.certificates.key(url).verify(
                signature,
                text.encode(),
                PKCS1v15(),
                hashes.SHA1() if version == "1" else hashes.SHA256(),  # noqa: S303  version 1
            )
        except (InvalidSignature, ValueError):
            raise Refused("the signature is not by SNS") from None
        register_signatures(text, seconds=2 * self._replay_window, whole=True)


class _Certificates:
    """Caches the public keys of Amazon's certificates, and failures to fetch them.

    A forged request can name any certificate. So one certificate is fetched at a time, and the
    number of fetches is limited; a request beyond the limit is answered 503, and SNS repeats it.

    Args:
        fetch: Returns the body of a URL, or raises ``ServiceUnavailable``.
    """

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: dict[str, RSAPublicKey] = {}
        self._failed: dict[str, tuple[float, Exception]] = {}
        self._fetches: deque[float] = deque(maxlen=_MAX_FETCHES)
        self.clock: Callable[[], float] = time.monotonic

    def key(self, url: str) -> RSAPublicKey:
        """The public key of the certificate at a URL.

        Raises:
            ServiceUnavailable: it cannot be fetched now.
            ValueError: it is not a certificate with an RSA key.
        """
        from werkzeug.exceptions import ServiceUnavailable

        if (cached := self._keys.get(url)) is not None:
            return cached
        # Another request is fetching a certificate.
        if not self._lock.acquire(timeout=1.0):
            raise ServiceUnavailable
        try:
            if (cached := self._keys.get(url)) is not None:
                return cached
            now = self.clock()
            until, failure = self._failed.get(url, (0.0, None))
            if failure is not None and now < until:
                raise failure.with_traceback(None)
            if len(self._fetches) == _MAX_FETCHES and now - self._fetches[0] < _FETCH_WINDOW:
                _log.warning("webhooks named too many certificates of SNS within a minute")
                raise ServiceUnavailable
            self._fetches.append(now)
            try:
                key = _public_key(self._fetch(url))
            except (ServiceUnavailable, ValueError) as error:
                self._cache(self._failed, url, (self.clock() + _RETRY_FAILED_AFTER, error))
                raise
            self._failed.pop(url, None)
            self._cache(self._keys, url, key)
            return key
        finally:
            self._lock.release()

    @staticmethod
    def _cache(cache: dict[str, Any], url: str, value: Any) -> None:
        cache.pop(url, None)
        while len(cache) >= _MAX_CACHED:
            cache.pop(next(iter(cache)))
        cache[url] = value


def _public_key(certificate: bytes) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    if len(certificate) > _MAX_CERTIFICATE:
        raise ValueError("the certificate is too long")
    key = load_pem_x509_certificate(certificate).public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the certificate has no RSA key")
    return key


def _decode_base64(signature: Any) -> bytes:
    """The bytes of a signature; b"" if it is not Base64."""
    try:
        return base64.b64decode(str(signature), validate=True)
    except ValueError:
        return b""
