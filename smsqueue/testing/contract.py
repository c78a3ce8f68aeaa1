"""The contract of a provider, as checks to be run: what is declared, and what holds for all.

@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check):
    check()
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from smsqueue import exc
from smsqueue.message.messages import OutgoingMessage
from smsqueue.providers.account import AccountProvider
from smsqueue.providers.capabilities import Can
from smsqueue.testing.examples import (
    PREFIX,
    PUBLIC_URL,
    REF,
    Examples,
    Refusal,
    Sending,
    made,
    message,
)
from smsqueue.testing.hooked import webhook_checks
from smsqueue.testing.stub import Answer, Seen, Stub

__all__ = ["PREFIX", "PUBLIC_URL", "Check", "checks", "made"]


@dataclass(frozen=True)
class Check:
    """One check; its text is its name. Raises AssertionError."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def checks(examples: Examples) -> list[Check]:
    """All checks of a provider."""
    return list(_checks(examples))


def _checks(examples: Examples) -> Iterator[Check]:
    for sending in examples.sendings:
        yield Check(f"sends: {sending.name}", lambda s=sending: _sends(examples, s))  # type: ignore[misc]
    for refusal in (*examples.refusals, *_COMMON, *_bare_5xx(examples)):
        yield Check(f"error: {refusal.name}", lambda r=refusal: _refuses(examples, r))  # type: ignore[misc]
    yield Check("a 5xx of a gateway is not the provider's own", lambda: _gateways(examples))
    for n, asked in enumerate(examples.unsupported):
        yield Check(f"unsupported {n}", lambda m=asked: _cannot(examples, m))  # type: ignore[misc]
    yield Check("nobody listens", lambda: _nobody(examples))
    yield Check("a redirect is not followed", lambda: _redirect(examples))
    yield Check("secrets are not shown", lambda: _hidden(examples))
    yield Check("capabilities are what the class has", lambda: _honest(examples))
    if Can.DEDUPLICATION in examples.provider.capabilities:
        yield Check("a repetition is the same request", lambda: _repeats(examples))
    for name, run in webhook_checks(examples):
        yield Check(name, run)


#: What holds for every provider that is called over HTTP.
_COMMON = (
    Refusal("the answer is lost", Answer(cut=True), exc.ConnectionError, ambiguous=True),
    Refusal("rubbish", Answer(200, "<html>ok"), exc.ServerError, ambiguous=True),
    Refusal("an empty answer", Answer(200, ""), exc.ServerError, ambiguous=True),
    Refusal("502 of a proxy", Answer(502, "<html>"), exc.ServerError, ambiguous=True),
    Refusal("500 that is not its own", Answer(500, "<html>"), exc.ServerError, ambiguous=True),
    Refusal("501 of a proxy", Answer(501, "<html>"), exc.UnsupportedError, ambiguous=True),
    Refusal("505 of a proxy", Answer(505, "<html>"), exc.UnsupportedError, ambiguous=True),
    Refusal("499 of a proxy", Answer(499, "<html>"), exc.ServerError, ambiguous=True),
    Refusal("407 of a proxy", Answer(407, "<html>"), exc.AuthError),
    Refusal("429", Answer(429, "", {"Retry-After": "7"}), exc.LimitsError, retry_after=7.0),
)

