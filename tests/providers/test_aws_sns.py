"""Amazon SNS, and what the AWS providers share: credentials and signatures."""

from __future__ import annotations

import hashlib
import hmac
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.providers.aws_sns import AwsSnsProvider
from smsqueue.settings import SettingsError
from smsqueue.testing.contract import Check, checks, failure, made
from smsqueue.testing.examples import Examples, Refusal, Sending, message
from smsqueue.testing.stub import Answer, Seen, Stub
from tests.providers.helpers import account

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "aws-secret-key", "aws-session-token"
GOOD = Answer(
    200,
    '<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>'
    "<MessageId>S1</MessageId></PublishResult><ResponseMetadata><RequestId>R1</RequestId>"
    "</ResponseMetadata></PublishResponse>",
)


def check_signature(seen: Seen, service: str, secret: str = SECRET) -> None:
    """Signature version 4, as AWS describes it."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\w+)/((\d{8})/([\w-]+)/([\w-]+)/aws4_request), "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        seen.headers["Authorization"],
    )
    assert found is not None
    key, scope, day, region, signed_for, names, signature = found.groups()
    assert (key, region, signed_for) == (KEY, "eu-west-1", service)
    assert {"host", "x-amz-date", "content-type"} <= set(names.split(";"))
    headers = {name.lower(): value for name, value in seen.headers.items()}
    lines = [f"{name}:{headers[name]}" for name in names.split(";")]
    body = hashlib.sha256(seen.body).hexdigest()
    request = "\n".join([seen.method, seen.path, "", *lines, "", names, body])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, digest])
    made_key = f"AWS4{secret}".encode()
    for each in (day, region, service, "aws4_request", text):
        made_key = hmac.new(made_key, each.encode(), "sha256").digest()
    assert made_key.hex() == signature


def refused(
    code: str, status: int, error: type[exc.ProviderError], *, ambiguous: bool = False
) -> Refusal:
    body = (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
        "<Message>+15551234567</Message></Error><RequestId>R1</RequestId></ErrorResponse>"
    )
    return Refusal(f"{code} {status}", Answer(status, body), error, code, ambiguous)


def form(**attributes: tuple[str, str]) -> dict[str, str]:
    wanted = {
        "Action": "Publish",
        "Version": "2010-03-31",
        "PhoneNumber": "+15551234567",
        "Message": "hello",
    }
    for n, (name, (kind, value)) in enumerate(attributes.items(), 1):
        entry = f"MessageAttributes.entry.{n}"
        wanted |= {
            f"{entry}.Name": name,
            f"{entry}.Value.DataType": kind,
            f"{entry}.Value.StringValue": value,
        }
    return wanted


SENDER, NUMBER = "AWS.SNS.SMS.SenderID", "AWS.MM.SMS.OriginationNumber"
KIND = {"AWS.SNS.SMS.SMSType": ("String", "Transactional")}

EXAMPLES = Examples(
    provider=AwsSnsProvider,
    config={"region": "eu-west-1", "access_key": KEY, "secret_key": SECRET},
    good=GOOD,
    secrets=[SECRET, KEY],
    secret=None,
    sendings=[
        Sending(
            "a text",
            message(),
            GOOD,
            "S1",
            "/",
            form=form(**KIND),
            check=lambda seen: check_signature(seen, "sns"),
        ),
        Sending(
            "a text beyond ASCII, from a number",
            message(body="żółć & more"),
            GOOD,
            "S1",
            "/",
            form=form(**KIND, **{NUMBER: ("String", "+15550009999")}) | {"Message": "żółć & more"},
            config={"sender": "+1 (555) 000-9999"},
            check=lambda seen: check_signature(seen, "sns"),
        ),
        Sending(
            "sender id, highest price, another type",
            message(senderId="Shop", params={"AWS.SNS.SMS.MaxPrice": 0.5}),
            GOOD,
            "S1",
            "/",
            form=form(
                **{
                    "AWS.SNS.SMS.SMSType": ("String", "Promotional"),
                    SENDER: ("String", "Shop"),
                    "AWS.SNS.SMS.MaxPrice": ("Number", "0.5"),
                }
            ),
            config={"message_type": "Promotional"},
        ),
    ],
    refusals=[
        refused("InvalidParameter", 400, exc.RequestError),
        refused("ParameterValueInvalid", 400, exc.RequestError),
        refused("OptedOut", 400, exc.OptedOut),
        refused("NeverHeardOf", 400, exc.RequestError),
        refused("AuthorizationError", 403, exc.AuthError),
        refused("InvalidClientTokenId", 403, exc.AuthError),
        refused("ExpiredToken", 400, exc.AuthError),
        refused("KMSAccessDenied", 400, exc.AuthError),
        refused("Throttling", 400, exc.LimitsError),
        refused("Throttled", 429, exc.LimitsError),
        refused("KMSThrottling", 400, exc.LimitsError),
        refused("InternalError", 500, exc.ServerError),
        refused("NeverHeardOf", 504, exc.ServerError, ambiguous=True),
        Refusal("403 without a code", Answer(403, ""), exc.AuthError),
        Refusal(
            "200 without an id",
            Answer(200, "<PublishResponse><MessageId></MessageId></PublishResponse>"),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal(
            "200 with an error",
            Answer(200, "<ErrorResponse><Code>InvalidParameter</Code></ErrorResponse>"),
            exc.RequestError,
            "InvalidParameter",
        ),
        refused("ServiceUnavailable", 503, exc.ServerError),
    ],
    unsupported=[message(expires=5)],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_where_the_service_is() -> None:
    def url(given: str = "", **config: Any) -> Any:
        return made(EXAMPLES, given, **config)[1].url

    assert url() == "https://sns.eu-west-1.amazonaws.com"
    assert url(region="cn-north-1") == "https://sns.cn-north-1.amazonaws.com.cn"
    assert url("https://vpce.example.org") == "https://vpce.example.org"
    with pytest.raises(ValueError, match="eu-west-1"):
        url(region="evil.example.org/")


def test_it_cannot_receive() -> None:
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9")
    with pytest.raises(NotImplementedError):
        provider.make_receiver_blueprint()


# --- credentials --------------------------------------------------------------------------------


@pytest.fixture
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Of what botocore looks at nothing is there, and no machine is asked for its role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


WITHOUT = {"access_key": None, "secret_key": None}


def test_a_session_token_is_sent_and_signed() -> None:
    with account(EXAMPLES, GOOD, session_token=TOKEN) as (provider, stub):
        provider.send(message())
    assert stub.seen[0].headers["X-Amz-Security-Token"] == TOKEN
    assert "x-amz-security-token" in stub.seen[0].headers["Authorization"]
    check_signature(stub.seen[0], "sns")


def test_credentials_are_looked_for_when_they_are_needed(
    nothing_around: pytest.MonkeyPatch,
) -> None:
    with account(EXAMPLES, GOOD, **WITHOUT) as (provider, stub):
        nothing_around.setenv("AWS_ACCESS_KEY_ID", KEY)
        nothing_around.setenv("AWS_SECRET_ACCESS_KEY", "another")
        provider.send(message())
    check_signature(stub.seen[0], "sns", "another")


def test_credentials_of_a_file(nothing_around: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ["[default]", f"aws_access_key_id={KEY}", f"aws_secret_access_key={SECRET}"]
    (tmp_path / "credentials").write_text("\n".join(lines))
    with account(EXAMPLES, GOOD, **WITHOUT) as (provider, stub):
        provider.send(message())
    check_signature(stub.seen[0], "sns")


def test_without_credentials_nothing_is_sent(nothing_around: pytest.MonkeyPatch) -> None:
    with (
        account(EXAMPLES, GOOD, **WITHOUT) as (provider, stub),
        pytest.raises(exc.AuthError, match="no AWS credentials") as caught,
    ):
        provider.send(message())
    assert (caught.value.ambiguous, caught.value.provider, stub.seen) == (False, "main", [])


def test_credentials_that_cannot_be_had(nothing_around: pytest.MonkeyPatch) -> None:
    nothing_around.setenv("AWS_PROFILE", "secret-profile")
    with (
        account(EXAMPLES, GOOD, **WITHOUT) as (provider, stub),
        pytest.raises(exc.AuthError, match="ProfileNotFound") as caught,
    ):
        provider.send(message())
    assert stub.seen == []
    assert "secret-profile" not in str(caught.value)


def test_half_of_the_credentials() -> None:
    with pytest.raises(ValueError, match="secret_key"):
        made(EXAMPLES, "http://127.0.0.1:9", secret_key=None)


def test_without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9")
    with pytest.raises(SettingsError, match=r"smsqueue-gateway\[aws\]"):
        provider.send(message())


def test_an_answer_that_is_lost_is_not_taken_for_a_refusal() -> None:
    with Stub(Answer(cut=True)) as stub:
        error = failure(EXAMPLES, stub.url, message())
    assert error.ambiguous
    assert len(stub.seen) == 1


IMPORTS = """
import sys, threading
on_loop = []

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("botocore") and threading.current_thread().name == "loop":
            on_loop.append(name)

sys.meta_path.insert(0, Finder())
from smsqueue import Gateway, OutgoingMessage
from smsqueue.concurrency.greenlet_loop import Loop
from smsqueue.providers import AwsSnsProvider
gateway = Gateway(eager=True)
provider = gateway.add_provider(
    "aws", AwsSnsProvider, region="eu-west-1", access_key="k", secret_key="s",
    url="http://127.0.0.1:1", insecure=True,
)
sent = Loop("loop").run(lambda: provider.send(OutgoingMessage("15550001", "hi")))
print(type(sent.exception(30)).__name__, "botocore.auth" in sys.modules, on_loop)
"""


def test_botocore_is_not_imported_on_the_loop_that_all_messages_share() -> None:
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60
    )
    assert found.stdout == "ConnectionError True []\n", found.stderr
