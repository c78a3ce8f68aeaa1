"""Webhooks with a URL prefix of their own, or restricted to networks."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receivers import create_app
from smsqueue import Gateway, Settings
from smsqueue.configuration.environment_providers import add_providers
from smsqueue.settings import SettingsError
from tests.receivers.plugin import HELLO, Heard, PluginProvider

GENERAL, OWN, NEW = "general-prefix", "prefix-of-the-unsigned", "the-newer-of-its-prefixes"


def _gateway(**changed: Any) -> Gateway:
    settings = {"receiver_prefix": (GENERAL, "older-general-prefix"), "eager": True} | changed
    return Gateway(Settings(**settings))


def _post(app: Flask, path: str, peer: str = "203.0.113.9", **headers: str) -> int:
    client: FlaskClient = app.test_client()
    base: Any = {"REMOTE_ADDR": peer}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, json=HELLO, headers=named, environ_base=base).status_code


def test_a_provider_with_its_own_prefix_has_no_other_url() -> None:
    gateway, heard = _gateway(public_url="https://sms.example.org"), Heard()
    gateway.onReceive += lambda message: heard.append((message.provider, message.body))
    gateway.add_provider("main", PluginProvider)
    gateway.add_provider("own", PluginProvider, webhook_prefix=[f"/{NEW}/", OWN])
    app = create_app(gateway=gateway)
    for prefix in (OWN, NEW):
        assert _post(app, f"/{prefix}/own/im") == 200
        assert _post(app, f"/{prefix}/main/im") == 404
    for prefix in gateway.settings.receiver_prefix:
        assert _post(app, f"/{prefix}/main/im") == 200
        assert _post(app, f"/{prefix}/own/im") == 404
    assert [provider for provider, _ in heard] == ["own", "own", "main", "main"]
    assert gateway.webhook_prefixes("own") == (NEW, OWN)
    assert OWN not in repr(gateway.webhook_access("own"))


def test_a_blueprint_registered_by_hand_is_also_limited_to_its_prefix() -> None:
    gateway = _gateway()
    gateway.add_provider("own", PluginProvider, webhook_prefix=OWN)
    app = Flask(__name__)
    for name, blueprint in gateway.receiver_blueprints():
        app.register_blueprint(blueprint, url_prefix=f"/{GENERAL}/{name}")
    for name, blueprint in gateway.receiver_blueprints():
        app.register_blueprint(blueprint, url_prefix=f"/sms/{OWN}/{name}")
    assert _post(app, f"/{GENERAL}/own/im") == 404
    assert _post(app, f"/sms/{OWN}/own/im") == 200


def test_no_general_prefix_is_needed_if_all_have_their_own() -> None:
    gateway = _gateway(receiver_prefix=())
    gateway.add_provider("own", PluginProvider, webhook_prefix=OWN)
    app = create_app(gateway=gateway)
    assert _post(app, f"/{OWN}/own/im") == 200
    assert _post(app, "/own/im") == 404
    gateway.add_provider("main", PluginProvider)
    with pytest.raises(SettingsError, match="SMSQUEUE_RECEIVER_PREFIX is not set"):
        create_app(gateway=gateway)


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("/", "empty|letters"),
        ("a", "guessed"),
        ("aaaaaaaaaaaa", "guessed"),
        ("a b c d e f g", "letters"),
        (GENERAL, "overlaps with the prefix"),
        (f"{GENERAL}/x7f9q2", "overlaps with the prefix"),
        ("prefix-of-another", "overlaps with the prefix"),
    ],
)
def test_a_prefix_that_protects_nothing_is_refused_and_not_shown(prefix: str, why: str) -> None:
    gateway = _gateway()
    gateway.add_provider("another", PluginProvider, webhook_prefix="prefix-of-another")
    with pytest.raises(SettingsError, match=why) as caught:
        gateway.add_provider("own", PluginProvider, webhook_prefix=prefix)
    assert len(prefix) < 6 or prefix not in str(caught.value)
    assert "own" not in gateway.providers


def test_the_environment_gives_both() -> None:
    gateway = _gateway()
    address = f"africastalking://user:key@default?webhook_prefix={NEW},{OWN}&webhook_sources="
    named = {"SMSQUEUE_PROVIDER_AT": f"{address}192.0.2.0/24,2001:db8::/32"}
    add_providers(gateway, named)
    app = create_app(gateway=gateway)
    for peer, status in (("192.0.2.7", 200), ("2001:db8::7", 200), ("192.0.3.7", 403)):
        client = app.test_client()
        form = {"from": "+15551234567", "to": "1", "text": "hi", "id": peer}
        answer = client.post(f"/{OWN}/at/im", data=form, environ_base={"REMOTE_ADDR": peer})
        assert answer.status_code == status
    for text, why in (("192.0.2.1/24", "did you mean 192.0.2.0/24"), ("x", "is not a network")):
        with pytest.raises(SettingsError, match=why):
            add_providers(_gateway(), {"SMSQUEUE_PROVIDER_AT": address + text})
    with pytest.raises(SettingsError, match="empty"):
        add_providers(_gateway(), {"SMSQUEUE_PROVIDER_AT": address})


#: Peer, X-Forwarded-For, and whether it may come in: 192.0.2.0/24 and 2001:db8::/32 may.
CALLS = {
    # Nobody's header is believed by default.
    (): [
        ("192.0.2.7", None, True),
        ("192.0.2.7", "203.0.113.9", True),
        ("::ffff:192.0.2.7", None, True),
        ("2001:db8::7", None, True),
        ("203.0.113.9", None, False),
        ("203.0.113.9", "192.0.2.7", False),
        ("127.0.0.1", "192.0.2.7", False),
        ("2001:db9::7", "192.0.2.7", False),
        ("localhost", "192.0.2.7", False),
        ("", "192.0.2.7", False),
    ],
    ("10.0.0.0/8", "::1", "unix"): [
        ("10.1.2.3", "192.0.2.7", True),
        ("::1", "192.0.2.7", True),
        ("10.1.2.3", "192.0.2.7:4711", True),
        ("10.1.2.3", "[2001:db8::7]:4711", True),
        ("10.1.2.3", "192.0.2.7, 10.9.9.9", True),
        ("localhost", "192.0.2.7", True),  # of a Unix socket
        # What the client wrote itself stands before what the proxy saw.
        ("10.1.2.3", "192.0.2.7, 203.0.113.9", False),
        ("10.1.2.3", "192.0.2.7, 203.0.113.9, 10.9.9.9", False),
        ("10.1.2.3", "192.0.2.7, nonsense", False),
        ("10.1.2.3", "192.0.2.7,", False),
        ("10.1.2.3", None, False),
        ("203.0.113.9", "192.0.2.7", False),
        ("192.0.2.7", "203.0.113.9", True),
    ],
}


@pytest.mark.parametrize("trusted", CALLS)
def test_only_listed_networks_may_call(trusted: tuple[str, ...], caplog: Any) -> None:
    gateway, heard = _gateway(trusted_proxies=trusted), Heard()
    gateway.onReceive += lambda message: heard.append((message.provider, message.body))
    networks = ["192.0.2.0/24", "2001:db8::/32"]
    gateway.add_provider("listed", PluginProvider, webhook_sources=networks)
    gateway.add_provider("open", PluginProvider)
    app = create_app(gateway=gateway)
    for peer, forwarded, good in CALLS[trusted]:
        heard.clear()
        headers = {} if forwarded is None else {"X_Forwarded_For": forwarded}
        status = _post(app, f"/{GENERAL}/listed/im", peer, **headers)
        assert (status, len(heard)) == ((200, 1) if good else (403, 0)), (peer, forwarded)
        assert _post(app, f"/{GENERAL}/open/im", peer, **headers) == 200
    assert "is not in webhook_sources" in caplog.text


def test_a_header_that_everybody_could_write_is_not_trusted() -> None:
    for network in ("0.0.0.0/0", "::/0"):
        with pytest.raises(SettingsError, match="any client could forge"):
            Settings(trusted_proxies=(network,))
    with pytest.raises(SettingsError, match=r"did you mean 10\.0\.0\.0/8"):
        Settings(trusted_proxies=("10.1.2.3/8",))
