"""Providers that the environment names."""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from smsqueue import Gateway, Settings
from smsqueue.configuration.environment_providers import add_providers
from smsqueue.configuration.loader import LoaderError, load_gateway
from smsqueue.message.messages import OutgoingMessage
from smsqueue.providers import LogProvider, NullProvider
from smsqueue.providers.authentic import hmac_base64
from smsqueue.providers.forward import ForwardClientProvider, ForwardServerProvider
from smsqueue.settings import SettingsError
from smsqueue.testing.stub import Answer, Stub

SID = "AC" + "0" * 32
GOOD = Answer(201, {"sid": "SM1"})


def made(**environment: str) -> Gateway:
    gateway = Gateway(Settings(eager=True))
    add_providers(gateway, {"PATH": "/bin"} | environment)
    return gateway


def test_a_provider_with_user_password_and_a_plus() -> None:
    with Stub(GOOD) as stub:
        gateway = made(
            SMSQUEUE_PROVIDER_MAIN=f"twilio://{SID}:to%2Fken@default?from=+15550009999&url={stub.url}"
        )
        gateway.send(OutgoingMessage("+15551234567", "hello"))
    assert gateway.default_provider == "main"
    [seen] = stub.seen
    assert seen.form["From"] == "+15550009999"
    assert seen.path == f"/2010-04-01/Accounts/{SID}/Messages.json"


def test_another_host_and_arguments_that_are_no_texts() -> None:
    gateway = made(
        SMSQUEUE_PROVIDER_SIM="simulator://main:word@127.0.0.1:8800?read_timeout=2.5&pool_size=7"
    )
    assert gateway.get_provider("sim").url == "http://127.0.0.1:8800"  # type: ignore[attr-defined]


def test_several_secrets_and_a_switch() -> None:
    gateway = made(SMSQUEUE_PROVIDER_MAIN="plivo://MA1@default?auth_token=new,old&v2=false")
    with Stub(Answer(202, {"message_uuid": ["P1"]})) as stub:
        gateway.get_provider("main").url = stub.url  # type: ignore[attr-defined]
        gateway.send(OutgoingMessage("+15551234567", "hello", "15550009999"))
    assert stub.seen[0].headers["Authorization"] == "Basic TUExOm5ldw=="  # MA1:new


def test_a_forward_client_and_a_forward_server() -> None:
    gateway = made(
        SMSQUEUE_PROVIDER_FAR="forward-client://sms.example.com/prefix/forward?secret=new,old"
        "&dedup_window=60&window=9.5&max_hops=2",
        SMSQUEUE_PROVIDER_NEAR="forward-server://default?secret=x"
        "&clients=https://a.example.com/p/far,https://b.example.com/p/far",
        SMSQUEUE_DEFAULT_PROVIDER="far",
    )
    far, near = gateway.get_provider("far"), gateway.get_provider("near")
    assert isinstance(far, ForwardClientProvider)
    assert isinstance(near, ForwardServerProvider)
    assert (far.url, far.dedup_window) == ("https://sms.example.com/prefix/forward", 60.0)
    assert near.clients == ["https://a.example.com/p/far", "https://b.example.com/p/far"]
    for name in ("far", "near"):
        assert gateway.receiver_blueprint_for(name)


def test_several_need_a_default() -> None:
    two = {"SMSQUEUE_PROVIDER_A": "log://default", "SMSQUEUE_PROVIDER_B": "null://default"}
    with pytest.raises(SettingsError, match=r"which one is the default\? Set SMSQUEUE_DEFAULT"):
        made(**two)
    gateway = made(**two, SMSQUEUE_DEFAULT_PROVIDER="b")
    assert (list(gateway.providers), gateway.default_provider) == (["a", "b"], "b")


def test_the_default_may_be_one_of_the_modules() -> None:
    gateway = Gateway(Settings(eager=True))
    gateway.add_provider("own", LogProvider)
    add_providers(gateway, {"SMSQUEUE_PROVIDER_A": "log://", "SMSQUEUE_PROVIDER_B": "null://"})
    assert gateway.default_provider == "own"
    with pytest.raises(SettingsError, match="adds a provider 'own' itself"):
        add_providers(gateway, {"SMSQUEUE_PROVIDER_OWN": "log://default"})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("pigeon://default", "'pigeon', which is not a provider; choose .*twilio"),
        ("", "is not a provider URL: write it as twilio://"),
        ("secret-word", "is not a provider URL"),
        (f"{SID}:secret-word@default", "is not a provider URL"),
        ("twilio://default", "TwilioProvider lacks 'account_sid'"),
        ("aws-sns://AKIA:secret-word@default", "AwsSnsProvider lacks 'region'"),
        ("twilio://AC1@default", "MAIN: Twilio needs an auth_token"),
        (f"twilio://{SID}:secret-word@default?colour=red", "does not take one of these arg"),
        (
            f"twilio://{SID}:tok@default?webhook_source=secret-word",
            "'webhook_source' .did you mean",
        ),
        (f"twilio://{SID}:tok@default?sendr=1", "'sendr' .did you mean sender.*webhook_sources"),
        (f"twilio://{SID}:tok@default?from=1&secret-word", "it takes: account_sid, api_key, .*url"),
        (f"twilio://{SID}:tok@default?name=secret-word", "does not take one of these arguments"),
        ("log://user:secret-word@default", "takes no user and password"),
        (f"twilio://{SID}:secret-word@default?ignore=colour", "unknown capability"),
        ("bird://secret-word@default", "does not begin with bk_<region>_: set region="),
        (f"twilio://{SID}:secret-word@default?from=1&from=2", "sender is set twice"),
        (f"twilio://{SID}:secret-word@default?auth_token=x", "auth_token is set twice"),
        (f"twilio://{SID}:secret-word@default?url=ftp://secret-word/", "must begin with http"),
        # Secrets that were not escaped.
        (f"twilio://{SID}:1/secret-word@default", "special characters as %XX"),
        (f"twilio://{SID}:1#secret-word@default", "special characters as %XX"),
        ("aws-sns://AKIA:12/secret-word@default?region=eu-west-1", "special characters as %XX"),
        (f"twilio://{SID}:tok@default?secret=x#secret-word", "special characters as %XX"),
        (f"twilio://{SID}:secret-word%ff@default", "special characters as %XX"),
        (f"twilio://{SID}:secret-word@default/path", "special characters as %XX"),
        ("twilio://a:secret-word@[::1", "is not a provider URL"),
        ("twilio://a:secret-word@host:99999", "is not a provider URL"),
        # What is no text.
        ("messagebird://secret-word@default?read_timeout=soon", "read_timeout .* a number"),
        ("messagebird://secret-word@default?read_timeout=nan", "read_timeout .* a number"),
        ("messagebird://secret-word@default?read_timeout=0", "must be more than 0"),
        ("sinch://plan:secret-word@default?replay_window=day", "replay_window .* a number"),
        ("messagebird://secret-word@default?pool_size=1.5", "pool_size .* a whole number"),
        ("gatewayapi://secret-word@default?eu=maybe", "eu is invalid: .*true or false"),
        ("twilio://secret-word@default?api_key=SK1", "api_key .* two strings separated by a comma"),
        ("vianett://u:secret-word@default?codes=1", "codes cannot be set in a URL"),
        ("log://?logger=secret-word", "logger cannot be set in a URL"),
        ("messagebird://secret-word@default?secret=", "a secret is empty"),
    ],
)
def test_a_mistake_is_one_line_without_the_value(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        made(SMSQUEUE_PROVIDER_MAIN=url)
    assert str(caught.value).startswith("SMSQUEUE_PROVIDER_MAIN")
    assert "\n" not in str(caught.value)
    assert "secret-word" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "attribute", "value"),
    [
        ("gatewayapi://token@default?eu=false", "url", "https://gatewayapi.com"),
        ("gatewayapi://token@default?eu=true", "url", "https://gatewayapi.eu"),
        ("messagebird://key@[::1]:8800/a", "url", "https://[::1]:8800/a"),
        ("messagebird://key@default?ignore=validity,lookup", "ignore", {"validity", "lookup"}),
        ("telnyx://key@default?dedup_window=60", "dedup_window", 60.0),
        (" LOG://default?show_body=true\n", "show_body", True),
    ],
)
def test_arguments_that_are_no_texts(url: str, attribute: str, value: object) -> None:
    provider = made(SMSQUEUE_PROVIDER_MAIN=url).get_provider("main")
    assert getattr(provider, attribute) == value


