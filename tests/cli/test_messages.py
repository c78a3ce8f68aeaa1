"""smsqueue show, find, list"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from smsqueue import (
    Gateway,
    IncomingMessage,
    MessageDelivered,
    MessageError,
    OutgoingMessage,
)
from smsqueue.ledger import AttemptOutcome


@pytest.fixture
def sent(gateway: Gateway) -> str:
    """A message that a worker sent."""
    message = OutgoingMessage("+15551234567", "the secret text", src="15550001111")
    id = gateway.send(message.options(status_report=True)).id
    assert id
    gateway.ledger.claim(id, "token", lease=60, worker="w")
    gateway.ledger.begin(id, "token", "main", lease=60, attempt=1)
    done = AttemptOutcome("sent", "main", msgid='"m1"', msgids=("m1",))
    gateway.ledger.settle(id, "token", 1, done)
    return id


@pytest.fixture
def failed_reply(gateway: Gateway) -> str:
    """An incoming message whose handler failed for good, with an error that quotes it."""
    message = IncomingMessage("15551234567", "the secret \x1b[2J reply", "m2", dst="15550001111")
    message.provider = "main"
    _, id = gateway.ledger.receive(message, repeats=True)
    gateway.ledger.claim_event(id, "token", "w")
    why = "shop.hooks:reply: ValueError: the secret text of 15551234567"
    gateway.ledger.settle_event(id, "token", "dead", delay=0, why=why)
    return id


PERSONAL = ("15551234567", "15550001111", "secret")


def test_show_a_message(run, run_json, sent: str) -> None:
    text = run("show", sent).stdout
    assert "1555*****67" in text
    assert "15 characters, hidden" in text
    assert [line.split()[2] for line in text.split("\n\n")[1].splitlines()[1:]] == [
        "queued",
        "sending",
        "sent",
    ]
    shown = run_json("show", sent)
    assert (shown["id"], shown["kind"], shown["state"]) == (sent, "message", "sent")
    assert (shown["provider"], shown["msgid"], shown["attempts"]) == ("main", "m1", 1)
    assert datetime.fromisoformat(shown["timeline"][0]["at"]).tzinfo
    for word in PERSONAL:
        assert word not in text + str(shown)


def test_reveal_a_message(run, run_json, sent: str) -> None:
    for output in (run("show", sent, "--reveal").stdout, str(run_json("show", sent, "--reveal"))):
        assert "15551234567" in output
        assert "the secret text" in output


@pytest.mark.parametrize(
    "evil", ["\n", "\r", "\r\n", "\x1b[1A", "\u202e", "\u2066", "\u2028", "\x9b"]
)
def test_texts_and_ids_cannot_forge_a_line(run, gateway: Gateway, evil: str) -> None:
    forged = f"hi{evil}state        delivered"
    message = IncomingMessage(
        "15551234567", forged, f"m{evil}state        failed", dst="15550001111"
    )
    message.provider = "main"
    message.meta = {"note": forged}
    _, event = gateway.ledger.receive(message, repeats=True)
    sent = gateway.send(OutgoingMessage("15551234567", forged)).id
    for id in (event, sent):
        for options in ((), ("--reveal",)):
            shown = run("show", id, *options).stdout
            states = [line for line in shown.splitlines() if line.startswith("state ")]
            assert len(states) == 1
            if evil not in "\r\n":
                assert evil not in shown
        assert evil.encode("unicode_escape").decode() in shown


def test_show_an_event(run, run_json, failed_reply: str) -> None:
    text, shown = run("show", failed_reply).stdout, run_json("show", failed_reply)
    assert (shown["kind"], shown["state"], shown["length"]) == ("received", "dead", 21)
    assert shown["why"] == "shop.hooks:reply: ValueError"
    for word in PERSONAL:
        assert word not in text + str(shown)
    revealed = run("show", failed_reply, "--reveal").stdout
    assert "the secret \\x1b[2J reply" in revealed
    assert "15551234567" in revealed


def test_show_an_unknown_id(run) -> None:
    result = run("show", "15551234567", code=1)
    assert "records are kept 30 days" in result.stderr
    assert "none this idempotency key, provider's message id, number" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_find_what_was_sent_and_received(run, run_json, sent: str, failed_reply: str) -> None:
    found = run_json("find", "+1 555 123 45 67")
    assert [item["id"] for item in found["items"]] == [failed_reply, sent]
    text = run("find", "15551234567").stdout
    assert sent in text
    for word in PERSONAL:
        assert word not in text + str(found)
    assert "the secret text" in run("find", "15551234567", "--reveal").stdout


def test_find_asks_for_the_region_of_a_national_number(run) -> None:
    text = run("find", "020 7946 0958").stdout
    assert text.startswith(
        "nothing found for 0207*****58: it begins with 0, as only national numbers do; "
    )
    assert "set SMSQUEUE_REGION" in text
    assert "records are kept" in run("find", "020 7946 0958", SMSQUEUE_REGION="GB").stdout


def test_find_nothing(run, run_json) -> None:
    assert "nothing found for" in run("find", "15551234567").stdout
    assert run_json("find", "15551234567")["items"] == []
    run("find", "nobody", code=2)


def test_counts(run, run_json, sent: str, failed_reply: str) -> None:
    counts = run_json("list")
    assert counts["messages"]["sent"] == 1
    assert counts["events"]["dead"] == 1
    assert "unknown" in run("list").stdout


def test_list_a_state(run, run_json, gateway: Gateway, sent: str, failed_reply: str) -> None:
    assert [item["id"] for item in run_json("list", "--state", "sent")["items"]] == [sent]
    assert failed_reply in run("list", "--state", "dead").stdout
    assert "no message or event is failed" in run("list", "--state", "failed").stdout
    for _ in range(3):
        gateway.send(OutgoingMessage("15551234567", "x"))
    listed = run_json("list", "--state", "queued", "--limit", "2")
    assert (len(listed["items"]), listed["total"]) == (2, 3)
    assert "2 of 3 are shown" in run("list", "--state", "queued", "--limit", "2").stdout
    assert "'dead'" in run("list", "--state", "lost", code=2).stderr


def _ids(document) -> list[str]:
    return [item["id"] for item in document["items"]]


def test_list_by_filters(run, run_json, make) -> None:
    one = make("failed", error="RequestError", code="21211")
    two = make("failed", "backup", error="CreditError")
    three = make("unknown", error="RequestError")
    assert _ids(run_json("list", "--state", "failed")) == [two, one]
    both = run_json("list", "--state", "failed", "--state", "unknown")
    assert (_ids(both), both["states"]) == ([two, one, three], ["failed", "unknown"])
    assert (both["total"], both["more"]) == (3, False)
    assert _ids(run_json("list", "--provider", "backup")) == [two]
    assert set(_ids(run_json("list", "--error", "RequestError"))) == {one, three}
    assert _ids(run_json("list", "--error", "21211")) == [one]
    assert _ids(run_json("list", "--state", "failed", "--provider", "main")) == [one]
    assert run("list", "--error", "AuthError").stdout == "no message matches\n"
    some = run_json("list", "--error", "RequestError", "--limit", "1")
    assert (len(some["items"]), some["more"]) == (1, True)
    text = run("list", "--error", "RequestError", "--limit", "1").stdout
    assert "1 are shown, there are more: raise --limit" in text
    for word in PERSONAL:
        assert word not in text + str(both)


def test_an_error_that_was_overcome_is_shown_in_the_timeline_only(
    run, run_json, gateway: Gateway, make
) -> None:
    id = make("retrying", error="ServerError", code="503")
    assert _ids(run_json("list", "--error", "ServerError")) == [id]
    gateway.ledger.redis.hdel(f"{gateway.settings.namespace}:msg:{id}", "not_before")
    gateway.ledger.claim(id, "again", lease=60, worker="w")
    gateway.ledger.begin(id, "again", "main", lease=60, attempt=2)
    done = AttemptOutcome("sent", "main", msgid='"m1"', msgids=("m1",))
    gateway.ledger.settle(id, "again", 2, done)
    for _ in range(2):
        shown = run_json("show", id)
        (found,) = run_json("find", "15551234567")["items"]
        (listed,) = run_json("list", "--provider", "main")["items"]
        for item in (shown, found, listed):
            assert (item["error"], item["code"]) == (None, None)
        assert "ServerError" not in run("list", "--provider", "main").stdout
        assert "ServerError" not in run("show", id).stdout.partition("\n\n")[0]
        assert "ServerError" in [line.get("error") for line in shown["timeline"]]
        assert _ids(run_json("list", "--error", "ServerError")) == []
        report = MessageDelivered("m1")
        report.provider = "main"
        gateway.receive_status(report)
    assert shown["state"] == "delivered"


@pytest.mark.usefixtures("not_utc")
def test_times_have_the_local_zone_and_milliseconds(run, run_json, sent: str) -> None:
    time_in_new_york = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}-0[45]:00"
    shown = run("show", sent).stdout
    assert re.search(f"^accepted at +{time_in_new_york}$", shown, re.M)
    timeline = shown.split("\n\n")[1].splitlines()[1:]
    assert all(re.match(time_in_new_york, line) for line in timeline)
    assert re.search(time_in_new_york, run("list", "--state", "sent").stdout)
    document = run_json("show", sent)
    for at in (document["accepted_at"], document["timeline"][0]["at"]):
        assert re.fullmatch(r"[-\dT:]{19}\.\d{3}\+00:00", at)


@pytest.fixture
def not_utc(monkeypatch) -> Iterator[None]:
    """The local time is not UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("not_utc")
