"""AWS End User Messaging SMS, and webhooks of Amazon SNS."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from werkzeug.exceptions import ServiceUnavailable

from smsqueue import exc
from smsqueue.message.states import State
from smsqueue.providers.aws_messaging import AwsMessagingProvider
from smsqueue.settings import SettingsError
from smsqueue.testing.contract import PUBLIC_URL, Check, checks, made
from smsqueue.testing.examples import (
    REF,
    Examples,
    Received,
    Refusal,
    Reported,
    Sending,
    Webhook,
    message,
)
from smsqueue.testing.stub import Answer, Seen, Stub
from smsqueue.testing.webhook_checks import client_of
from tests.providers.helpers import (
    account,
    client_of_failing_gateway,
    malformed,
    same,
    webhook_status,
)

KEY, SECRET = "AKIDEXAMPLE", "aws-secret-key"
TOPIC, OTHER_TOPIC = (f"arn:aws:sns:eu-west-1:123456789012:{name}" for name in ("sms", "other"))
HOST = "https://sns.eu-west-1.amazonaws.com"
CERTIFICATE = f"{HOST}/SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem"
CONFIRM = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=233"
GOOD = Answer(200, {"MessageId": "A1"})


@cache
def rsa_key(which: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Provider(AwsMessagingProvider):
    """With Amazon's addresses on this machine."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.fetched: list[str] = []
        self.pages = {CERTIFICATE: certificate(rsa_key("amazon")), CONFIRM: b"<ok/>"}

    def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if url not in self.pages:
            raise ServiceUnavailable
        return self.pages[url]


def delivery(told: Any, **more: Any) -> dict[str, Any]:
    """A message of SNS, not signed."""
    return {
        "Type": "Notification",
        "MessageId": "15b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": told if isinstance(told, str) else json.dumps(told),
        "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "UnsubscribeURL": f"{HOST}/?Action=Unsubscribe",
    } | more


def confirmation(**more: Any) -> dict[str, Any]:
    kind = {"Type": "SubscriptionConfirmation", "Token": "233", "SubscribeURL": CONFIRM}
    return delivery("You have chosen to subscribe to the topic.", **kind | more)


def signed(told: dict[str, Any], version: str = "2", who: str = "amazon") -> dict[str, Any]:
    """As the developer guide describes it: names in byte order, those of the type."""
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token"]
    names = [name for name in [*names, "TopicArn", "Type"] if name in told]
    text = "".join(f"{name}\n{told[name]}\n" for name in names)
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()
    signature = rsa_key(who).sign(text.encode(errors="surrogatepass"), padding.PKCS1v15(), digest)
    return told | {
        "SignatureVersion": version,
        "Signature": b64encode(signature).decode(),
        "SigningCertURL": CERTIFICATE,
    }


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> Any:
    sent = {"Content-Type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification"}
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict):  # SNS signs nothing else
        body = json.dumps(signed(told)).encode()
    return method, url, headers | sent, body


def refused(
    kind: str,
    error: type[exc.ProviderError],
    reason: str | None = None,
    *,
    code: str | None = None,
    status: int = 400,
    ambiguous: bool = False,
) -> Refusal:
    body = {"__type": kind, "Message": "+15551234567"} | ({"Reason": reason} if reason else {})
    return Refusal(
        f"{kind} {reason or ''} {status}",
        Answer(status, body),
        error,
        code or reason or kind,
        ambiguous,
    )


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "eventType": kind,
        "eventVersion": "1.0",
        "eventTimestamp": 1686975103470,
        "isFinal": True,
        "originationPhoneNumber": "+15550009999",
        "destinationPhoneNumber": "+15551234567",
        "messageId": "A1",
        "messageStatus": "WORD",
        "messageStatusDescription": "Words about it",
        "context": {"smsqueue": REF, "mine": "1"},
        "totalMessageParts": 1,
    } | more


def status(kind: str, state: State | None, **more: Any) -> Webhook:
    reported = Reported(state, "A1", None if "context" in more else REF, "WORD", kind)
    return hook(f"event {kind} {more or ''}", delivery(event(kind, **more)), reported)


def hook(name: str, told: Any, *events: Received | Reported, path: str = "/status") -> Webhook:
    return Webhook(name, path, events, json=told, sign=sign, status=204, placeless=True)


