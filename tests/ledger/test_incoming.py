"""Incoming messages through the ledger: whoever sent them, and whatever came with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smsqueue import IncomingMessage, Media, MessageDelivered, OutgoingMessage, exc
from smsqueue.message.messages import Part
from tests.ledger.bench import Bench, Told

PICTURES = (Media("https://a.example/1", "image/jpeg"), Media("https://a.example/2"))


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


@pytest.fixture
def heard(bench: Bench) -> list[IncomingMessage]:
    got: list[IncomingMessage] = []
    bench.gateway.onReceive.connect(got.append, name="got")
    return got


@pytest.mark.parametrize(
    "src", ["INFO4242", "SUPPORT", "40404", "whatsapp:+15551234567", "", "A\ud83d1"]
)
def test_a_sender_is_found_and_heard_as_it_came(
    bench: Bench, provider: Told, heard: list[IncomingMessage], src: str
) -> None:
    message = IncomingMessage(src, "hi", "m1", dst="SHOP24")
    provider._receive_message(message)
    bench.run_hooks()
    assert [(each.src, each.dst) for each in heard] == [(src, "SHOP24")]
    assert list(bench.ledger.find(src)) == [message.id]
    assert not list(bench.ledger.find("4242"))


def test_senders_with_the_same_digits_are_not_one(
    bench: Bench, provider: Told, heard: list[IncomingMessage]
) -> None:
    """Long messages of three senders at a time, whose networks count them alike."""
    for number, text in ((1, "begin "), (2, "end")):
        for src in ("INFO4242", "BANK4242", "4242"):
            part = IncomingMessage(src, f"{src} {text}", f"{src}-{number}")
            part.part = Part("7", number, 2)
            provider._receive_message(part)
    bench.run_hooks()
    told = {each.src: each.body for each in heard}
    assert told == {src: f"{src} begin {src} end" for src in ("INFO4242", "BANK4242", "4242")}


def test_a_number_is_the_same_however_its_network_writes_it(
    bench: Bench, provider: Told, heard: list[IncomingMessage]
) -> None:
    for number, src in ((1, "+1 555 123 4567"), (2, "15551234567")):
        part = IncomingMessage(src, str(number), f"m{number}")
        part.part = Part("7", number, 2)
        provider._receive_message(part)
    bench.run_hooks()
    assert [(each.src, each.body) for each in heard] == [("15551234567", "12")]


@pytest.mark.parametrize("channel", [None, "whatsapp"])
def test_pictures_and_the_channel_come_through_the_ledger(
    bench: Bench, provider: Told, heard: list[IncomingMessage], channel: str | None
) -> None:
    message = IncomingMessage("+15551234567", "", "m1", media=PICTURES)
    if channel:
        message.channel = channel
    provider._receive_message(message)
    bench.run_hooks()
    (same,) = heard
    assert vars(same) == vars(message)
    assert (same.body, same.media, same.channel) == ("", PICTURES, channel)
    assert same.replyable is (channel is None)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_the_pictures_of_all_parts_are_kept_in_order(
    bench: Bench, provider: Told, heard: list[IncomingMessage], order: tuple[int, ...]
) -> None:
    files = {1: PICTURES[:1], 2: (), 3: PICTURES[1:]}
    for number in order:
        part = IncomingMessage("+15551234567", f'{number}]}}"', f"m{number}", media=files[number])
        part.part = Part("7", number, 3)
        provider._receive_message(part)
    bench.run_hooks()
    (whole,) = heard
    assert (whole.body, whole.media) == ('1]}"2]}"3]}"', PICTURES)


def recorded(bench: Bench, **change: Any) -> str:
    """An incoming message whose record is as another version writes it."""
    message = IncomingMessage("15551234567", "hi", "m1", dst="15550009999")
    bench.gateway.get_provider("a")._receive_message(message)
    key = bench.key("event", message.id or "")
    data = json.loads(bench.redis.hget(key, "data") or "{}")
    assert not {"media", "channel"} & data.keys()
    bench.redis.hset(key, "data", json.dumps(data | change))
    return str(message.id)


@pytest.mark.parametrize("src", ["4242", "15551234567", "", "0015551234567", "12345678901234567"])
def test_a_record_of_an_older_version_reads_as_it_did(
    bench: Bench, provider: Told, heard: list[IncomingMessage], src: str
) -> None:
    recorded(bench, src=src, dst="0049891234")
    bench.run_hooks()
    assert [(each.src, each.dst, each.media) for each in heard] == [(src, "0049891234", ())]


@pytest.mark.parametrize("media", [None, 5, "x", {}, [None, ["x"], ["https://a.example/1", 5]]])
def test_pictures_that_were_damaged_do_not_lose_the_message(
    bench: Bench, provider: Told, heard: list[IncomingMessage], media: Any
) -> None:
    recorded(bench, media=media)
    bench.run_hooks()
    (message,) = heard
    assert message.body == "hi"
    assert message.media in ((), (("https://a.example/1", None),))


def test_pictures_that_a_provider_sets_wrongly_do_not_lose_the_message(
    bench: Bench, provider: Told, heard: list[IncomingMessage]
) -> None:
    message = IncomingMessage("15551234567", "hi", "m1")
    message.media = ["https://a.example/1", PICTURES[1]]  # type: ignore[assignment]
    provider._receive_message(message)
    bench.run_hooks()
    assert [(each.body, each.media) for each in heard] == [("hi", PICTURES[1:])]


def test_a_queued_send_refuses_at_once_and_nothing_is_tried(bench: Bench, provider: Told) -> None:
    good = OutgoingMessage("+15551234567", "hi")
    with pytest.raises(exc.RequestError, match="neither a phone number nor a short code"):
        bench.gateway.send(OutgoingMessage("INFO4242", "hi"))
    with pytest.raises(exc.RequestError, match="neither a phone number nor a short code"):
        bench.gateway.send_many([good, OutgoingMessage("whatsapp:+15551234567", "hi")])
    assert sum(bench.ledger.counts().values()) == 0
    assert provider.calls == []


@pytest.mark.parametrize("character", ["x", "ż", "\U0001f600", "\ud83d"])
def test_a_webhook_of_any_size_takes_little_memory_and_its_text_is_kept(
    bench: Bench, provider: Told, heard: list[IncomingMessage], character: str
) -> None:
    long, short = character * 200_000, character * 2000
    for number, (text, beside) in enumerate([(long, "m"), (short, long), (long, long)]):
        message = IncomingMessage("15550001", text, str(number))
        message.meta = {"raw": beside, "list": [beside]}
        message.media = [Media(f"https://a.example/{n}/{beside[:2000]}") for n in range(100)]
        provider._receive_message(message)
        keys = bench.redis.scan_iter(f"{bench.gateway.settings.namespace}:event:*")
        sizes = [bench.redis.memory_usage(key) or 0 for key in keys]
        assert len(sizes) == number + 1
        assert max(sizes) < 48 * 1024
    bench.run_hooks()
    cut, whole, both = heard
    assert cut.body.endswith(" [cut by smsqueue]")
    assert len(cut.body.encode()) <= 8 * 1024
    assert cut.body[:100] == character.replace("\ud83d", "?") * 100
    assert cut.meta == {"raw": "m", "list": ["m"]}
    assert whole.body == short
    assert whole.meta == both.meta == {"smsqueue": "cut: it was too long"}


def test_a_repeated_webhook_that_was_cut_is_recorded_once(
    bench: Bench, provider: Told, heard: list[IncomingMessage]
) -> None:
    for _ in range(2):
        provider._receive_message(IncomingMessage("15550001", "x" * 100_000, "m1"))
    bench.run_hooks()
    assert len(heard) == 1


def test_a_report_of_any_size_takes_little_memory(bench: Bench, provider: Told) -> None:
    status = MessageDelivered("unknown")
    status.status, status.meta = "y" * 100_000, {"raw": "z" * 100_000}
    provider._receive_status(status)
    keys = bench.redis.scan_iter(f"{bench.gateway.settings.namespace}:*")
    sizes = [bench.redis.memory_usage(key) or 0 for key in keys]
    assert sizes
    assert max(sizes) < 48 * 1024


@pytest.mark.parametrize("name", ["src", "dst", "msgid", "channel"])
def test_an_address_or_id_that_is_too_long_is_refused_of_every_provider(
    bench: Bench, provider: Told, name: str
) -> None:
    message = IncomingMessage("15550001", "hi", "m1")
    setattr(message, name, "9" * 100_000)
    with pytest.raises(ValueError, match=f"{name} has more than 1024 characters"):
        provider._receive_message(message)
    assert bench.events() == []


@pytest.mark.parametrize("name", ["msgid", "reference", "status_code"])
def test_a_report_with_an_id_that_is_too_long_is_refused_of_every_provider(
    bench: Bench, provider: Told, name: str
) -> None:
    values: list[Any] = [10**5000, ["9" * 100_000]]
    if name != "status_code":  # a text is cut
        values.append("9" * 100_000)
    for value in values:
        status = MessageDelivered("m1")
        setattr(status, name, value)
        with pytest.raises(ValueError, match=f"{name} has more than 1024 characters"):
            provider._receive_status(status)
    assert bench.events() == []