def test_list_since(run_json, make, gateway: Gateway) -> None:
    old, new = make("failed"), make("failed")
    now = datetime.now().astimezone()
    score = (now - timedelta(hours=3)).timestamp() * 1000
    gateway.ledger.redis.zadd(f"{gateway.settings.namespace}:state:failed", {old: score})
    hours_ago = [(now - timedelta(hours=n)).replace(microsecond=0) for n in (2, 4)]
    for since in ("2h", "120m", hours_ago[0].isoformat(), f"{hours_ago[0]:%Y-%m-%dT%H:%M}"):
        assert _ids(run_json("list", "--state", "failed", "--since", since)) == [new]
    for since in ("4h", "1d", f"{hours_ago[1]:%Y-%m-%d %H:%M}"):
        assert _ids(run_json("list", "--state", "failed", "--since", since)) == [new, old]


@pytest.mark.parametrize("since", ["tomorrow", "2 hours", "2100-01-01", "-1h", ""])
def test_invalid_times(run, since: str) -> None:
    stderr = run("list", "--since", since, code=2).stderr
    assert "write how long ago, as 30m, 2h or 1d" in stderr or "is in the future" in stderr


def test_events_are_listed_by_state_only(run, run_json, make) -> None:
    dead, failed = make("dead"), make("failed")
    assert set(_ids(run_json("list", "--state", "dead", "--state", "failed"))) == {dead, failed}
    result = run("list", "--state", "dead", "--provider", "main", code=2)
    assert "smsqueue list --state dead" in result.stderr


