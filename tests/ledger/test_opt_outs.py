"""Opt-outs: who asks for one, and which messages it stops."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import Gateway, IncomingMessage, OutgoingMessage, State, exc
from smsqueue.operation.metrics import scrape
from smsqueue.policy.opt_outs import OptOuts
from tests.ledger.bench import Bench

NUMBER = "15550001"


@pytest.fixture
def opted(bench: Bench) -> Bench:
    """A bench whose gateway obeys keywords."""
    bench.gateway.opt_outs = OptOuts()
    bench.add("a")
    return bench


def _receive(bench: Bench, text: str, dst: str = "+15559999", msgid: str | None = None) -> None:
    message = IncomingMessage(f"+{NUMBER}", text, msgid or text + dst, dst=dst)
    message.provider = "a"
    bench.gateway.receive_message(message)


def _outcome(bench: Bench, **options: Any) -> tuple[str, str | None]:
    """State and error of a message to the number."""
    src = options.pop("src", None)
    message = OutgoingMessage(NUMBER, "hi", src=src).options(**options)
    id = str(bench.gateway.send(message).id)
    bench.deliver(id)
    record = bench.record(id)
    return record.state, record.error


STOPPED = (State.FAILED, "OptedOut")
SENT = (State.SENT, None)


@pytest.mark.parametrize(
    "word", ["STOP", " stop! ", "Stop all", "Arrêt", "ABMELDEN", "baja", "Sair."]
)
def test_a_keyword_stops_messages(opted: Bench, word: str) -> None:
    _receive(opted, word)
    assert _outcome(opted) == STOPPED
    assert opted.gateway.opted_out(f"+{NUMBER}")
    provider: Any = opted.gateway.get_provider("a")
    assert provider.calls == []


@pytest.mark.parametrize("text", ["Please stop by tomorrow", "stop it", "", "STOP" * 50])
def test_another_text_stops_nothing(opted: Bench, text: str) -> None:
    _receive(opted, text)
    assert _outcome(opted) == SENT


def test_start_ends_it(opted: Bench) -> None:
    _receive(opted, "STOP")
    _receive(opted, "START")
    assert _outcome(opted) == SENT
    assert not opted.gateway.opted_out(NUMBER)
    assert list(opted.ledger.opt_outs()) == []


def test_a_repeated_stop_after_start_does_not_count_again(opted: Bench) -> None:
    _receive(opted, "STOP", msgid="1")
    _receive(opted, "START", msgid="2")
    _receive(opted, "STOP", msgid="1")
    assert not opted.gateway.opted_out(NUMBER)


def test_without_the_option_words_are_text(bench: Bench) -> None:
    bench.add("a")
    _receive(bench, "STOP")
    assert _outcome(bench) == SENT


def test_a_waiting_message_is_stopped(opted: Bench) -> None:
    statuses = opted.listen()
    waiting = opted.send(dst=NUMBER)
    _receive(opted, "STOP")
    opted.deliver(waiting)
    assert opted.state(waiting) == State.FAILED
    opted.run_hooks()
    assert [status.status for status in statuses] == ["failed: OptedOut"]


def test_stop_while_the_router_runs(opted: Bench) -> None:
    provider: Any = opted.gateway.get_provider("a")

    def router(message: OutgoingMessage) -> str:
        _receive(opted, "STOP")
        return "a"

    opted.gateway.router = router
    id = str(opted.gateway.send(OutgoingMessage(NUMBER, "hi").route()).id)
    opted.deliver(id)
    assert opted.state(id) == State.FAILED
    assert provider.calls == []


def test_stop_before_the_next_provider_is_called(opted: Bench) -> None:
    provider: Any = opted.gateway.get_provider("a")
    other: Any = opted.add("b")
    statuses = opted.listen()

    def refuse(_: OutgoingMessage) -> None:
        _receive(opted, "STOP")
        raise exc.LimitsError("no")

    provider.send = refuse
    opted.gateway.router = lambda _: ["a", "b"]
    id = str(opted.gateway.send(OutgoingMessage(NUMBER, "hi").route()).id)
    opted.deliver(id)
    assert (opted.state(id), other.calls) == (State.FAILED, [])
    opted.run_hooks()
    assert [status.status for status in statuses] == ["failed: OptedOut"]


@pytest.mark.parametrize("report", [None, "accepted"])
def test_a_call_whose_answer_was_lost_is_not_repeated(opted: Bench, report: str | None) -> None:
    provider: Any = opted.gateway.get_provider("a")
    provider.dedup_window = 600
    provider.then(ConnectionError("lost"))
    id = opted.send(dst=NUMBER)
    opted.deliver(id)
    assert opted.state(id) == State.RETRYING
    if report:
        opted.report(report, reference=f"{id}.1")
    _receive(opted, "STOP")
    opted.ledger.redis.hset(opted.key("msg", id), "not_before", 0)
    opted.deliver(id)
    assert (opted.state(id), len(provider.calls)) == (report or State.UNKNOWN, 1)


def test_a_sender_in_national_notation(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(region="GB")
    bench.gateway.opt_outs = OptOuts(stop_answer="Bye.")
    bench.add("a")
    bench.deliver(bench.send(dst="+447700900123"))
    message = IncomingMessage("07700 900123", "STOP", "1", dst="+447700900999")
    message.provider = "a"
    bench.gateway.receive_message(message)
    bench.run_hooks()
    assert bench.gateway.opted_out("+447700900123")
    assert bench.ledger.counts()["queued"] == 1


@pytest.mark.parametrize("kind", ["hash", "index"])
def test_a_key_of_the_wrong_type_stops_nothing_else(opted: Bench, kind: str) -> None:
    names = {"hash": ("optout", opted.ledger.hash_of(NUMBER)), "index": ("optouts",)}
    opted.ledger.redis.set(opted.key(*names[kind]), "x")
    # It is the key of this number, so it had opted out.
    assert _outcome(opted) == (STOPPED if kind == "hash" else SENT)
    _receive(opted, "STOP")
    assert [opt_out.why for opt_out in opted.ledger.opt_outs()] == ["stop"]
    assert _outcome(opted) == STOPPED


def test_handlers_run_after_it_and_are_told(opted: Bench) -> None:
    seen: list[tuple[str | None, bool]] = []
    opted.gateway.onReceive += lambda message: seen.append(
        (message.keyword, opted.gateway.opted_out(message.src))
    )
    for text in ("STOP", "START", "HELP", "hello"):
        _receive(opted, text)
        opted.run_hooks()
    assert seen == [("stop", True), ("start", False), ("help", False), (None, False)]


def test_the_scope_may_be_the_sender(opted: Bench) -> None:
    opted.gateway.opt_outs = OptOuts(scope="sender")
    _receive(opted, "STOP", dst="+15559999")
    assert _outcome(opted, src="+1 555-9999") == STOPPED
    assert _outcome(opted, src="+15558888") == SENT
    # The provider may choose the sender that it was sent to.
    assert _outcome(opted) == STOPPED
    _receive(opted, "START", dst="+15558888")
    assert _outcome(opted, src="+15559999") == STOPPED
    _receive(opted, "START", dst="+15559999")
    assert _outcome(opted, src="+15559999") == SENT


@pytest.mark.parametrize(
    "src", ["0015559999", "+1/555/9999", "tel:+15559999", "+1\u20115559999", ""]
)
def test_other_notations_of_the_sender(opted: Bench, src: str) -> None:
    opted.gateway.opt_out(NUMBER, sender="+15559999")
    assert _outcome(opted, src=src) == STOPPED


def test_categories(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.gateway = Gateway(bench.settings, opt_outs=OptOuts(exempt=["password"]))
    bench.give_slots(4)
    bench.add("a")
    bench.gateway.opt_out(NUMBER, category="marketing")
    assert _outcome(bench, category="marketing") == STOPPED
    assert _outcome(bench, category="news") == SENT
    assert _outcome(bench) == SENT
    bench.gateway.opt_out(NUMBER)
    assert _outcome(bench, category="news") == STOPPED
    assert _outcome(bench, category="password") == SENT
    assert bench.gateway.opt_in(NUMBER)
    assert _outcome(bench, category="marketing") == SENT


def test_a_provider_that_knows_of_an_opt_out(opted: Bench) -> None:
    provider: Any = opted.gateway.get_provider("a")
    provider.then(exc.OptedOut("no", code=21610))
    assert _outcome(opted, src="+15559999") == STOPPED
    [opt_out] = opted.ledger.opt_outs_of(NUMBER)
    assert (opt_out.sender, opt_out.by, opt_out.why) == ("15559999", "provider", "a 21610")
    assert _outcome(opted, src="+15559999") == STOPPED
    assert len(provider.calls) == 1


def test_a_report_that_tells_of_an_opt_out(opted: Bench) -> None:
    type(opted.gateway.get_provider("a")).opt_out_codes = frozenset({"103"})
    try:
        id = opted.send(dst=NUMBER)
        opted.deliver(id)
        opted.report("undelivered", reference=f"{id}.1", code=103)
    finally:
        del type(opted.gateway.get_provider("a")).opt_out_codes
    assert opted.gateway.opted_out(NUMBER)


def test_it_is_no_error_of_a_provider(opted: Bench) -> None:
    opted.gateway.opt_out(NUMBER)
    _outcome(opted)
    samples = scrape(opted.ledger).decode()
    assert "smsqueue_errors_total{" not in samples
    assert 'smsqueue_policy_total{decision="opted_out"} 1.0' in samples


def test_answers(opted: Bench) -> None:
    opted.gateway.opt_outs = OptOuts(stop_answer="Bye.", help_answer="We are Shop.")
    provider: Any = opted.gateway.get_provider("a")
    _receive(opted, "HELP", msgid="0")
    opted.run_hooks()
    assert opted.ledger.counts()["queued"] == 0  # nothing was sent to this number before
    opted.deliver(opted.send(dst=NUMBER))
    for n in range(3):
        _receive(opted, "STOP", msgid=f"s{n}")
        _receive(opted, "HELP", msgid=f"h{n}")
    opted.run_hooks()
    ids = opted.ledger.ids_in(State.QUEUED)
    assert sorted(opted.record(id).message.body for id in ids) == ["Bye.", "We are Shop."]
    for id in ids:
        opted.deliver(id)
    assert len(provider.calls) == 3  # they go out in spite of the opt-out


def test_forged_recipients_do_not_repeat_answers(opted: Bench) -> None:
    opted.gateway.opt_outs = OptOuts(help_answer="We are Shop.")
    opted.deliver(opted.send(dst=NUMBER))
    for dst in ("+15559999", "+15558888", "INFO", "\ud800"):
        _receive(opted, "HELP", dst=dst)
    opted.run_hooks()
    assert opted.ledger.counts()["queued"] == 1
    assert opted.ledger.counts()["waiting"] == 0


def test_a_flood_of_forged_senders_is_not_answered(opted: Bench) -> None:
    opted.gateway.opt_outs = OptOuts(stop_answer="Bye.")
    for n in range(50):
        message = IncomingMessage(f"+1555200{n:04}", "STOP", f"m{n}", dst="+15559999")
        message.provider = "a"
        opted.gateway.receive_message(message)
    opted.run_hooks()
    assert opted.ledger.counts()["queued"] == 0
    assert len(list(opted.ledger.opt_outs())) == 50


def test_an_opt_out_from_before_the_hash_key_counts(
    opted: Bench, make_bench: Callable[..., Bench]
) -> None:
    opted.gateway.opt_out(NUMBER)
    later = make_bench(hash_key=secrets.token_hex(16))
    later.add("a")
    assert _outcome(later) == STOPPED
    assert later.gateway.opt_in(NUMBER)
    assert _outcome(later) == SENT


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"languages": "en"}, "must be a list"),
        ({"languages": ["xx"]}, "unknown language"),
        ({"scope": "all"}, "scope must be"),
        ({"exempt": ["one time"]}, "exempt category"),
        ({"keywords": {"!": "stop"}}, "is not a keyword"),
        ({"keywords": {"bye": "end"}}, 'must mean "stop"'),
        ({"keywords": ["bye"]}, "keywords must be a dict"),
        ({"help_answer": 7}, "help_answer must be text"),
    ],
    ids=str,
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        OptOuts(**arguments)
