"""The checks that every provider has to pass: its own examples, and rules common to all.

In the provider's tests:

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
from smsqueue.testing.stub import Answer, Seen, Stub
from smsqueue.testing.webhook_checks import captured_log, webhook_checks

__all__ = ["PREFIX", "PUBLIC_URL", "Check", "checks", "made"]


@dataclass(frozen=True)
class Check:
    """One check; calling it raises AssertionError if the provider fails."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def checks(examples: Examples) -> list[Check]:
    """Return all checks of a provider."""
    return list(_checks(examples))


def _checks(examples: Examples) -> Iterator[Check]:
    for sending in examples.sendings:
        yield Check(f"sends: {sending.name}", lambda s=sending: _check_request(examples, s))  # type: ignore[misc]
    for refusal in (*examples.refusals, *_COMMON, *_bare_5xx(examples)):
        yield Check(f"error: {refusal.name}", lambda r=refusal: _check_error(examples, r))  # type: ignore[misc]
    yield Check("a 5xx of a proxy is ambiguous", lambda: _check_proxy_errors(examples))
    for n, unsupported in enumerate(examples.unsupported):
        yield Check(f"unsupported {n}", lambda m=unsupported: _check_unsupported(examples, m))  # type: ignore[misc]
    yield Check("connection refused", lambda: _check_connection_refused(examples))
    yield Check("a redirect is not followed", lambda: _check_redirect(examples))
    yield Check("secrets are not shown", lambda: _check_secrets(examples))
    yield Check("capabilities match the class", lambda: _check_capabilities(examples))
    if Can.DEDUPLICATION in examples.provider.capabilities:
        yield Check("a repeated call makes the same request", lambda: _check_repetition(examples))
    for name, run in webhook_checks(examples):
        yield Check(name, run)


#: Answers and errors that are the same for every provider.
_COMMON = (
    Refusal("the answer is lost", Answer(cut=True), exc.ConnectionError, ambiguous=True),
    Refusal("a malformed answer", Answer(200, "<html>ok"), exc.ServerError, ambiguous=True),
    Refusal("an empty answer", Answer(200, ""), exc.ServerError, ambiguous=True),
    Refusal("502 of a proxy", Answer(502, "<html>"), exc.ServerError, ambiguous=True),
    Refusal("500 of a proxy", Answer(500, "<html>"), exc.ServerError, ambiguous=True),
    Refusal("501 of a proxy", Answer(501, "<html>"), exc.UnsupportedError, ambiguous=True),
    Refusal("505 of a proxy", Answer(505, "<html>"), exc.UnsupportedError, ambiguous=True),
    Refusal("499 of a proxy", Answer(499, "<html>"), exc.ServerError, ambiguous=True),
    Refusal("407 of a proxy", Answer(407, "<html>"), exc.AuthError),
    Refusal("429", Answer(429, "", {"Retry-After": "7"}), exc.LimitsError, retry_after=7.0),
)

