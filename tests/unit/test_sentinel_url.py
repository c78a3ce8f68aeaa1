"""``sentinel://`` addresses: how they are read, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from smsqueue import Settings
from smsqueue.broker.queue import broker_ssl, broker_url, celery_config
from smsqueue.ledger.client import connect, sentinel_options, tls_options
from smsqueue.settings import SettingsError


def test_sentinels_and_the_primary_have_users_and_tls_of_their_own() -> None:
    settings = Settings(
        redis_url="sentinel://worker:p%40ss@a:26380,b,[::1]:26381/3"
        "?master=sms&tls=1&sentinel_tls=1&sentinel_username=watcher&sentinel_password=h%2Fush",
        redis_ca="/ca.pem",
    )
    sentinels = settings.sentinels
    assert sentinels is not None
    assert sentinels.addresses == (("a", 26380), ("b", 26379), ("::1", 26381))
    assert tls_options(settings)["ssl_ca_certs"] == "/ca.pem"
    asked = sentinel_options(settings, timeout=0.2)
    assert (asked["username"], asked["password"]) == ("watcher", "h/ush")
    assert asked["ssl"]
    assert asked["ssl_check_hostname"]
    assert asked["ssl_ca_certs"] == "/ca.pem"
    of_primary = connect(settings, timeout=1.0).connection_pool.connection_kwargs
    assert (of_primary["username"], of_primary["password"]) == ("worker", "p@ss")
    assert (of_primary["db"], of_primary["ssl_ca_certs"]) == (3, "/ca.pem")


def test_tls_of_the_sentinels_alone_leaves_the_primary_without() -> None:
    url = "sentinel://a/0?master=sms&sentinel_tls=1&ssl_cert_reqs=none"
    settings = Settings(redis_url=url)
    assert tls_options(settings) == {}
    assert sentinel_options(settings, timeout=0.2)["ssl_cert_reqs"] == "none"
    assert settings.unverified_tls == "ssl_cert_reqs=none"
    assert connect(settings, timeout=1.0)  # redis-py refuses TLS options without TLS


def test_the_broker_has_all_sentinels_and_never_waits_without_end() -> None:
    settings = Settings(
        redis_url="sentinel://worker:p%40ss@a,[::1]:26381/3?master=sms&tls=1&sentinel_password=x"
    )
    assert broker_url(settings) == (
        "sentinel://worker:p%40ss@a:26379/3;sentinel://worker:p%40ss@[::1]:26381/3"
    )
    assert broker_ssl(settings) is not None
    options = celery_config(settings, worker=False)["broker_transport_options"]
    assert options["master_name"] == "sms"
    assert options["sentinel_kwargs"]["password"] == "x"
    assert options["sentinel_kwargs"]["socket_timeout"] < 1
    assert "ssl" not in options["sentinel_kwargs"]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sentinel://:hush@a/0", "add ?master=NAME"),
        ("sentinel://:hush@a/0?master=a b", "master may contain letters"),
        ("sentinel://:hush@a,,b/0?master=sms", "name each sentinel as host:port"),
        ("sentinel://:hush@a:x/0?master=sms", "name each sentinel as host:port"),
        ("sentinel://:hu/sh@a/0?master=sms", "name each sentinel as host:port"),
        ("sentinel://:hush@a/x?master=sms", "the database must be a number"),
        ("sentinel://:hush@a/0?master=sms&tls=perhaps", "tls must be 1 or 0"),
        ("sentinel://:hush@a/0?master=sms&tls=1&ssl_cert_reqs=no", "ssl_cert_reqs must be"),
    ],
)
def test_a_wrong_address_is_refused_without_its_password(url: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(redis_url=url)
    assert text in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "hu/sh" not in str(caught.value)


def test_a_ca_needs_tls_somewhere() -> None:
    with pytest.raises(SettingsError, match="add tls=1, sentinel_tls=1 or both"):
        Settings(redis_url="sentinel://a/0?master=sms", redis_ca="/ca.pem")


@pytest.mark.parametrize("option", ["socket_timeuot=1", "ssl_ca_certs=/ca.pem"])
def test_an_option_that_does_not_work_is_named(option: str) -> None:
    settings = Settings(redis_url=f"sentinel://a/0?master=sms&{option}")
    with pytest.raises(SettingsError, match=f"the option '{option.partition('=')[0]}'"):
        connect(settings, timeout=1.0)


@pytest.mark.parametrize("number", [-1, 11])
def test_the_number_of_replicas_is_limited(number: int) -> None:
    with pytest.raises(SettingsError, match="SMSQUEUE_WAIT_REPLICAS must be from 0 to 10"):
        Settings(wait_replicas=number)
