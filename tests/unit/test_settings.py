"""Where settings come from, and what is said of wrong ones."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smsqueue import Gateway
from smsqueue.cli import main
from smsqueue.settings import Settings, SettingsError, hide_password


def test_the_defaults() -> None:
    settings = Settings()
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert (settings.namespace, settings.gateway, settings.eager) == ("sms", "", False)
    assert settings.receiver_prefix == ()
    assert (settings.send_queue, settings.hook_queue) == ("sms.send", "sms.hook")


def test_each_setting_has_its_variable_and_no_two_the_same() -> None:
    variables = [f.metadata["variable"] for f in dataclasses.fields(Settings)]
    assert variables == [f"SMSQUEUE_{f.name.upper()}" for f in dataclasses.fields(Settings)]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("REDIS_URL", "rediss://h/1", "rediss://h/1"),
        ("NAMESPACE", "shop-1.a_b", "shop-1.a_b"),
        ("GATEWAY", "shop.sms:gateway", "shop.sms:gateway"),
        ("RECEIVER_PREFIX", "prefix1, two/three ,", ("prefix1", "two/three")),
        ("RECEIVER_PREFIX", "", ()),
        ("EAGER", "1", True),
        ("EAGER", " Yes ", True),
        ("EAGER", "off", False),
        ("EAGER", "", False),
        ("RETENTION", "3600", 3600.0),
        ("MAX_BODY", "70", 70),
    ],
)
def test_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    monkeypatch.setenv(f"SMSQUEUE_{name}", text)
    assert getattr(Settings(), name.lower()) == value


def test_the_keyword_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_NAMESPACE", "environment")
    monkeypatch.setenv("SMSQUEUE_EAGER", "no idea")  # not even read
    settings = Settings(namespace="keyword", eager=True)
    assert (settings.namespace, settings.eager) == ("keyword", True)


def test_settings_are_read_once_and_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_NAMESPACE", "before")
    settings = Settings()
    monkeypatch.setenv("SMSQUEUE_NAMESPACE", "after")
    assert settings.namespace == "before"
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.namespace = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("REDIS_URL", "http://h", "redis://, rediss://, unix:// or sentinel://"),
        ("REDIS_URL", "", "redis://"),
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("REDIS_URL", "redis://h:port/0", "%XX"),
        ("REDIS_URL", "redis://[h/0", "%XX"),
        ("NAMESPACE", "", "letters"),
        ("NAMESPACE", "a b", "letters"),
        ("NAMESPACE", "a{b}", "letters"),
        ("NAMESPACE", "a" * 65, "64"),
        ("RECEIVER_PREFIX", "a b", "letters"),
        ("RECEIVER_PREFIX", "good-one,/", "letters"),
        ("RECEIVER_PREFIX", "<name>", "letters"),
        ("EAGER", "perhaps", "true, yes, on or 1"),
        ("RETENTION", "long", "a number"),
        ("RETENTION", "0", "above zero"),
        ("GRACE", "-1", "above zero"),
        ("GRACE", "nan", "above zero"),
        ("MAX_BODY", "1.5", "a whole number"),
        ("CONCURRENCY", "", "a whole number"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, why: str
) -> None:
    monkeypatch.setenv(f"SMSQUEUE_{name}", text)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert f"SMSQUEUE_{name}" in str(caught.value)
    assert why in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_zero_keyword_is_refused_too() -> None:
    with pytest.raises(SettingsError, match="SMSQUEUE_CONCURRENCY"):
        Settings(concurrency=0)


def test_from_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_NAMESPACE", "environment")
    monkeypatch.setenv("SMSQUEUE_MAX_BODY", "5")
    settings = Settings.from_mapping(
        {
            "DEBUG": True,
            "namespace": "not ours",
            "SMSQUEUE_MAX_BODY": "70",
            "SMSQUEUE_EAGER": True,
            "SMSQUEUE_GRACE": 5.0,
            "SMSQUEUE_RECEIVER_PREFIX": ["prefix1", "prefix2"],
            "SMSQUEUE_UNHEARD_OF": "x",
        }
    )
    assert (settings.namespace, settings.max_body, settings.grace) == ("environment", 70, 5.0)
    assert settings.eager is True
    assert settings.receiver_prefix == ("prefix1", "prefix2")


def test_a_misspelled_key_of_a_mapping_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    config = {"SMSQUEUE_MAXBODY": 5, "SMSQUEUE_MAX_BODY": 70, "SMSQUEUE_PROVIDER_MAIN": "", 5: 5}
    assert Settings.from_mapping(config).max_body == 70
    [record] = caplog.records
    assert record.getMessage() == (
        "SMSQUEUE_MAXBODY is not a known setting; did you mean SMSQUEUE_MAX_BODY?"
    )


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("EAGER", "maybe", "true, yes, on or 1, or else false, no, off or 0"),
        ("CONCURRENCY", "many", "a whole number, such as 50"),
        ("CONCURRENCY", "2.5", "a whole number, such as 50"),
        ("GRACE", "soon", "a number, such as 2.5"),
    ],
)
def test_a_setting_that_cannot_be_read_says_what_is_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, must: str
) -> None:
    monkeypatch.setenv(f"SMSQUEUE_{name}", value)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert str(caught.value) == (f"SMSQUEUE_{name} must be {must}: correct it or unset it")


@pytest.mark.parametrize(
    "prefix", ["prefix1,prefix2", ["prefix1", "prefix2"], ("prefix1", "prefix2")]
)
def test_a_prefix_is_a_text_or_a_list(prefix: Any) -> None:
    config = {"SMSQUEUE_RECEIVER_PREFIX": prefix}
    assert Settings.from_mapping(config).receiver_prefix == ("prefix1", "prefix2")
    assert Settings(receiver_prefix=prefix).receiver_prefix == ("prefix1", "prefix2")


def test_none_in_a_mapping_is_nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_NAMESPACE", "environment")
    config = dict.fromkeys(("SMSQUEUE_NAMESPACE", "SMSQUEUE_REDIS_URL", "SMSQUEUE_RECEIVER_PREFIX"))
    settings = Settings.from_mapping(config)
    assert (settings.namespace, settings.receiver_prefix) == ("environment", ())
    assert settings.redis_url == "redis://127.0.0.1:6379/0"


def test_a_wrong_value_in_a_mapping_is_named() -> None:
    with pytest.raises(SettingsError, match="SMSQUEUE_EAGER"):
        Settings.from_mapping({"SMSQUEUE_EAGER": "perhaps"})


def test_the_gateway_takes_eager_from_keyword_then_settings() -> None:
    assert Gateway(Settings(eager=True)).eager
    assert not Gateway(Settings(eager=True), eager=False).eager
    assert not Gateway().eager


# --- Secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["p", "/p/", "ab", "short", "aaaaaaaaaaaaaaaa", "a/a/a/a/b/b/b"])
@pytest.mark.parametrize("name", ["receiver_prefix", "metrics_token"])
def test_a_secret_that_can_be_guessed_is_refused_with_the_reason(name: str, secret: str) -> None:
    text = f"SMSQUEUE_{name.upper()} can be guessed: give at least 6 characters, 4 of them diff"
    good = Settings(**{name: "hidden"})
    assert getattr(good, name) in ("hidden", ("hidden",))
    for given in (secret, [secret, "hidden"] if name == "receiver_prefix" else secret):
        with pytest.raises(SettingsError, match=text):
            Settings(**{name: given})


def test_a_short_token_is_refused_and_a_blank_one_is_none() -> None:
    with pytest.raises(SettingsError, match="SMSQUEUE_METRICS_TOKEN can be guessed"):
        Settings(metrics_token="abc")
    assert not Settings(metrics_token="      ").metrics_token.strip()  # then there is no page


def test_no_secret_in_the_representation() -> None:
    settings = Settings(redis_url="redis://user:pass@h/0", receiver_prefix=("hidden",))
    assert not [s for s in ("user", "pass", "hidden") if s in f"{settings!r} {settings}"]
    assert settings.safe_redis_url == "redis://***@h/0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@h:1/2", "redis://***@h:1/2"),
        ("rediss://me:secret@h", "rediss://***@h"),
        ("unix://:secret@/run/redis.sock?db=1", "unix://***@/run/redis.sock?***"),
        ("redis://h/0?password=secret", "redis://h/0?***"),
        ("redis://:sec/ret@h/0", "redis://***@h/0"),
        ("redis://:sec#ret@h/0", "redis://***@h/0"),
        ("redis://:sec?ret@h/0", "redis://***@h/0"),
        ("redis://:sec@ret@h/0", "redis://***@h/0"),
        ("redis://:secret://@h/0", "redis://***@h/0"),
        ("me:secret@h", "***@h"),
        ("", ""),
    ],
)
def test_a_url_is_printed_without_its_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("REDIS_URL", "http://:secret@h/0"),
        ("REDIS_URL", "me:secret@h"),
        ("REDIS_URL", "redis://:secret/x@h/0"),
        ("REDIS_URL", "redis://:secret℀@h/0"),
        ("RECEIVER_PREFIX", "secret prefix"),
    ],
)
def test_an_error_does_not_print_the_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"SMSQUEUE_{name}", text)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert "secret" not in str(caught.value)


def test_a_lease_is_longer_than_a_handler_may_take() -> None:
    assert Settings().handler_timeout == 60
    assert Settings(hook_lease=30).handler_timeout == 15
    assert Settings(hook_lease=75, handler_timeout=60).handler_timeout == 60
    with pytest.raises(SettingsError, match=r"SMSQUEUE_HOOK_LEASE is 70 s.*at least 75 s"):
        Settings(hook_lease=70, handler_timeout=60)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://:hush@h/abc", "the database must be a number"),
        ("redis://:hush@h?db=x", "the database must be a number"),
        ("unix://", "the path of the socket"),
        ("rediss://:hush@h/0?ssl_cert_reqs=perhaps", "required, optional or none"),
    ],
)
def test_an_address_that_kombu_would_fail_at(url: str, text: str) -> None:
    with pytest.raises(SettingsError, match=text) as caught:
        Settings(redis_url=url)
    assert "hush" not in str(caught.value)
    assert Settings(redis_url="unix:///run/redis.sock?db=2").redis_url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("namespace", 5),
        ("namespace", None),
        ("redis_url", b"redis://h/0"),
        ("gateway", ["shop.sms:gateway"]),
        ("receiver_prefix", 5),
        ("receiver_prefix", [b"secret-prefix"]),
        ("public_url", 5),
        ("eager", 2),
        ("eager", []),
        ("concurrency", [50]),
        ("concurrency", True),
        ("concurrency", 1.5),
        ("concurrency", float("nan")),
        ("concurrency", None),
        ("grace", True),
        ("grace", {}),
        ("region", 44),
    ],
)
def test_a_keyword_of_the_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    for make in (Settings, lambda **given: Settings.from_mapping(mapped(given))):
        with pytest.raises(SettingsError, match=f"SMSQUEUE_{name.upper()} (must be|is)") as caught:
            make(**{name: value})
        assert "secret" not in str(caught.value)
        if value is None:
            break  # a mapping's None is as if the key were missing


def mapped(given: dict[str, Any]) -> dict[str, Any]:
    return {f"SMSQUEUE_{name.upper()}": value for name, value in given.items()}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("concurrency", "50", 50),
        ("concurrency", 50.0, 50),
        ("grace", "2.5", 2.5),
        ("grace", 5, 5),
        ("eager", "yes", True),
        ("eager", 0, False),
        ("receiver_prefix", ["prefix1", "prefix2"], ("prefix1", "prefix2")),
        ("receiver_prefix", "prefix1,prefix2", ("prefix1", "prefix2")),
        ("public_url", None, ""),
        ("heartbeat_file", Path("/run/beat"), "/run/beat"),
        ("region", "gb", "GB"),
    ],
)
def test_a_keyword_is_read_as_its_variable_is(name: str, value: Any, kept: Any) -> None:
    found = getattr(Settings(**{name: value}), name)
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize("region", ["UK", "XX", "GBR", "44", "Britain"])
def test_a_region_that_there_is_not_is_refused(region: str) -> None:
    with pytest.raises(SettingsError, match=r"SMSQUEUE_REGION .* such as GB or US"):
        Settings(region=region)


@pytest.mark.parametrize("given", [{"settings": {"namespace": "x"}}, {"eager": "no"}, {"retry": 5}])
def test_a_gateway_refuses_what_is_no_setting(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(given))):
        Gateway(**given)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("rediss://:hush@h/0?ssl_cert_req=none", "'ssl_cert_req'.*did you mean 'ssl_cert_reqs'"),
        ("redis://:hush@h/0?ssl_cert_reqs=none", "'ssl_cert_reqs', which needs TLS"),
        ("redis://:hush@h/0?xyzzy=1", "one of the parameters after the question mark"),
    ],
)
def test_a_wrong_option_of_the_address_is_named(url: str, text: str) -> None:
    result = CliRunner().invoke(main, ["list"], env={"SMSQUEUE_REDIS_URL": url})
    assert result.exit_code == 1
    assert re.search(text, result.output)
    assert "hush" not in result.output


def test_a_quota_that_holds_no_webhooks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="too few for some webhooks: give at least 65536"):
        Settings(webhook_quota=128)
    monkeypatch.setenv("SMSQUEUE_WEBHOOK_QUOTA", "128MB")
    with pytest.raises(SettingsError, match="a number of bytes, such as 134217728"):
        Settings()
    monkeypatch.setenv("SMSQUEUE_WEBHOOK_QUOTA", str(2 * 1024**3))  # of a Redis with 16 GB
    assert Settings().webhook_quota == 2 * 1024**3