def test_show_when_a_message_may_be_sent(run, run_json) -> None:
    at = "2100-01-31T09:00:00+00:00"
    id = run_json("send", "15551234567", "x", "--at", at, "--expires", "90")["id"]
    shown = run_json("show", id)
    assert (shown["send_at"], shown["expires_at"]) == (
        "2100-01-31T09:00:00.000+00:00",
        "2100-01-31T10:30:00.000+00:00",
    )
    text = run("show", id).stdout
    assert "send at      2100-01-3" in text
    assert "expires at   2100-01-3" in text
    other = run_json("show", run_json("send", "15551234567", "x")["id"])
    assert (other["send_at"], other["expires_at"]) == (None, None)


def test_narrow_terminals_do_not_truncate_ids(monkeypatch, run, failed_reply: str) -> None:
    narrow = Console(width=60, markup=False)
    monkeypatch.setattr("smsqueue.cli.messages.make_console", lambda: narrow)
    with narrow.capture() as captured:
        run("list", "--state", "dead")
    assert failed_reply in captured.get()


def test_the_code_of_a_delivery_report_is_listed_and_selects(
    run, run_json, gateway: Gateway, sent: str, make
) -> None:
    other = make("failed", error="RequestError", code="21211")
    report = MessageError("m1")
    report.provider, report.status_code = "main", 30007
    gateway.receive_status(report)
    assert gateway.lookup(sent).code == "30007"
    for select in (["--error", "30007"], ["--state", "undelivered", "--error", "30007"]):
        (item,) = run_json("list", *select)["items"]
        assert (item["id"], item["state"], item["code"]) == (sent, "undelivered", "30007")
    assert "30007" in run("list", "--state", "undelivered").stdout
    assert "30007" in run("find", "15551234567").stdout
    assert "30007" in run("show", sent).stdout.split("\n\n")[0]
    assert _ids(run_json("list", "--error", "21211")) == [other]
    again = run_json("requeue", "--state", "undelivered", "--error", "30007", "--yes")
    assert [result["id"] for result in again["results"]] == [sent]


@pytest.mark.parametrize("src", ["INFO4242", "whatsapp:+15551234567", "jane.doe@example.com"])
def test_a_sender_that_is_not_a_number_is_found_and_hidden(
    run, run_json, gateway: Gateway, src: str
) -> None:
    message = IncomingMessage(src, "hi", "m3", dst=src, media=[("https://a.example/me.jpg", None)])
    _, id = gateway.ledger.receive(message, repeats=True)
    for command in (("show", id), ("find", src), ("list", "--state", "waiting")):
        shown = run(*command).stdout + str(run_json(*command))
        assert id in shown
        for word in (src, src[:6], src[-3:], "me.jpg"):
            assert word not in shown
    assert run_json("show", id)["media"] == 1
    revealed = run_json("show", id, "--reveal")
    assert (revealed["number"], revealed["dst"]) == (src, src)
    assert revealed["media"] == [{"url": "https://a.example/me.jpg", "content_type": None}]
    assert [item["id"] for item in run_json("find", src)["items"]] == [id]


def test_find_refuses_an_address_without_digits(run) -> None:
    assert "not a phone number" in run("find", "--", "-", code=2).stderr


def test_show_names_what_smart_encoding_replaced(run, run_json, gateway: Gateway) -> None:
    message = OutgoingMessage("1555", "isn\u2019t").options(smart_encoding=True)
    id = str(gateway.send(message).id)
    assert run_json("show", id)["replaced"] == [{"written": "\u2019", "sent": "'", "times": 1}]
    assert '1 x U+2019 by "\'"' in run("show", id).stdout