#: Error bodies of proxies and API gateways, by description; each is a function of the status.
_GATEWAY_ERRORS: Mapping[str, Callable[[int], Any]] = {
    "plain text": lambda status: "upstream connect error or disconnect/reset before headers",
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
    """A 503 without the provider's error body is ambiguous, unless the provider documents it."""
    declared = bool(examples.provider.bare_503_is_refusal)
    yield Refusal("503 without its error body", Answer(503, "<html>"), exc.ServerError,
                  ambiguous=not declared)  # fmt: skip


def _check_proxy_errors(examples: Examples) -> None:
    """The body of a proxy's 5xx must not be taken for the provider's own error."""
    declared = bool(examples.provider.bare_503_is_refusal)
    with Stub() as stub:
        _, provider, _ = made(examples, stub.url)
        for name, body in _GATEWAY_ERRORS.items():
            for status in (500, 501, 502, 503, 504, 505, 520):
                stub.answers = deque([Answer(status, body(status))])
                error = failure_of(provider, message())
                expected = not (status == 503 and declared)
                shown = f"{status}, {name}: ambiguous={error.ambiguous}, code={error.code!r}"
                assert error.ambiguous is expected, shown


def _check_request(examples: Examples, sending: Sending) -> None:
    with Stub(sending.answer) as stub:
        _, provider, _ = made(examples, stub.url, **sending.config)
        sent = provider.send(sending.message)
    assert sent is sending.message, "send() has to return its message"
    assert sent.msgid == sending.msgid, f"msgid is {sent.msgid!r}"
    assert len(stub.seen) == 1, f"{len(stub.seen)} requests"
    request = stub.seen[0]
    target = (request.method, request.path)
    assert target == (sending.method, sending.path), target
    if sending.form is not None:
        _compare(request.form, sending.form)
    if sending.json is not None:
        _compare(request.json, sending.json)
    if sending.query is not None:
        _compare(request.query, sending.query)
    for name, value in sending.headers.items():
        assert request.headers.get(name) == value, f"{name}: {request.headers.get(name)!r}"
    if sending.check is not None:
        sending.check(request)


def _compare(actual: Any, expected: Any, where: str = "") -> None:
    """Assert that both are equal; a function in ``expected`` has to return True for its value."""
    if callable(expected):
        assert expected(actual) is True, f"{where}: {actual!r}"
    elif isinstance(expected, dict):
        assert isinstance(actual, dict), f"{where}: {actual!r}"
        assert actual.keys() == expected.keys(), f"{where}: {sorted(actual)} != {sorted(expected)}"
        for name in expected:
            _compare(actual[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, list):
        assert isinstance(actual, list), f"{where}: {actual!r}"
        assert len(actual) == len(expected), f"{where}: {actual!r}"
        for n, item in enumerate(expected):
            _compare(actual[n], item, f"{where}[{n}]")
    else:
        assert actual == expected, f"{where}: {actual!r} != {expected!r}"


def failure(examples: Examples, url: str, message: OutgoingMessage) -> exc.ProviderError:
    """Send a message and return the error; AssertionError if there is none."""
    return failure_of(made(examples, url)[1], message)


def failure_of(provider: Any, message: OutgoingMessage) -> exc.ProviderError:
    """The same with an existing provider."""
    try:
        provider.send(message)
    except exc.ProviderError as error:
        return error
    raise AssertionError(f"the message was sent as {message.msgid!r}")


def _check_error(examples: Examples, refusal: Refusal) -> None:
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


def _check_unsupported(examples: Examples, unsupported: OutgoingMessage) -> None:
    with Stub(examples.good) as stub:
        error = failure(examples, stub.url, unsupported)
    assert isinstance(error, exc.UnsupportedError), repr(error)
    assert stub.seen == [], "the provider made a request all the same"


def _check_connection_refused(examples: Examples) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # without listen(): connections are refused
        error = failure(examples, f"http://127.0.0.1:{bound.getsockname()[1]}", message())
    assert type(error) is exc.ConnectionError, repr(error)
    assert not error.ambiguous, "nothing was written"


def _check_redirect(examples: Examples) -> None:
    with Stub(examples.good) as other:
        with Stub(Answer(302, "", {"Location": other.url})) as stub:
            failure(examples, stub.url, message())
        assert other.seen == [], "credentials went to another address"


def _check_secrets(examples: Examples) -> None:
    """Neither secrets nor the provider's texts may reach an error tracker or a log."""
    refusal = Answer(400, "secret words about +15551234567")
    with captured_log() as lines, Stub(examples.good, refusal) as stub:
        _, provider, _ = made(examples, stub.url)
        provider.send(message())
        error = failure_of(provider, message())
    shown = {
        "the provider's repr": repr(provider),
        "the error": _text_of(error),
        "the log": "\n".join(lines),
    }
    for where, text in shown.items():
        for n, secret in enumerate(examples.secrets):
            assert secret not in text, f"secrets[{n}] is shown in {where}"
        assert "15551234567" not in text, f"the number is shown in {where}"


def _text_of(error: BaseException | None) -> str:
    """The text of an error and of those that a traceback shows above it."""
    if error is None:
        return ""
    above = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{_text_of(above)}{error!r} {error}\n"


def _check_capabilities(examples: Examples) -> None:
    """Compare the capabilities with the methods and attributes of the class."""
    _, provider, _ = made(examples, "http://127.0.0.1:9")
    kind, base = examples.provider, AccountProvider
    receives = kind.make_receiver_blueprint is not base.make_receiver_blueprint
    present = {
        Can.BALANCE: kind.balance is not base.balance,
        Can.LOOKUP: kind.look_up is not base.look_up,
        Can.DEDUPLICATION: provider.dedup_window > 0,
        Can.REPORTS: receives and Can.REPORTS in provider.capabilities,
        Can.INBOUND: receives and Can.INBOUND in provider.capabilities,
        Can.MEDIA: {Can.INBOUND, Can.MEDIA} <= provider.capabilities,
    }
    for capability, has in present.items():
        claimed = capability in provider.capabilities
        claim = "claims" if claimed else "does not claim"
        assert claimed == has, f"the class {claim} {capability}, and {'has' if has else 'lacks'} it"


def _check_repetition(examples: Examples) -> None:
    """A repetition that differs might be sent a second time."""
    messages = [message(params={"b": 1, "a": 2}) for _ in range(2)]
    for repeated in messages:
        repeated.dedup_key = REF
    first, second = (seen_by(examples, repeated)[0] for repeated in messages)
    assert first.target == second.target, "another URL"
    assert first.body == second.body, "another body"


def seen_by(examples: Examples, message: OutgoingMessage, *answers: Answer) -> list[Seen]:
    """Send a message and return the requests that the provider made."""
    with Stub(*answers or (examples.good,)) as stub:
        _, provider, _ = made(examples, stub.url)
        provider.send(message)
    return stub.seen
