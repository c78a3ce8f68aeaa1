"""What ``repr`` and ``str`` show: error trackers record both, of every local variable."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smsqueue import (
    Gateway,
    IncomingMessage,
    IProvider,
    MessageError,
    OutgoingMessage,
    Settings,
    exc,
)
from smsqueue.delivery.outcomes import Attempt
from smsqueue.ledger import Claimed, ClaimedEvent, LookUp
from smsqueue.ledger.script_values import Accepted
from smsqueue.message.media import Media
from smsqueue.providers import LogProvider, LoopbackProvider, NullProvider
from smsqueue.providers.forward.protocol import ForwardedEvent, ForwardedMessage
from smsqueue.simulator.webhook_delivery import _Webhook
from smsqueue.testing import capture
from smsqueue.testing.in_memory_ledger import CapturedMessage

NUMBER, OTHER, TEXT = "15551234567", "4479460000", "Your code is 998877"
URL = "https://media.example.org/secret-picture"
PRIVATE = (NUMBER, OTHER, NUMBER[4:], TEXT, "998877", "Your code", "secret-picture", "topsecret")


def outgoing() -> OutgoingMessage:
    message = OutgoingMessage(f"+{NUMBER}", TEXT, src=OTHER)
    message.options(idempotency_key="topsecret", context={"code": "998877"}, senderId="topsecret")
    message.params(to=NUMBER, text=TEXT)
    message.route(NUMBER, TEXT)
    message.id, message.msgid, message.meta = "message-id", "msg-id", {"to": NUMBER}
    return message


def incoming() -> IncomingMessage:
    message = IncomingMessage(NUMBER, TEXT, "msg-id", OTHER, media=[(URL, "image/png")])
    message.meta = {"from": NUMBER}
    message.id = "event-id"
    return message


def status() -> MessageError:
    made = MessageError("msg-id", meta={"to": NUMBER})
    made.status, made.status_code = f"{NUMBER} did not take {TEXT!r}", 5
    made.context = {"code": "998877"}
    return made


def claimed() -> Claimed:
    data = f'{{"dst": "{NUMBER}", "body": "{TEXT}"}}'
    return Claimed(data, 0, 0, now_ms=0, waiting_since_ms=0, pinned_to="provider-name")


def claimed_event() -> ClaimedEvent:
    data = f'{{"src": "{NUMBER}", "body": "{TEXT}"}}'
    return ClaimedEvent("received", data, 0, "message-id", data, frozenset())


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        (outgoing, "message-id"),
        (incoming, "event-id"),
        (status, "msg-id"),
        (lambda: outgoing().provider_options, "OutgoingMessageOptions"),
        (lambda: Media(URL, "image/png"), "image/png"),
        (lambda: Media(URL, f"text/x; to={NUMBER}"), "Media"),
        (lambda: incoming().media, "image/png"),
        (claimed, "provider-name"),
        (claimed_event, "message-id"),
        (lambda: LookUp(claimed().data, "provider-name", "1", None, 1), "provider-name"),
        (lambda: Attempt("message-id", "token", outgoing(), 1, 1, 0.0), "message-id"),
        (lambda: ForwardedMessage(outgoing(), "client-id"), "client-id"),
        (lambda: ForwardedEvent(incoming(), "client-id"), "client-id"),
        (lambda: ForwardedEvent(status(), "client-id"), "client-id"),
        (lambda: CapturedMessage(outgoing()), "message-id"),
        (lambda: Accepted("accepted", "message-id", True), "message-id"),
        (lambda: _Webhook("main", "im", {"from": NUMBER, "text": TEXT}), "main"),
        (lambda: IncomingMessage(f"{NUMBER}@example.org", TEXT), "IncomingMessage"),
        (lambda: IncomingMessage(NUMBER, TEXT, msgid={"from": NUMBER}), "<dict>"),
        (lambda: IncomingMessage(NUMBER, TEXT, msgid=["id-1", TEXT]), "id-1"),
    ],
    ids=itertools.count(),
)
def test_no_representation_shows_a_number_or_a_text(made: Callable[[], Any], kept: str) -> None:
    thing = made()
    for text in (repr(thing), str(thing), f"{thing}", f"{[thing]}", f"{({'a': thing},)}"):
        assert kept in text
        assert [word for word in PRIVATE if word in text] == []


def test_what_a_gateway_hands_out_shows_no_number_and_no_text(gateway: Gateway) -> None:
    gateway.add_provider("null", NullProvider)
    sent = gateway.send(outgoing())
    record = gateway.lookup(sent.id or "")
    assert record.message.body == TEXT
    with capture(gateway) as outbox:
        caught = gateway.send(OutgoingMessage(NUMBER, TEXT))
        assert outbox[0].body == TEXT
        shown = [repr(outbox), repr(list(outbox)), repr(gateway.lookup(caught.id or ""))]
    providers = [
        Gateway(Settings(eager=True)).add_provider("p", kind)
        for kind in (NullProvider, LogProvider, LoopbackProvider)
    ]
    shown += [repr(sent), repr(record), repr(gateway), repr(gateway.providers), repr(providers)]
    shown += [repr(list(gateway.find(NUMBER))), repr(gateway.onReceive)]
    for text in shown:
        assert [word for word in PRIVATE if word in text] == []


class _Remembering(IProvider):
    """Raises what the application's code might, with the message at hand."""

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        raise exc.RequestError(f"refused: {message}", code=message)  # as careless as it gets


@pytest.fixture
def errors(gateway: Gateway) -> Iterator[list[BaseException]]:
    eager = Gateway(Settings(eager=True))
    eager.add_provider("careless", _Remembering)
    found: list[BaseException] = []
    lone = OutgoingMessage(NUMBER, f"{TEXT} \ud800")
    long = OutgoingMessage(NUMBER, TEXT * 500)
    nobody = OutgoingMessage(f"jane{NUMBER}@example.org", TEXT)
    strange = OutgoingMessage(NUMBER, TEXT).params(**{"to": {NUMBER: object()}})
    again = OutgoingMessage(NUMBER, TEXT).options(idempotency_key="topsecret")
    other = OutgoingMessage(NUMBER, f"{TEXT}!").options(idempotency_key="topsecret")
    gateway.send(again)
    for call in (
        lambda: eager.send(outgoing()),
        lambda: gateway.send(lone),
        lambda: gateway.send(long),
        lambda: gateway.send(nobody),
        lambda: gateway.send(strange),
        lambda: gateway.send(other),
        lambda: gateway.send_many([OutgoingMessage("1", "x"), nobody]),
        lambda: OutgoingMessage(NUMBER, TEXT, src=[NUMBER]),  # type: ignore[arg-type]
        lambda: OutgoingMessage("1", "x").options(senderId={NUMBER: TEXT}),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011  each has a class of its own
            call()
        found.append(caught.value)
    yield found
    eager.close()


def test_no_error_shows_a_number_or_a_text(errors: list[BaseException]) -> None:
    for error in errors:
        # Without the source lines of this file, and with all that is chained.
        text = "".join(traceback.TracebackException.from_exception(error).format_exception_only())
        cause: BaseException | None = error
        while cause is not None:
            text += repr(cause) + repr(cause.args) + str(vars(cause))
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        assert [word for word in PRIVATE if word in text] == [], text
