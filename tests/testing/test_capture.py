"""``capture()``: nothing is sent, and errors are those of production."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smsqueue import Gateway, IProvider, OutgoingMessage, Settings, State, exc
from smsqueue.providers import LoopbackProvider
from smsqueue.testing import capture, in_memory_ledger
from tests.conftest import switching_threads_in


def test_a_captured_message_is_a_snapshot_of_what_would_be_sent(away: Gateway) -> None:
    with capture(away) as outbox:
        message = OutgoingMessage("+1 555 0001", "hello", src="Shop").route("otp")
        message.options(expires=5, context={"user": 7}).params(flash=True)
        assert away.send(message) is message
        message.body = "changed"
        message.provider_options.context["user"] = 8
    [captured] = outbox
    assert (captured.id, captured.dst, captured.body, captured.src) == (
        (message.id, "15550001", "hello", "Shop")
    )
    assert (captured.provider, captured.routing_values) == ("backup", ("otp",))
    assert captured.provider_params == {"flash": True}
    options = captured.provider_options
    assert (options.expires, options.context) == (5, {"user": 7})
    assert captured.msgid
    assert outbox.last is captured


@pytest.mark.parametrize(
    ("message", "provider"),
    [
        (OutgoingMessage("1", "-"), "primary"),
        (OutgoingMessage("1", "-").route("ad"), "cheap"),
        (OutgoingMessage("1", "-").route("otp"), "backup"),
        (OutgoingMessage("1", "-").route("else"), "primary"),
        (OutgoingMessage("1", "-", provider="backup"), "backup"),
    ],
)
def test_neither_sending_nor_delivering_calls_a_provider(
    away: Gateway, message: OutgoingMessage, provider: str
) -> None:
    with capture(away) as outbox:
        away.send(message)
        away.send_many([OutgoingMessage("2", "-", provider=provider), OutgoingMessage("3", "-")])
        assert away.deliver(OutgoingMessage("4", "-", provider=provider)).provider == provider
    assert [sent.dst for sent in outbox] == ["1", "2", "3", "4"]
    assert outbox[0].provider == provider


@pytest.mark.parametrize(
    ("provider", "values", "expected"),
    [(None, None, None), ("acme", None, "acme"), (None, ("acme",), "acme")],
)
def test_a_gateway_without_providers_accepts_any_name(
    provider: str | None, values: tuple[Any, ...] | None, expected: str | None
) -> None:
    bare = Gateway(Settings(redis_url="redis://127.0.0.1:1/0"))
    bare.router = lambda message, name: name
    message = OutgoingMessage("1", "-", provider=provider)
    message.routing_values = values
    with capture(bare) as outbox:
        bare.send(message)
    assert outbox.last.provider == expected


def test_a_provider_that_does_not_exist_is_an_assertion_error(away: Gateway) -> None:
    away.router = lambda message, kind: ["primary", "typo"]
    with capture(away) as outbox:
        with pytest.raises(AssertionError, match="typo"):
            away.send(OutgoingMessage("1", "-", provider="typo"))
        with pytest.raises(AssertionError, match="typo"):
            away.send(OutgoingMessage("1", "-").route("otp"))
        with pytest.raises(AssertionError, match="typo"):
            away.send_many([OutgoingMessage("1", "-"), OutgoingMessage("1", "-").route("otp")])
    assert outbox == []


@pytest.mark.parametrize(
    "message",
    [
        OutgoingMessage("none", "-"),
        OutgoingMessage("1", "x" * 2000),
        OutgoingMessage("1", "-").params(when=datetime.now(UTC)),
        OutgoingMessage("1", "-").options(context={"ids": (1, 2)}),
        OutgoingMessage("1", "-").route(object()),
    ],
)
def test_an_invalid_message_raises_the_error_of_production(
    away: Gateway, gateway: Gateway, message: OutgoingMessage
) -> None:
    with pytest.raises(exc.RequestError) as real:
        gateway.send(message)
    with capture(away) as outbox, pytest.raises(exc.RequestError) as caught:
        away.send(message)
    assert str(caught.value) == str(real.value)
    assert outbox == []


def test_an_idempotency_key_is_sent_once(away: Gateway) -> None:
    def order(body: str) -> OutgoingMessage:
        return OutgoingMessage("1", body).options(idempotency_key="order-1")

    heard: list[Any] = []
    away.onSend += heard.append
    with capture(away) as outbox:
        first = away.send(order("hello"))
        again = away.send(order("hello"))
        with pytest.raises(exc.IdempotencyConflict) as conflict:
            away.send_many([OutgoingMessage("2", "-"), order("other")])
    assert (first.duplicate, again.duplicate, again.id) == (False, True, first.id)
    assert [sent.dst for sent in outbox] == ["1", "2"]
    assert [sent.dst for sent in conflict.value.accepted] == ["2"]
    assert len(heard) == 2


def test_onsend_is_called_for_each_message_and_its_error_is_raised(away: Gateway) -> None:
    heard: list[tuple[Any, ...]] = []
    away.onSend += lambda sent: heard.append((sent.id, sent.provider, sent.msgid))
    with capture(away) as outbox:
        away.send(OutgoingMessage("1", "-").route("otp"))
        away.onSend += lambda sent: 1 // 0
        with pytest.raises(ZeroDivisionError):
            away.send(OutgoingMessage("2", "-"))
    assert heard == [(sent.id, sent.provider, sent.msgid) for sent in outbox]


def test_sending_can_fail_and_the_same_object_can_be_sent_again(away: Gateway) -> None:
    message = OutgoingMessage("1", "-")
    with capture(away) as outbox:
        outbox.fail(exc.QueueUnavailable("Redis is away"), times=2)
        with pytest.raises(exc.QueueUnavailable, match="Redis is away"):
            away.send(message)
        with pytest.raises(exc.QueueUnavailable) as many:
            away.send_many([message])
        assert (outbox, many.value.accepted) == ([], [])
        away.send(message)
        assert [sent.id for sent in outbox] == [message.id]
        outbox.fail(exc.QueueUnavailable, times=None)
        for _ in range(3):
            with pytest.raises(exc.QueueUnavailable):
                away.send(OutgoingMessage("2", "-"))
        outbox.fail(exc.QueueUnavailable, times=0)
        away.send(OutgoingMessage("2", "-"))
    assert len(outbox) == 2


def test_an_outbox_is_a_list_with_last_and_to(away: Gateway) -> None:
    with capture(away) as outbox:
        with pytest.raises(LookupError, match="nothing was sent"):
            _ = outbox.last
        away.send_many([OutgoingMessage("+1 55", "a"), OutgoingMessage("2", "b")])
        assert [sent.body for sent in outbox.to("(155)")] == ["a"]
        assert len(outbox) == 2
        outbox.clear()
        assert not outbox


def test_lookup_find_and_cancel_know_captured_messages(away: Gateway) -> None:
    ended: list[Any] = []
    away.onStatus += lambda status: ended.append((status.id, status.status, status.context))
    with capture(away) as outbox:
        sent = away.send(OutgoingMessage("1", "now").route("otp"))
        later = OutgoingMessage("1", "later").options(context={"visit": 3})
        later.options(send_at=datetime.now(UTC) + timedelta(hours=1))
        away.send(later)
        record = away.lookup(sent.id or "")
        assert (record.state, record.provider, record.attempts) == (State.SENT, "backup", 1)
        assert record.message.body == "now"
        assert [each.message.body for each in away.find("+1")] == ["later", "now"]
        assert away.lookup(later.id or "").state == State.SCHEDULED
        assert away.cancel(later.id or "") is True
        assert away.cancel(later.id or "") is away.cancel(sent.id or "") is False
        assert away.lookup(later.id or "").state == State.CANCELLED
        fourth = away.send(OutgoingMessage("2", "x").options(tag="visits", idempotency_key="4"))
        for criterion in ({"tag": "visits"}, {"idempotency_key": "4"}, {"msgid": "captured-3"}):
            assert [each.id for each in away.find(**criterion)] == [fourth.id]
        assert [each.id for each in away.find("1", context={"visit": 3})] == [later.id]
        assert away.progress("visits").states == {State.SENT: 1}
        for call in (away.lookup, away.cancel):
            with pytest.raises(LookupError):
                call("unknown")
        with pytest.raises(LookupError, match="captured"):
            away.requeue(sent.id or "")
        away.ping()
        assert away.check() == []
    assert ended == [(later.id, "cancelled", {"visit": 3})]
    assert len(outbox) == 3


def test_onsend_is_not_called_for_a_scheduled_message(away: Gateway) -> None:
    heard: list[Any] = []
    away.onSend += heard.append
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with capture(away) as outbox:
        reminder = away.send(OutgoingMessage("1", "-").options(send_at=tomorrow))
        away.cancel(reminder.id or "")
        away.send(OutgoingMessage("2", "-").options(send_at=tomorrow - timedelta(days=2)))
    assert [sent.dst for sent in heard] == ["2"]
    assert outbox[0].provider_options.send_at == tomorrow


class _Stop(Exception):
    pass


def _leave(away: Gateway) -> None:
    with pytest.raises(_Stop), capture(away):
        raise _Stop


def _close(away: Gateway) -> None:
    heard: list[OutgoingMessage] = []
    away.onSend += heard.append
    with capture(away) as outbox:
        away.close()
        with away:
            away.send(OutgoingMessage("1", "-"))
        away.send(OutgoingMessage("1", "-"))
        assert len(outbox) == len(heard) == 2


def _nest(away: Gateway) -> None:
    with capture(away) as outer:
        with capture(away) as inner:
            away.send(OutgoingMessage("1", "inner"))
        away.send(OutgoingMessage("1", "outer"))
    assert [[sent.body for sent in outbox] for outbox in (outer, inner)] == [["outer"], ["inner"]]


@pytest.mark.parametrize("use", [_leave, _close, _nest])
def test_a_connected_gateway_is_as_before_afterwards(
    gateway: Gateway, use: Callable[[Gateway], None]
) -> None:
    gateway.send(OutgoingMessage("1", "before"))
    use(gateway)
    after = gateway.send(OutgoingMessage("1", "after"))
    assert [record.message.body for record in gateway.find("1")] == ["after", "before"]
    assert gateway.lookup(after.id or "").state == State.QUEUED


def test_a_gateway_that_never_connected_is_as_before_afterwards(away: Gateway) -> None:
    with capture(away):
        away.send(OutgoingMessage("1", "-"))
    with pytest.raises(exc.QueueUnavailable):
        away.send(OutgoingMessage("1", "-"))
    with pytest.raises(ZeroDivisionError):
        away.deliver(OutgoingMessage("1", "-"))


def test_an_eager_gateway_is_captured_and_eager_again_afterwards() -> None:
    eager = Gateway(eager=True)
    phone = eager.add_provider("phone", LoopbackProvider)
    assert isinstance(phone, LoopbackProvider)
    with capture(eager) as outbox:
        sent = eager.send(OutgoingMessage("1", "captured"))
        assert (sent.provider, sent.msgid) == ("phone", outbox.last.msgid)
        assert phone.get_traffic() == []
        with pytest.raises(exc.RequestError):
            eager.send(OutgoingMessage("1", "-").params(when=datetime.now(UTC)))
    eager.send(OutgoingMessage("1", "sent"))
    assert [message.body for message in phone.get_traffic()] == ["sent"]


def test_other_threads_are_captured(away: Gateway) -> None:
    together = threading.Barrier(20)

    def request(number: int) -> None:
        key = f"k{number % 5}"
        together.wait(30)
        away.send(OutgoingMessage(f"{number % 5}", "-").options(idempotency_key=key))

    with capture(away) as outbox, switching_threads_in(in_memory_ledger):
        threads = [threading.Thread(target=request, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(sent.dst for sent in outbox) == ["0", "1", "2", "3", "4"]


def test_only_a_gateway_can_be_captured() -> None:
    with pytest.raises(TypeError, match="takes a Gateway, not type"):
        capture(IProvider).__enter__()  # type: ignore[arg-type]


def test_it_loads_neither_celery_nor_flask_nor_pytest() -> None:
    code = (
        "import sys; from smsqueue import Gateway, OutgoingMessage\n"
        "from smsqueue.testing import capture\n"
        "gateway = Gateway()\n"
        "with capture(gateway) as outbox:\n"
        "    gateway.send(OutgoingMessage('1', '-')); outbox.report(outbox.last, 'delivered')\n"
        "print({'celery', 'kombu', 'flask', 'pytest'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr
