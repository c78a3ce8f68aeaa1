"""Providers that the environment names."""

from __future__ import annotations

from pathlib import Path

import pytest

from smsqueue import Gateway, Settings
from smsqueue.environment import add_providers
from smsqueue.loader import LoaderError, load_gateway
from smsqueue.messages import OutgoingMessage
from smsqueue.providers import LogProvider
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


def test_arguments_are_read_as_what_they_are() -> None:
    assert url_of("gatewayapi://token:secret@default?eu=0") == "https://gatewayapi.com"
    assert url_of("gatewayapi://token:secret@default?eu=true") == "https://gatewayapi.eu"
    gateway = made(SMSQUEUE_PROVIDER_MAIN="telnyx://KEY:key@default?dedup_window=86400")
    assert gateway.get_provider("main").dedup_window == 86400
    gateway = made(SMSQUEUE_PROVIDER_MAIN="plivo://MA1@default?auth_token=new,old&v2=false")
    with Stub(Answer(202, {"message_uuid": ["P1"]})) as stub:
        gateway.get_provider("main").url = stub.url  # type: ignore[attr-defined]
        gateway.send(OutgoingMessage("+15551234567", "hello", "15550009999"))
    assert stub.seen[0].headers["Authorization"] == "Basic TUExOm5ldw=="  # MA1:new


def url_of(variable: str) -> str:
    url: str = made(SMSQUEUE_PROVIDER_MAIN=variable).get_provider("main").url  # type: ignore[attr-defined]
    return url


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
        ("pigeon://default", "'pigeon', which is no provider: there are .*twilio"),
        ("twilio://default", "lacks one"),
        ("twilio://AC1@default", "ValueError: Twilio needs an auth_token"),
        (f"twilio://{SID}:secret-word@default?colour=red", "does not take these arguments"),
        (f"twilio://{SID}:secret-word@default?read_timeout=soon", "read_timeout cannot be read"),
        ("log://user:secret-word@default", "takes no user and password"),
        ("twilio://a:secret-word@[::1", "cannot be read"),
        (f"twilio://{SID}:tok@default?from=1&secret-word", "does not take these arguments"),
        (f"twilio://{SID}:secret-word@default?ignore=colour", "ValueError: 'colour'"),
        ("gatewayapi://secret-word@default?eu=perhaps", "eu cannot be read"),
        ("sinch://plan:secret-word@default?replay_window=day", "replay_window cannot be read"),
    ],
)
def test_a_mistake_is_said_without_the_value(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        made(SMSQUEUE_PROVIDER_MAIN=url)
    assert str(caught.value).startswith("SMSQUEUE_PROVIDER_MAIN")
    assert "secret-word" not in str(caught.value)


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
