"""The reference in a callback URL is accepted only unchanged."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from smsqueue import Gateway
from smsqueue.message.messages import OutgoingMessage
from smsqueue.providers.account import AccountProvider
from smsqueue.settings import Settings
from smsqueue.testing.examples import REF

SETTINGS = Settings(public_url="https://sms.example.org", receiver_prefix=("hidden",), eager=True)


class Sealing(AccountProvider):
    """A provider whose signature does not cover addresses."""

    base_url = "https://api.example.org"

    def __init__(self, gateway: Any, name: str, *, keys: tuple[str, ...], **config: Any) -> None:
        super().__init__(gateway, name, **config)
        self._seals = keys


def provider(*keys: str, name: str = "main") -> AccountProvider:
    return Gateway(SETTINGS).add_provider(name, Sealing, keys=keys)


def message(reference: str | None = REF, dedup_key: str | None = None) -> OutgoingMessage:
    made = OutgoingMessage("15551234567", "hello")
    made.reference, made.dedup_key = reference, dedup_key
    return made


def ref_of(url: str | None) -> str:
    assert url is not None
    return parse_qs(urlsplit(url).query)["ref"][0]


def seen(by: AccountProvider, ref: str | None) -> str | None:
    query = {} if ref is None else {"ref": ref}
    with Flask("test").test_request_context("/", query_string=query):
        return by.seen_reference()


@pytest.mark.parametrize("reference", [REF, "a", "a.b.c", "żółć & co?#", "x" * 300])
def test_a_sealed_reference_is_read(reference: str) -> None:
    made = provider("key")
    ref = ref_of(made.callback_url("status", message(reference)))
    assert ref != reference
    assert seen(made, ref) == reference


def test_another_process_reads_a_sealed_reference() -> None:
    ref = ref_of(provider("key").callback_url("status", message()))
    assert seen(provider("key"), ref) == REF


def test_a_changed_reference_is_ignored() -> None:
    made = provider("key")
    ref = ref_of(made.callback_url("status", message()))
    other = ref_of(made.callback_url("status", message("1m842psghd5k1m5599r6.2")))
    seal = ref.rpartition(".")[2]
    moved = f"1m842psghd5k1m5599r6.2.{seal}"
    for forged in (
        REF,
        moved,
        f"{REF}.{other.rpartition('.')[2]}",
        ref[:-1],
        f"{ref}0",
        f".{seal}",
    ):
        assert seen(made, forged) is None
    assert [seen(made, none) for none in (".", "\x00", ref.upper())] == [None] * 3
    assert not seen(made, "")
    assert seen(provider("another"), ref) is None
    assert seen(provider("key", name="backup"), ref) is None


def test_keys_rotate() -> None:
    old = ref_of(provider("old").callback_url("status", message()))
    both = provider("new", "old")
    new = ref_of(both.callback_url("status", message()))
    assert old != new
    assert [seen(both, each) for each in (old, new)] == [REF, REF]
    assert [seen(provider("new"), each) for each in (old, new)] == [None, REF]


def test_the_address_of_a_repetition_is_the_same() -> None:
    made = provider("key")
    urls = {made.callback_url("status", message(f"id.{n}", "id.1")) for n in (1, 2)}
    assert len(urls) == 1
    assert seen(made, ref_of(urls.pop())) == "id.1"


def test_without_a_key_the_signature_covers_the_address() -> None:
    made = provider()
    assert made.callback_url("status", message()) == (
        f"https://sms.example.org/hidden/main/status?ref={REF}"
    )
    assert seen(made, REF) == REF


def test_an_address_without_a_reference() -> None:
    assert provider("key").callback_url("im") == "https://sms.example.org/hidden/main/im"
    assert "ref" not in str(provider("key").callback_url("status", message(None)))
    assert seen(provider("key"), None) is None
