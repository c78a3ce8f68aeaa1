"""Empty and blank secrets are refused when a provider is added."""

from __future__ import annotations

from typing import Any

import pytest

from smsqueue import Gateway, Settings
from smsqueue.configuration.environment_providers import add_providers
from smsqueue.settings import SettingsError

BLANK = ("", "%20", "%20%20", "%09%0A")
NO_PASSWORD = (":", "user:", ":password", "%20:%20", "user:%20")
WITH_USERS = ("clickatell://key@default", "vianett://user:password@default")
WITH_USERS += ("sinch://plan:token@default", "infobip://key@default")
OTHERS = ("twilio://AC0:@default?from=%2B15550001", "gatewayapi://token@default")
OTHERS += ("messagebird://key@default", "vonage://key:secret@default?from=ACME")


@pytest.mark.parametrize("secret", [*BLANK, *NO_PASSWORD])
@pytest.mark.parametrize("url", WITH_USERS)
def test_a_user_without_a_password_is_refused(url: str, secret: str) -> None:
    _refused(f"{url}{'&' if '?' in url else '?'}secret={secret}")


@pytest.mark.parametrize("secret", BLANK)
@pytest.mark.parametrize("url", OTHERS)
def test_an_empty_or_blank_secret_is_refused(url: str, secret: str) -> None:
    name = {"twilio": "auth_token", "vonage": "signature_secret"}.get(url.partition(":")[0])
    _refused(f"{url}{'&' if '?' in url else '?'}{name or 'secret'}={secret}")


def _refused(url: str) -> None:
    gateway = Gateway(Settings(eager=True))
    with pytest.raises(SettingsError, match=r"SMSQUEUE_PROVIDER_MAIN.*(empty|blank|user:password)"):
        add_providers(gateway, {"SMSQUEUE_PROVIDER_MAIN": url})
    assert not gateway.providers


@pytest.mark.parametrize("users", [{"": "x"}, {"x": ""}, {" ": "x"}, {"x": " \t"}])
@pytest.mark.parametrize("kind", ["client", "server"])
def test_forwarding_takes_no_blank_user_or_password(kind: str, users: dict[str, str]) -> None:
    from smsqueue.providers import ForwardClientProvider, ForwardServerProvider

    gateway = Gateway(Settings(eager=True))
    config: dict[str, Any] = {"server_url": "https://x.org/p"} if kind == "client" else {}
    config |= {} if kind == "client" else {"clients": ["https://x.org/p"]}
    chosen: Any = ForwardClientProvider if kind == "client" else ForwardServerProvider
    with pytest.raises(SettingsError, match="empty or blank user or password"):
        gateway.add_provider("main", chosen, users=users, **config)