def test_a_number_a_word_and_a_pair_reach_the_request() -> None:
    with Stub(Answer(200, '<ack errorcode="200"/>'), GOOD) as stub:
        host = stub.url.removeprefix("http://")
        gateway = made(
            SMSQUEUE_PROVIDER_V=f"vianett://u:p@default?numeric_ids=false&reply_minutes=5&url={stub.url}",
            SMSQUEUE_PROVIDER_T=f"twilio://{SID}:x@default?from=123&api_key=SK1,a%2Cb&url=http://{host}",
            SMSQUEUE_DEFAULT_PROVIDER="v",
        )
        message = OutgoingMessage("+15551234567", "hello")
        message.reference = "id.1"
        gateway.send(message)
        gateway.send(OutgoingMessage("+15551234567", "hello", provider="t"))
    first, second = stub.seen
    assert (first.form["msgid"], first.form["ReplyPathValue"]) == ("id.1", "5")
    assert second.headers["Authorization"] == "Basic " + b64encode(b"SK1:a,b").decode()


def test_secrets_that_rotate_have_commas_between_them() -> None:
    secrets = ",".join("whsec_" + b64encode(key).decode() for key in (b"new", b"old"))
    gateway = made(SMSQUEUE_PROVIDER_B=f"bird://bk_eu1_key@default?secret={secrets}")
    heard: list[Any] = []
    gateway.onStatus += heard.append
    client = gateway.receiver_blueprints_register(Flask("b")).test_client()
    body, now = b'{"type": "sms.sent", "data": {"sms_id": "1"}}', str(int(time.time()))
    for key, status in ((b"new", 204), (b"old", 204), (b"another", 403)):
        headers = {"webhook-id": "1", "webhook-timestamp": now}
        headers["webhook-signature"] = f"v1,{hmac_base64(key, f'1.{now}.'.encode() + body)}"
        assert client.post("/b/status", data=body, headers=headers).status_code == status
    assert len(heard) == 2


def test_two_variables_that_mean_one_name() -> None:
    with pytest.raises(SettingsError, match="PROVIDER_MAIN and SMSQUEUE_PROVIDER_main are one"):
        made(SMSQUEUE_PROVIDER_MAIN="log://", SMSQUEUE_PROVIDER_main="null://")


class Fails(NullProvider):
    """A provider of somebody's own, which quotes what it is given."""

    def __init__(self, gateway: Any, name: str, *, key: str = "", n: int = 0) -> None:
        super().__init__(gateway, name)
        if n:
            raise OSError(key)
        raise ValueError(f"what is {key}?\nnothing")


# As where they are no texts.
Fails.__init__.__annotations__.update({"key": str | None, "n": int})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("pigeon://?key=secret-word", r"PIGEON: what is \.\.\.\?$"),
        ("pigeon://?key=secret-word&n=1", r"PIGEON: Fails cannot be created \(OSError\)$"),
        ("pigeon://?n=secret-word", "n is invalid: it must be a whole number"),
    ],
)
def test_errors_of_a_provider_of_another_package(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setattr("smsqueue.providers.base.provider_from_url.load", lambda name: Fails)
    with pytest.raises(SettingsError, match=said):
        made(SMSQUEUE_PROVIDER_PIGEON=url)


@pytest.mark.parametrize(
    ("found", "said"),
    [(ImportError("no flock"), r"loaded \(ImportError: no flock\)"), (len, "is not a class")],
)
def test_a_package_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, found: Any, said: str
) -> None:
    def load(name: str) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("smsqueue.providers.base.provider_from_url.load", load)
    with pytest.raises(SettingsError, match=f"PIGEON names the provider 'pigeon', which .*{said}"):
        made(SMSQUEUE_PROVIDER_PIGEON="pigeon://default")


def test_a_default_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"SMSQUEUE_DEFAULT_PROVIDER is 'b', but .* none"):
        made(SMSQUEUE_DEFAULT_PROVIDER="b")


def test_a_gateway_needs_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_PROVIDER_MAIN", "log://default")
    assert list(load_gateway(Settings(gateway=""), queued=True).providers) == ["main"]


def test_the_loader_adds_them_to_the_modules_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_own_sms.py").write_text(
        "from smsqueue import Gateway\nfrom smsqueue.providers import NullProvider\n"
        "gateway = Gateway()\ngateway.add_provider('own', NullProvider)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SMSQUEUE_PROVIDER_MAIN", "log://default")
    settings = Settings(gateway="with_own_sms:gateway")
    for _ in range(2):  # a module's gateway is there once, however often it is loaded
        assert list(load_gateway(settings).providers) == ["own", "main"]
    monkeypatch.setenv("SMSQUEUE_PROVIDER_MAIN", "pigeon://default")
    monkeypatch.setenv("SMSQUEUE_PROVIDER_OTHER", "pigeon://default")
    with pytest.raises(LoaderError, match="SMSQUEUE_PROVIDER_OTHER begins with 'pigeon'"):
        load_gateway(settings)