#: How proxies and API gateways write errors of their own: each with the status in it.
_GATEWAY_ERRORS: Mapping[str, Callable[[int], Any]] = {
    "a line of text": lambda status: "upstream connect error or disconnect/reset before headers",
    "an empty object": lambda status: {},
    "message": lambda status: {"message": "Service Unavailable"},
    "code, message": lambda status: {"code": status, "message": "no healthy upstream"},
    "code as a text": lambda status: {"code": str(status), "message": "no", "text": "no"},
    "code of gRPC": lambda status: {"code": 14, "message": "unavailable", "details": []},
    "code as a word": lambda status: {"code": "SERVICE_UNAVAILABLE", "message": "no"},
    "status, error": lambda status: {"status": status, "error": "no", "path": "/", "message": "no"},
    "error, code": lambda status: {
        "error": {"code": status, "message": "no", "status": "UNAVAILABLE", "description": "no"}
    },
    "error, code as a text": lambda status: {"error": {"code": str(status), "message": "no"}},
    "errors": lambda status: {"errors": [{"code": status, "message": "no", "description": "no"}]},
    "errors, code as a text": lambda status: {"errors": [{"status": str(status), "code": "503"}]},
    "errorCode": lambda status: {"errorCode": status, "errorMessage": "no"},
    "fault": lambda status: {"fault": {"faultstring": "no", "detail": {"errorcode": "x.y"}}},
    "a problem": lambda status: {
        "type": f"https://httpstatuses.com/{status}",
        "title": "no",
        "status": status,
    },
    "a problem of no type": lambda status: {"type": "about:blank", "status": status},
    "XML": lambda status: f"<error><code>{status}</code><Code>{status}</Code></error>",
}


def _bare_5xx(examples: Examples) -> Iterator[Refusal]:
    """A 503 without an error body may mean anything, unless the provider documents it."""
    declared = bool(examples.provider.bare_503_is_refusal)
    yield Refusal("503 without its error body", Answer(503, "<html>"), exc.ServerError,
                  ambiguous=not declared)  # fmt: skip


def _gateways(examples: Examples) -> None:
    """Whatever a proxy or gateway writes into a 5xx, it says nothing of the message."""
    declared = bool(examples.provider.bare_503_is_refusal)
    with Stub() as stub:
        _, provider, _ = made(examples, stub.url)
        for name, body in _GATEWAY_ERRORS.items():
            for status in (500, 501, 502, 503, 504, 505, 520):
                stub.answers = deque([Answer(status, body(status))])
                error = failure_of(provider, message())
                wanted = not (status == 503 and declared)
                found = f"{status}, {name}: ambiguous={error.ambiguous}, code={error.code!r}"
                assert error.ambiguous is wanted, found


def _sends(examples: Examples, sending: Sending) -> None:
    with Stub(sending.answer) as stub:
        _, provider, _ = made(examples, stub.url, **sending.config)
        sent = provider.send(sending.message)
    assert sent is sending.message, "send() has to return its message"
    assert sent.msgid == sending.msgid, f"msgid is {sent.msgid!r}"
    assert len(stub.seen) == 1, f"{len(stub.seen)} requests"
    seen = stub.seen[0]
    assert (seen.method, seen.path) == (sending.method, sending.path), (seen.method, seen.path)
    if sending.form is not None:
        _same(seen.form, sending.form)
    if sending.json is not None:
        _same(seen.json, sending.json)
    if sending.query is not None:
        _same(seen.query, sending.query)
    for name, value in sending.headers.items():
        assert seen.headers.get(name) == value, f"{name}: {seen.headers.get(name)!r}"
    if sending.check is not None:
        sending.check(seen)


