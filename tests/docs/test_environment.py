"""The lines for the environment on the providers' pages: a copied one sends and receives."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask

from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.configuration.environment_providers import add_providers
from smsqueue.providers.base.installed_providers import load
from smsqueue.providers.capabilities import Can
from smsqueue.testing.stub import Answer, Stub
from tests.docs.pages import DOCS, accounts, page_of, words_of

URL, PREFIX = "https://sms.example.org", "prefix"
LINE = re.compile(r"(SMSQUEUE_PROVIDER_\w+)=(([\w-]+)://[^\s`]+)")
#: What a line names that is not on this machine.
KEY_FILE = "/etc/smsqueue/vonage.key"
RECEIVE = [name for name, each in accounts().items() if Can.INBOUND in each.capabilities]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key as Vonage gives one."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path_factory.mktemp("vonage") / "vonage.key"
    path.write_bytes(pem)
    return path


def gateway_of(name: str, key_file: Path) -> Gateway:
    """What the line of a provider's page makes, as workers and receivers read it."""
    text = page_of(name).read_text("utf-8")
    lines = [(found[1], found[2]) for found in LINE.finditer(text) if found[3] == name]
    assert len(lines) == 1, f"the page has {len(lines)} lines SMSQUEUE_PROVIDER_...={name}://..."
    [(variable, address)] = lines
    gateway = Gateway(Settings(eager=True, public_url=URL, receiver_prefix=(PREFIX,)))
    add_providers(gateway, {variable: address.replace(KEY_FILE, str(key_file))})
    return gateway


def provider_of(gateway: Gateway) -> Any:
    return gateway.get_provider(str(gateway.default_provider))


@pytest.mark.parametrize("name", [*RECEIVE, "forward-client", "forward-server"])
def test_a_line_makes_the_provider_and_its_receiver(name: str, key_file: Path) -> None:
    gateway = gateway_of(name, key_file)
    provider = provider_of(gateway)
    assert type(provider) is load(name)
    assert gateway.receiver_blueprint_for(provider.name)


@pytest.mark.parametrize("name", accounts())
def test_a_line_sends(name: str, key_file: Path) -> None:
    gateway = gateway_of(name, key_file)
    with Stub(Answer(400, {})) as stub:
        provider_of(gateway).url = stub.url
        with suppress(exc.ProviderError):
            gateway.send(OutgoingMessage("+15551234567", "hello"))
    assert len(stub.seen) == 1
    # Some providers refuse what has no sender only when it is there: the example knows which.
    needed = 'sender="' in page_of(name).read_text("utf-8")
    assert bool(provider_of(gateway).sender) == needed


@pytest.mark.parametrize("name", accounts())
def test_a_page_tells_what_user_and_password_stand_for(name: str) -> None:
    user, password = load(name).url_arguments
    told = f"User and password of the address are `{user}` and `{password}`"
    assert told in words_of(name)


@pytest.mark.parametrize("name", RECEIVE)
def test_the_addresses_to_enter_are_those_of_the_line(name: str, key_file: Path) -> None:
    gateway = gateway_of(name, key_file)
    app = gateway.receiver_blueprints_register(Flask(__name__), PREFIX)
    served = {rule.rule for rule in app.url_map.iter_rules()}
    shown = set(re.findall(rf"{re.escape(URL)}/<prefix>(/\w+/\w+)", words_of(name)))
    assert shown
    assert {f"/{PREFIX}{path}" for path in shown} <= served


def test_no_address_has_its_scheme_twice() -> None:
    for page in DOCS.rglob("*.md"):
        assert "://<SMSQUEUE_PUBLIC_URL>" not in page.read_text("utf-8"), page.name