INBOUND = {
    "originationNumber": "+15551234567",
    "destinationNumber": "+15550009999",
    "messageKeyword": "KEYWORD",
    "messageBody": "hi there\nżółć",
    "inboundMessageId": "A9",
    "previousPublishedMessageId": "A1",
}
RECEIVED = Received("15551234567", "hi there\nżółć", "15550009999", "A9")


def signed_by_aws(seen: Seen) -> None:
    pattern = rf"AWS4-HMAC-SHA256 Credential={KEY}/\d{{8}}/eu-west-1/sms-voice/aws4_request, "
    assert re.match(pattern, seen.headers["Authorization"])
    assert "x-amz-target" in seen.headers["Authorization"]


sends = partial(Sending, answer=GOOD, msgid="A1", path="/")

EXAMPLES = Examples(
    provider=Provider,
    config={
        "region": "eu-west-1",
        "access_key": KEY,
        "secret_key": SECRET,
        "topics": TOPIC,
        "sender": "15550009999",
    },
    good=GOOD,
    secrets=[SECRET, KEY],
    secret="topics",
    sendings=[
        sends(
            "a text",
            message(),
            json={
                "DestinationPhoneNumber": "+15551234567",
                "OriginationIdentity": "+15550009999",
                "MessageBody": "hello",
                "MessageType": "TRANSACTIONAL",
                "Context": {"smsqueue": REF},
            },
            headers={
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": "PinpointSMSVoiceV2.SendTextMessage",
            },
            check=signed_by_aws,
        ),
        *(
            sends(
                f"from {sender}",
                message(src=sender),
                check=lambda seen, wanted=wanted: same(seen.json["OriginationIdentity"], wanted),  # type: ignore[misc]
            )
            for sender, wanted in (
                ("+1 (555) 000-9999", "+15550009999"),
                ("12345", "12345"),
                ("pool-0123456789", "pool-0123456789"),
                (
                    "arn:aws:sms-voice:eu-west-1:1:pool/p-1",
                    "arn:aws:sms-voice:eu-west-1:1:pool/p-1",
                ),
            )
        ),
        sends(
            "validity, sender id, configuration set, parameters",
            message(
                expires=5,
                senderId="Shop",
                params={
                    "MaxPrice": "0.5",
                    "Context": {"mine": "1", "smsqueue": "no"},
                    "DestinationPhoneNumber": "+15550001111",
                },
            ),
            json={
                "DestinationPhoneNumber": "+15551234567",
                "OriginationIdentity": "Shop",
                "MessageBody": "hello",
                "MessageType": "PROMOTIONAL",
                "ConfigurationSetName": "events",
                "TimeToLive": 300,
                "MaxPrice": "0.5",
                "Context": {"mine": "1", "smsqueue": REF},
            },
            config={"configuration_set": "events", "message_type": "PROMOTIONAL"},
        ),
    ],
    refusals=[
        refused("ThrottlingException", exc.LimitsError),
        refused(
            "ServiceQuotaExceededException", exc.CreditError, "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT"
        ),
        refused(
            "ServiceQuotaExceededException",
            exc.LimitsError,
            "DAILY_DESTINATION_CALL_LIMIT",
            code="ServiceQuotaExceededException",
        ),
        refused("AccessDeniedException", exc.AuthError, "ACCOUNT_DISABLED"),
        refused("AccessDeniedException", exc.AuthError),
        refused("UnrecognizedClientException", exc.AuthError),
        refused("ResourceNotFoundException", exc.RequestError),
        refused(
            "ConflictException",
            exc.UnsupportedError,
            "DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION",
        ),
        refused("ConflictException", exc.OptedOut, "DESTINATION_PHONE_NUMBER_OPTED_OUT"),
        refused("ConflictException", exc.RequestError, "NEW_REASON", code="ConflictException"),
        refused("ValidationException", exc.UnsupportedError, "DESTINATION_COUNTRY_BLOCKED"),
        refused("ValidationException", exc.UnsupportedError, "SENDER_ID_NOT_SUPPORTED"),
        refused("ValidationException", exc.RequestError, "INVALID_PARAMETER"),
        refused("ValidationException", exc.RequestError),
        refused("InternalServerException", exc.ServerError, status=500),
        refused("NewException", exc.RequestError),
        refused("NewException", exc.ServerError, status=504, ambiguous=True),
        refused(
            "com.amazonaws.pinpointsmsvoicev2#ThrottlingException",
            exc.LimitsError,
            code="ThrottlingException",
        ),
        Refusal(
            "the exception in a header",
            Answer(400, "", {"x-amzn-ErrorType": "ThrottlingException:http://internal/"}),
            exc.LimitsError,
            "ThrottlingException",
        ),
        refused("ThrottlingException", exc.LimitsError, status=200),
        refused("ServiceUnavailable", exc.ServerError, status=503),
        Refusal(
            "503 of a gateway of AWS",
            Answer(503, {}, {"x-amzn-ErrorType": "ServiceUnavailableException"}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal("200 without an id", Answer(200, {}), exc.ServerError, ambiguous=True),
    ],
    webhooks=[
        hook("incoming", delivery(INBOUND), RECEIVED, path="/im"),
        hook("incoming at the other address", delivery(INBOUND), RECEIVED),
        hook("with a subject", delivery(INBOUND, Subject="about"), RECEIVED),
        *(
            status(kind, State.ACCEPTED)
            for kind in ("TEXT_QUEUED", "TEXT_PENDING", "TEXT_SENT", "TEXT_UNKNOWN")
        ),
        status("TEXT_SUCCESSFUL", State.ACCEPTED, isFinal=False),
        status("TEXT_SUCCESSFUL", State.ACCEPTED, isFinal="true"),
        status("TEXT_SUCCESSFUL", State.DELIVERED),
        status("TEXT_DELIVERED", State.DELIVERED),
        status("TEXT_DELIVERED", State.DELIVERED, isFinal=False),
        status("TEXT_TTL_EXPIRED", State.EXPIRED),
        *(
            status(f"TEXT_{kind}", State.UNDELIVERED)
            for kind in (
                *("INVALID", "INVALID_MESSAGE", "UNREACHABLE", "CARRIER_UNREACHABLE"),
                *("BLOCKED", "CARRIER_BLOCKED", "SPAM", "PROTECT_BLOCKED"),
            )
        ),
        status("TEXT_NEVER_HEARD_OF", None),
        status("TEXT_DELIVERED", State.DELIVERED, context=None),
        status("TEXT_DELIVERED", State.DELIVERED, context={}),
        hook("an event of a call", delivery(event("VOICE_COMPLETED"))),
        hook("something else", delivery({"a": 1})),
        hook("a text that is no JSON", delivery("trying the topic out")),
        hook("JSON that is no object", delivery([1])),
        hook("confirmation", confirmation()),
        hook("unsubscribed", confirmation(Type="UnsubscribeConfirmation")),
    ],
    refused=[
        malformed("no JSON", "/im", body=b"no"),
        malformed("a list", "/im", json=[1]),
        malformed("raw delivery", "/im", 403, json=INBOUND),
        ("no id", hook("", delivery({"eventType": "TEXT_SENT"})), 400),
        ("no number", hook("", delivery(INBOUND | {"originationNumber": None})), 400),
        ("no recipient", hook("", delivery(INBOUND | {"destinationNumber": 5})), 400),
        ("a text that is none", hook("", delivery(INBOUND | {"messageBody": ["hi"]})), 400),
        ("an id that is none", hook("", delivery(event("TEXT_SENT", messageId=["A1"]))), 400),
        ("another context", hook("", delivery(event("TEXT_SENT", context=[1]))), 400),
        (
            "a reference that is none",
            hook("", delivery(event("TEXT_SENT", context={"smsqueue": 5}))),
            400,
        ),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_a_message_without_a_reference_has_no_context() -> None:
    asked = message()
    asked.reference = None
    with account(EXAMPLES, GOOD) as (provider, stub):
        provider.send(asked)
    assert "Context" not in stub.seen[0].json


@pytest.mark.parametrize(
    "at", [None, True, "soon", [1], -(10**30), 10**30, 1e300, float("nan"), float("inf")], ids=str
)
def test_an_invalid_event_time_is_ignored(at: Any) -> None:
    endpoint = Endpoint()
    told = event("TEXT_DELIVERED", eventTimestamp=at)
    assert endpoint.post(signed(delivery(told))) == 204
    assert endpoint.post(signed(delivery(event("TEXT_DELIVERED")))) == 204
    assert endpoint.heard[0].rtime.tzinfo is UTC
    assert endpoint.heard[1].rtime == datetime(2023, 6, 17, 4, 11, 43, 470000, UTC)
    assert endpoint.heard[1].meta["messageStatusDescription"] == "Words about it"


# --- what SNS delivers --------------------------------------------------------------------------


class Endpoint:
    """The receivers of a provider."""

    def __init__(self, **config: Any) -> None:
        self.gateway, self.provider, self.heard = made(EXAMPLES, "http://127.0.0.1:9", **config)
        self.client = client_of(self.gateway)

    def post(self, told: dict[str, Any]) -> int:
        return webhook_status(self.client, "im", data=json.dumps(told), base_url=PUBLIC_URL)

    def later(self, seconds: float) -> None:
        """Let time pass for the certificates that are kept."""
        certificates = self.provider.topics.certificates
        clock = certificates.clock
        certificates.clock = lambda: clock() + seconds


def test_both_versions_of_signatures() -> None:
    endpoint = Endpoint()
    assert endpoint.post(signed(delivery(INBOUND), "1")) == 204
    assert endpoint.post(signed(delivery(INBOUND), "2")) == 204
    assert endpoint.post(signed(delivery(INBOUND), "2") | {"Subject": None}) == 204
    assert endpoint.post(signed(delivery(INBOUND), "1") | {"SignatureVersion": "2"}) == 403
    assert endpoint.post(signed(delivery(INBOUND), "2") | {"SignatureVersion": "3"}) == 403
    assert len(endpoint.heard) == 3


def test_a_certificate_is_fetched_once() -> None:
    endpoint = Endpoint()
    for _ in range(3):
        assert endpoint.post(signed(delivery(INBOUND))) == 204
    assert endpoint.provider.fetched == [CERTIFICATE]


def test_without_its_certificate_a_message_is_answered_503() -> None:
    endpoint = Endpoint()
    page = endpoint.provider.pages.pop(CERTIFICATE)
    assert endpoint.post(signed(delivery(INBOUND))) == 503
    endpoint.provider.pages[CERTIFICATE] = page
    # That it could not be had is remembered for some seconds.
    assert [endpoint.post(signed(delivery(INBOUND))) for _ in range(5)] == [503] * 5
    assert endpoint.provider.fetched == [CERTIFICATE]
    endpoint.later(11)
    assert endpoint.post(signed(delivery(INBOUND))) == 204
    assert len(endpoint.heard) == 1


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize(
    "signature", [None, "", "x", "AAAA", b64encode(bytes(64)).decode(), "é" * 200, ["a"], 7]
)
def test_an_unsigned_request_causes_no_fetch(signature: Any, insecure: bool) -> None:
    endpoint = Endpoint(insecure=insecure)
    for told in (confirmation(), delivery(INBOUND)):
        if told["Type"] == "Notification" and insecure:
            continue
        assert endpoint.post(told) == 403
        assert endpoint.post(signed(told) | {"Signature": signature}) == 403
    assert endpoint.provider.fetched == []


def test_forged_signatures_cause_few_fetches() -> None:
    endpoint = Endpoint()
    false = signed(delivery(INBOUND), who="evil")
    names = [CERTIFICATE.replace("f3ecfb72", f"{n:08x}") for n in range(200)]
    answers = [endpoint.post(false | {"SigningCertURL": name}) for name in names]
    assert set(answers) == {503}
    assert len(endpoint.provider.fetched) == 10
    # They do not keep the genuine one out for long, and never one that is known.
    endpoint.later(61)
    assert endpoint.post(signed(delivery(INBOUND))) == 204
    for name in names:
        endpoint.post(false | {"SigningCertURL": name})
    assert endpoint.post(signed(delivery(INBOUND))) == 204
    assert endpoint.provider.fetched.count(CERTIFICATE) == 1


@pytest.mark.parametrize("region", ["us-east-1", "cn-north-1"])
def test_a_certificate_of_another_region_is_not_fetched(region: str) -> None:
    endpoint = Endpoint()
    url = CERTIFICATE.replace("eu-west-1", region)
    assert endpoint.post(signed(delivery(INBOUND)) | {"SigningCertURL": url}) == 403
    assert endpoint.provider.fetched == []


@pytest.mark.parametrize(
    "page",
    [
        b"<html>",
        b"",
        certificate(rsa_key("amazon")) + b"\n" * 70_000,
        certificate(ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_invalid_certificates(page: bytes) -> None:
    endpoint = Endpoint()
    endpoint.provider.pages[CERTIFICATE] = page
    assert [endpoint.post(signed(delivery(INBOUND))) for _ in range(3)] == [403] * 3
    assert (endpoint.provider.fetched, endpoint.heard) == ([CERTIFICATE], [])


@pytest.mark.parametrize(
    "url",
    [
        CERTIFICATE.replace("https", "http"),
        CERTIFICATE.replace("amazonaws.com", "amazonaws.com.evil.org"),
        CERTIFICATE.replace("amazonaws.com", "amazonaws.com@evil.org"),
        CERTIFICATE.replace("amazonaws.com", "amazonaws.com:8443"),
        CERTIFICATE.replace("https://", "https://evil.org/"),
        CERTIFICATE.replace("sns.eu-west-1", "sns.s3"),
        CERTIFICATE.replace("sns.eu-west-1", "sns.s3-eu-west-1"),
        CERTIFICATE.replace("sns.eu-west-1", "evil.sns.eu-west-1"),
        CERTIFICATE.replace("eu-west-1", "eu-west-1\n"),
        CERTIFICATE + "?x=1",
        CERTIFICATE + "\n",
        CERTIFICATE.removesuffix(".pem"),
        "",
    ],
)
def test_certificates_of_other_hosts_are_not_fetched(url: str) -> None:
    endpoint = Endpoint()
    endpoint.provider.pages[url] = certificate(rsa_key("evil"))
    assert endpoint.post(signed(delivery(INBOUND), who="evil") | {"SigningCertURL": url}) == 403
    assert (endpoint.provider.fetched, endpoint.heard) == ([], [])


def test_a_certificate_in_china() -> None:
    topic = "arn:aws-cn:sns:cn-north-1:123456789012:sms"
    endpoint = Endpoint(topics=topic)
    url = "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem"
    endpoint.provider.pages[url] = certificate(rsa_key("amazon"))
    told = signed(delivery(INBOUND, TopicArn=topic))
    assert endpoint.post(told | {"SigningCertURL": url}) == 204


def test_genuine_messages_of_a_foreign_topic_are_refused() -> None:
    endpoint = Endpoint()
    assert endpoint.post(signed(delivery(INBOUND, TopicArn=OTHER_TOPIC))) == 403
    assert endpoint.post(signed(confirmation(TopicArn=OTHER_TOPIC))) == 403
    assert (endpoint.provider.fetched, endpoint.heard) == ([], [])


def test_several_topics() -> None:
    endpoint = Endpoint(topics=[TOPIC, OTHER_TOPIC])
    assert endpoint.post(signed(delivery(INBOUND))) == 204
    assert endpoint.post(signed(delivery(INBOUND, TopicArn=OTHER_TOPIC))) == 204
    assert endpoint.post(signed(delivery(INBOUND, TopicArn=f"{TOPIC}2"))) == 403


def test_a_signature_with_another_key_is_refused() -> None:
    endpoint = Endpoint()
    assert endpoint.post(signed(delivery(INBOUND), who="evil")) == 403


CHANGES: list[dict[str, Any]] = [
    {"Message": json.dumps(INBOUND | {"messageBody": "bye"})},
    {"MessageId": "other"},
    {"Subject": "new"},
    {"Timestamp": "now"},
    {"Type": "UnsubscribeConfirmation", "Token": "1", "SubscribeURL": CONFIRM},
    {"Type": "Other"},
    {"Type": None},
    {"Message": None},
    {"Signature": None},
    {"Signature": "!"},
    {"SignatureVersion": "1"},
    {"SignatureVersion": None},
    {"SigningCertURL": None},
    {"TopicArn": None},
    {"Timestamp": None},
]


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("change", CHANGES, ids=json.dumps)
def test_changed_messages(change: dict[str, Any], gone: bool) -> None:
    endpoint = Endpoint()
    stamp = (datetime.now(UTC) - timedelta(seconds=9)).isoformat()
    told = signed(delivery(INBOUND, Timestamp=stamp)) | change
    if change == {"Timestamp": "now"}:
        told["Timestamp"] = datetime.now(UTC).isoformat()
    told = {name: value for name, value in told.items() if not gone or value is not None}
    assert endpoint.post(told) == 403
    assert endpoint.heard == []


@pytest.mark.parametrize(
    ("late", "taken"), [(-3, False), (-1, True), (0, True), (1, True), (3, False)]
)
def test_replays(late: int, taken: bool) -> None:
    endpoint = Endpoint()
    stamp = (datetime.now(UTC) + timedelta(hours=late)).isoformat().replace("+00:00", "Z")
    assert endpoint.post(signed(delivery(INBOUND, Timestamp=stamp))) == (204 if taken else 403)
    longer = Endpoint(replay_window=6 * 3600.0)
    assert longer.post(signed(delivery(INBOUND, Timestamp=stamp))) == 204


@pytest.mark.parametrize("stamp", ["", "soon", "2999-01-01T00:00:00Z", "no zone"])
def test_invalid_times(stamp: str) -> None:
    if stamp == "no zone":
        stamp = datetime.now(UTC).replace(tzinfo=None).isoformat()
    assert Endpoint().post(signed(delivery(INBOUND, Timestamp=stamp))) == 403


def test_a_subscription_is_confirmed() -> None:
    endpoint = Endpoint()
    assert endpoint.post(signed(confirmation())) == 204
    assert endpoint.provider.fetched == [CERTIFICATE, CONFIRM]


def test_a_failed_confirmation_is_answered_503() -> None:
    endpoint = Endpoint()
    del endpoint.provider.pages[CONFIRM]
    assert endpoint.post(signed(confirmation())) == 503


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.org/?Action=ConfirmSubscription",
        "http://169.254.169.254/latest/meta-data/?Action=ConfirmSubscription",
        CONFIRM.replace("eu-west-1", "s3"),
        CONFIRM.replace("ConfirmSubscription", "DeleteTopic"),
        CONFIRM.replace("/?", "@evil.org/?"),
        CONFIRM.replace(TOPIC, OTHER_TOPIC),
        f"{CONFIRM}&TopicArn={OTHER_TOPIC}",
        f"{CONFIRM} HTTP/1.1",
    ],
)
def test_a_subscription_is_confirmed_at_amazon_only(url: str, insecure: bool) -> None:
    endpoint = Endpoint(insecure=insecure)
    endpoint.provider.pages[url] = b"<ok/>"
    assert endpoint.post(signed(confirmation(SubscribeURL=url))) == 403
    assert url not in endpoint.provider.fetched


@pytest.mark.parametrize("topics", [None, [TOPIC]])
def test_only_our_topics_are_confirmed_even_if_insecure(topics: Any) -> None:
    endpoint = Endpoint(insecure=True, topics=topics)
    url = CONFIRM.replace(TOPIC, OTHER_TOPIC)
    endpoint.provider.pages[url] = b"<ok/>"
    assert endpoint.post(confirmation(TopicArn=OTHER_TOPIC, SubscribeURL=url)) == 403
    assert endpoint.post(confirmation(TopicArn=None)) == 403
    assert endpoint.post(confirmation()) == 403  # nothing is fetched for what is not signed
    assert endpoint.provider.fetched == []
    assert endpoint.post(signed(confirmation())) == (204 if topics else 403)
    assert endpoint.provider.fetched == ([CERTIFICATE, CONFIRM] if topics else [])


def test_an_unsubscribed_endpoint_is_not_subscribed_again() -> None:
    endpoint = Endpoint()
    assert endpoint.post(signed(confirmation(Type="UnsubscribeConfirmation"))) == 204
    assert endpoint.provider.fetched == [CERTIFICATE]


def test_a_message_that_is_not_recorded_is_answered_503() -> None:
    endpoint = Endpoint()
    endpoint.client = client_of_failing_gateway(EXAMPLES)
    assert endpoint.post(signed(delivery(INBOUND))) == 503


def test_raw_delivery_is_malformed_even_if_insecure() -> None:
    endpoint = Endpoint(insecure=True)
    assert endpoint.post(INBOUND) == 400
    assert endpoint.heard == []


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsqueue.providers.aws_messaging.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"smsqueue-gateway\[aws\]"):
        Endpoint()


# --- what is fetched ----------------------------------------------------------------------------


def fetched(answer: Answer) -> bytes:
    config = {"region": "eu-west-1", "topics": TOPIC}
    examples = Examples(provider=AwsMessagingProvider, config=config, good=GOOD)
    with Stub(answer) as stub:
        _, provider, _ = made(examples, "http://127.0.0.1:9")
        page: bytes = provider.fetch(f"{stub.url}/a.pem")
    assert [(seen.method, seen.target) for seen in stub.seen] == [("GET", "/a.pem")]
    assert "Authorization" not in stub.seen[0].headers
    return page


def test_fetching() -> None:
    assert fetched(Answer(200, "a page")) == b"a page"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, "a page"),
        Answer(500, "a page"),
        Answer(302, "", {"Location": "http://127.0.0.1:9/"}),
        Answer(cut=True),
        Answer(200, "x" * 300_000),
    ],
    ids=["missing", "failed", "redirect", "cut", "long"],
)
def test_failed_fetches(answer: Answer) -> None:
    with pytest.raises(ServiceUnavailable):
        fetched(answer)
