"""What Amazon SNS delivers over HTTP, to whom a topic's messages are delivered.

Source: the developer guide of Amazon SNS (signatures, confirmations, repetitions).
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from smsqueue.logs import get_logger
from smsqueue.providers.authentic import Refused, Secrets, any_equal, fresh, secrets_of
from smsqueue.providers.aws import AwsProvider, missing
from smsqueue.providers.checked import Malformed
from smsqueue.providers.reading import json_body, json_object, time_of
from smsqueue.providers.transport import NoAnswer, Watch, make_request
from smsqueue.providers.used import signed_with

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["SnsReceiver"]

_log = get_logger(__name__)

#: Seconds for a certificate or a confirmation: SNS waits 15 for our answer.
_PATIENCE = 8.0
#: Where Amazon keeps certificates, and confirms subscriptions. The region must look like one:
#: "sns.s3.amazonaws.com" would be anybody's.
_SNS = r"https://sns\.[a-z]{2}(-[a-z]+)+-\d{1,2}\.amazonaws\.com(\.cn)?"
_CERTIFICATE = re.compile(_SNS + r"/SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem")
#: Region of a topic, as its ARN has it.
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_.-]+")
#: Bytes of a signature: RSA with 1024 to 4096 bits.
_SIGNATURE_BYTES = range(128, 513)
#: The longest certificate, in bytes.
_MAX_CERTIFICATE = 64 * 1024
#: Seconds for which a certificate that could not be had, or is none, is not fetched again.
_FAILED_FOR = 10.0
#: How many certificates are fetched within how many seconds, and how many are kept.
_MAX_FETCHES, _FETCH_WINDOW, _MAX_KEPT = 10, 60.0, 20
#: Characters of an address at which a subscription is confirmed: they have about 500.
_LONGEST_URL = 4096
_CONFIRM = re.compile(_SNS + r"/\?[!-~]*Action=ConfirmSubscription[!-~]*")
#: What of a message is signed, in this order.
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        *("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_SIGNED["UnsubscribeConfirmation"] = _SIGNED["SubscriptionConfirmation"]


class _Certificates:
    """The keys of Amazon's certificates: each is fetched once, one at a time, failures included.

    A request needs no genuine signature to name a certificate. So the number of fetches is bounded
    too; a request beyond the bound is answered 503, and SNS repeats it.

    Args:
        fetch: Gives what stands at an address, or raises ``ServiceUnavailable``.
    """

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: dict[str, RSAPublicKey] = {}
        self._failed: dict[str, tuple[float, Exception]] = {}
        self._fetches: deque[float] = deque(maxlen=_MAX_FETCHES)
        self.clock: Callable[[], float] = time.monotonic

    def key(self, url: str) -> RSAPublicKey:
        """The key of the certificate at an address.

        Raises:
            ServiceUnavailable: it cannot be had now.
            ValueError: there is no certificate with an RSA key.
        """
        from werkzeug.exceptions import ServiceUnavailable

        if (known := self._keys.get(url)) is not None:
            return known
        # Another request is fetching it, or another one, which takes long.
        if not self._lock.acquire(timeout=1.0):
            raise ServiceUnavailable
        try:
            if (known := self._keys.get(url)) is not None:
                return known
            now = self.clock()
            until, failure = self._failed.get(url, (0.0, None))
            if failure is not None and now < until:
                raise failure.with_traceback(None)
            if len(self._fetches) == _MAX_FETCHES and now - self._fetches[0] < _FETCH_WINDOW:
                _log.warning("too many certificates of SNS were asked for within a minute")
                raise ServiceUnavailable
            self._fetches.append(now)
            try:
                key = _key_of(self._fetch(url))
            except (ServiceUnavailable, ValueError) as error:
                self._keep(self._failed, url, (self.clock() + _FAILED_FOR, error))
                raise
            self._failed.pop(url, None)
            self._keep(self._keys, url, key)
            return key
        finally:
            self._lock.release()

    @staticmethod
    def _keep(kept: dict[str, Any], url: str, value: Any) -> None:
        kept.pop(url, None)
        while len(kept) >= _MAX_KEPT:
            kept.pop(next(iter(kept)))
        kept[url] = value


def _key_of(certificate: bytes) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    if len(certificate) > _MAX_CERTIFICATE:
        raise ValueError("the certificate is too long")
    key = load_pem_x509_certificate(certificate).public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("no RSA key")
    return key


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
        self._certificates = _Certificates(lambda url: self.fetch(url))

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
        # What makes us call an address must be signed, whatever else is taken without.
        if not self.insecure or told.get("Type") == "SubscriptionConfirmation":
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
        raise Malformed("it is not a message of SNS")

    def _confirm(self, topic: Any, url: str) -> None:
        """Confirm the subscription to one of our topics."""
        ours = isinstance(topic, str) and any_equal(topic, self._topics)
        good = len(url) <= _LONGEST_URL and _CONFIRM.fullmatch(url)
        asked = parse_qs(urlsplit(url).query) if good else {}
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
            asked = make_request("GET", url, safe=True)
            answer = self._exchange(asked, _PATIENCE, Watch(safe=True))
            if answer.status == 200:
                return answer.body
            reason = str(answer.status)
        except (NoAnswer, ValueError) as error:
            reason = str(error) if isinstance(error, NoAnswer) else type(error).__name__
        _log.warning("%s cannot have what SNS refers to: %s", self.name, reason)
        raise ServiceUnavailable

    def _authenticate(self, told: dict[str, Any]) -> None:
        """PermissionError unless Amazon signed it for one of our topics, not long ago."""
        if find_spec("cryptography") is None:  # insecure, and a confirmation
            raise Refused("without the package cryptography no subscription can be confirmed")
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
        signature = _decoded(told.get("Signature"))
        if version not in ("1", "2") or not _CERTIFICATE.fullmatch(url):
            raise Refused("it is not signed as SNS does it")
        if len(signature) not in _SIGNATURE_BYTES:
            raise Refused("it has no signature")
        topic = _TOPIC.fullmatch(told["TopicArn"])
        if topic is None or urlsplit(url).netloc.split(".")[1] != topic[1]:
            raise Refused("its certificate is not of the topic's region")
        text = "".join(f"{name}\n{told[name]}\n" for name in names)
        try:
            self._certificates.key(url).verify(
                signature,
                text.encode(),
                PKCS1v15(),
                hashes.SHA1() if version == "1" else hashes.SHA256(),  # noqa: S303  theirs
            )
        except (InvalidSignature, ValueError):
            raise Refused("the signature is not that of SNS") from None
        signed_with(text, seconds=2 * self._replay_window, whole=True)


def _decoded(signature: Any) -> bytes:
    """The bytes of a signature, b"" if it is none."""
    try:
        return base64.b64decode(str(signature), validate=True)
    except ValueError:
        return b""
