"""What Amazon SNS delivers over HTTP, to whom a topic's messages are delivered.

Source: the developer guide of Amazon SNS (signatures, confirmations, repetitions).
"""

from __future__ import annotations

import base64
import json
import logging
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import requests
from urllib3.exceptions import HTTPError

from smsqueue.providers.authentic import Refused, Secrets, any_equal, fresh, secrets_of
from smsqueue.providers.aws import AwsProvider, missing
from smsqueue.providers.reading import json_body, json_object, time_of
from smsqueue.providers.transport import bounded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["SnsReceiver"]

_log = logging.getLogger(__name__)

#: Seconds for a certificate or a confirmation: SNS waits 15 for our answer.
_PATIENCE = 8.0
#: Where Amazon keeps certificates, and confirms subscriptions. The region must look like one:
#: "sns.s3.amazonaws.com" would be anybody's.
_SNS = r"https://sns\.[a-z]{2}(-[a-z]+)+-\d{1,2}\.amazonaws\.com(\.cn)?"
_CERTIFICATE = re.compile(_SNS + r"/[A-Za-z0-9_.-]+\.pem")
_CONFIRM = re.compile(_SNS + r"/\?[!-~]*Action=ConfirmSubscription[!-~]*")
#: What of a message is signed, in this order.
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        *("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_SIGNED["UnsubscribeConfirmation"] = _SIGNED["SubscriptionConfirmation"]


class SnsReceiver(AwsProvider):
    """Base of the providers whose webhooks come through topics of Amazon SNS.

    Args:
        topics: ARNs of our topics. Everybody with an AWS account can have SNS sign messages: ours
            are those of these topics.
        replay_window: Seconds by which a message's time may differ from ours; SNS repeats what
            was not taken for an hour.
        config: As :class:`AwsProvider` has it.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        topics: Secrets = None,
        replay_window: float = 7200.0,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, **config)
        self._topics = secrets_of(topics)
        self._replay_window = replay_window
        self._certificates: dict[str, RSAPublicKey] = {}

    def need_topics(self) -> None:
        """Refuse to make a receiver that could not tell a forged message."""
        self.need_secret(*self._topics, name="topics")
        if not self.insecure and find_spec("cryptography") is None:
            raise missing(self.name, "cryptography")

    def notification(self) -> Any:
        """The JSON value that the running request holds.

        None: there is none in it, or it was about the subscription, which this confirms.

        Raises:
            PermissionError: it is not from one of our topics.
            ValueError: it is no JSON object.
        """

        told = json_object(json_body("text/plain"))
        if not self.insecure:
            self._authenticate(told)
        if told.get("Type") == "Notification":
            try:
                return json.loads(told["Message"])
            except (KeyError, TypeError, ValueError):
                return None  # somebody tries the topic out
        if told.get("Type") == "SubscriptionConfirmation":
            self._confirm(told.get("TopicArn"), str(told.get("SubscribeURL")))
            _log.info("%s has confirmed its subscription to a topic", self.name)
            return None
        if told.get("Type") == "UnsubscribeConfirmation":
            _log.warning("%s is told that it is not subscribed to a topic any more", self.name)
            return None
        raise ValueError("it is not a message of SNS")

    def _confirm(self, topic: Any, url: str) -> None:
        """Confirm the subscription to one of our topics, also if nobody is authenticated."""
        ours = isinstance(topic, str) and any_equal(topic, self._topics)
        asked = parse_qs(urlsplit(url).query) if _CONFIRM.fullmatch(url) else {}
        if not ours or asked.get("TopicArn") != [topic]:
            raise Refused("the subscription is not to a topic of ours, or not of SNS")
        self.fetch(url)

    def fetch(self, url: str) -> bytes:
        """What stands at an address of Amazon's.

        Raises:
            ServiceUnavailable: it cannot be had now; SNS repeats what was answered so.
        """
        from werkzeug.exceptions import ServiceUnavailable

        try:
            with bounded(_PATIENCE, safe=True):
                answer = self._exchange("GET", url)
            if answer.status == 200:
                return answer.body
            reason = str(answer.status)
        except (requests.RequestException, HTTPError, OSError) as error:
            reason = type(error).__name__
        _log.warning("%s cannot have what SNS refers to: %s", self.name, reason)
        raise ServiceUnavailable

    def _authenticate(self, told: dict[str, Any]) -> None:
        """PermissionError unless Amazon signed it for one of our topics, not long ago."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        names = [*_SIGNED.get(str(told.get("Type")), ())]
        if told.get("Subject") is None and "Subject" in names:
            names.remove("Subject")
        if not names or not all(isinstance(told.get(name), str) for name in names):
            raise Refused("it is not a message of SNS")
        if not any_equal(told["TopicArn"], self._topics):
            raise Refused("it is from a topic that is not ours")
        at = time_of(told["Timestamp"])
        if not fresh(at.timestamp() if at else None, self._replay_window):
            raise Refused("it is too old, or from the future")
        version, url = told.get("SignatureVersion"), str(told.get("SigningCertURL"))
        if version not in ("1", "2") or not _CERTIFICATE.fullmatch(url):
            raise Refused("it is not signed as SNS does it")
        text = "".join(f"{name}\n{told[name]}\n" for name in names)
        try:
            self._key(url).verify(
                base64.b64decode(str(told.get("Signature"))),
                text.encode(),
                PKCS1v15(),
                hashes.SHA1() if version == "1" else hashes.SHA256(),  # noqa: S303  theirs
            )
        except (InvalidSignature, ValueError):
            raise Refused("the signature is not that of SNS") from None

    def _key(self, url: str) -> RSAPublicKey:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.x509 import load_pem_x509_certificate

        known = self._certificates.get(url)
        if known is not None:
            return known
        key = load_pem_x509_certificate(self.fetch(url)).public_key()
        if not isinstance(key, RSAPublicKey):
            raise ValueError("no RSA key")
        if len(self._certificates) >= 20:
            self._certificates.clear()
        self._certificates[url] = key
        return key