def _same(found: Any, wanted: Any, where: str = "") -> None:
    """Compare, and say where they differ; functions in ``wanted`` judge for themselves."""
    if callable(wanted):
        assert wanted(found) is True, f"{where}: {found!r}"
    elif isinstance(wanted, dict):
        assert isinstance(found, dict), f"{where}: {found!r}"
        assert found.keys() == wanted.keys(), f"{where}: {sorted(found)} != {sorted(wanted)}"
        for name in wanted:
            _same(found[name], wanted[name], f"{where}.{name}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), f"{where}: {found!r}"
        assert len(found) == len(wanted), f"{where}: {found!r}"
        for n, each in enumerate(wanted):
            _same(found[n], each, f"{where}[{n}]")
    else:
        assert found == wanted, f"{where}: {found!r} != {wanted!r}"


def failure(examples: Examples, url: str, asked: OutgoingMessage) -> exc.ProviderError:
    """The error that a message ends in; AssertionError if it does not."""
    return failure_of(made(examples, url)[1], asked)


def failure_of(provider: Any, asked: OutgoingMessage) -> exc.ProviderError:
    """The same, of a provider that is there already."""
    try:
        provider.send(asked)
    except exc.ProviderError as error:
        return error
    raise AssertionError(f"it was sent as {asked.msgid!r}")


def _refuses(examples: Examples, refusal: Refusal) -> None:
    with Stub(refusal.answer) as stub:
        error = failure(examples, stub.url, message())
    assert len(stub.seen) == 1, f"{len(stub.seen)} requests"
    assert type(error) is refusal.error, f"{type(error).__name__}: {error}"
    assert error.ambiguous is refusal.ambiguous, f"ambiguous={error.ambiguous}"
    assert error.provider == "main", f"provider={error.provider!r}"
    if refusal.code is not None:
        assert error.code == refusal.code, f"code={error.code!r}"
    if refusal.retry_after is not None:
        assert error.retry_after == refusal.retry_after, f"retry_after={error.retry_after!r}"


def _cannot(examples: Examples, asked: OutgoingMessage) -> None:
    with Stub(examples.good) as stub:
        error = failure(examples, stub.url, asked)
    assert isinstance(error, exc.UnsupportedError), repr(error)
    assert stub.seen == [], "it was asked all the same"


def _nobody(examples: Examples) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens on it
        error = failure(examples, f"http://127.0.0.1:{taken.getsockname()[1]}", message())
    assert type(error) is exc.ConnectionError, repr(error)
    assert not error.ambiguous, "nothing was written"


def _redirect(examples: Examples) -> None:
    with Stub(examples.good) as other:
        with Stub(Answer(302, "", {"Location": other.url})) as stub:
            failure(examples, stub.url, message())
        assert other.seen == [], "credentials went to another address"


def _hidden(examples: Examples) -> None:
    with Stub(Answer(400, "secret words about +15551234567")) as stub:
        _, provider, _ = made(examples, stub.url)
        error = failure(examples, stub.url, message())
    shown = {"the provider's repr": repr(provider), "the error": f"{error!r} {error}"}
    for where, text in shown.items():
        for n, secret in enumerate(examples.secrets):
            assert secret not in text, f"secrets[{n}] is shown in {where}"
        assert "15551234567" not in text, f"the number is shown in {where}"


def _honest(examples: Examples) -> None:
    """What can be told from the class alone."""
    _, provider, _ = made(examples, "http://127.0.0.1:9")
    kind, base = examples.provider, AccountProvider
    receives = kind.make_receiver_blueprint is not base.make_receiver_blueprint
    has = {
        Can.BALANCE: kind.balance is not base.balance,
        Can.LOOKUP: kind.look_up is not base.look_up,
        Can.DEDUPLICATION: provider.dedup_window > 0,
        Can.REPORTS: receives and Can.REPORTS in provider.capabilities,
        Can.INBOUND: receives and Can.INBOUND in provider.capabilities,
        Can.MEDIA: {Can.INBOUND, Can.MEDIA} <= provider.capabilities,
    }
    for can, really in has.items():
        claimed = can in provider.capabilities
        says = "claims" if claimed else "does not claim"
        assert claimed == really, f"it {says} {can}, and {'has' if really else 'lacks'} it"


def _repeats(examples: Examples) -> None:
    """What it would take for another request might be sent a second time."""
    asked = [message(params={"b": 1, "a": 2}) for _ in range(2)]
    for each in asked:
        each.dedup_key = REF
    first, second = (seen_by(examples, each)[0] for each in asked)
    assert first.target == second.target, "another address"
    assert first.body == second.body, "another body"


def seen_by(examples: Examples, asked: OutgoingMessage, *answers: Answer) -> list[Seen]:
    """The requests that sending a message makes."""
    with Stub(*answers or (examples.good,)) as stub:
        _, provider, _ = made(examples, stub.url)
        provider.send(asked)
    return stub.seen
