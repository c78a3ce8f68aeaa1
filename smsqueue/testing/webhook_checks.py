"""Checks of a provider's webhooks: genuine webhooks are recorded, all others are refused."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from smsqueue.gateway import Gateway
from smsqueue.message import serialization
from smsqueue.message.messages import IncomingMessage
from smsqueue.providers.base.event_validation import validate_event
from smsqueue.settings import SettingsError
from smsqueue.testing.examples import (
    PREFIX,
    PUBLIC_URL,
    Examples,
    Received,
    Reported,
    Webhook,
    made,
)

__all__ = [
    "Request",
    "captured_log",
    "client_of",
    "distorted_webhooks",
    "malformed_bodies",
    "post_webhook",
    "receiver",
    "relocated_requests",
    "request_of",
    "webhook_checks",
]

_NamedCheck = tuple[str, Callable[[], None]]
_FORM = "application/x-www-form-urlencoded"


class Request(NamedTuple):
    """A request for Flask's test client."""

    path: str
    method: str
    headers: Mapping[str, str]
    body: bytes


def webhook_checks(examples: Examples) -> Iterator[_NamedCheck]:
    """Yield names and checks; none for a provider without webhooks."""
    for webhook in examples.webhooks:
        yield f"webhook: {webhook.name}", lambda w=webhook: _check_recorded(examples, w)  # type: ignore[misc]
        if webhook.sign is not None:
            yield f"unsigned: {webhook.name}", lambda w=webhook: _check_unsigned(examples, w)  # type: ignore[misc]
            yield f"tampered: {webhook.name}", lambda w=webhook: _check_tampered(examples, w)  # type: ignore[misc]
    for name, webhook, status in examples.refused:
        yield (
            f"refused: {name}",
            lambda w=webhook, s=status: _check_refused(examples, w, s),  # type: ignore[misc]
        )
    if examples.webhooks:
        if examples.provider.authenticates:
            yield "no secret, no receiver", lambda: _check_secret_required(examples)
        yield "insecure=True accepts unsigned webhooks", lambda: _check_insecure(examples)
    kinds = {(w.path.partition("?")[0], w.method, w.json is None): w for w in examples.webhooks}
    for webhook in kinds.values():
        yield f"distorted: {webhook.name}", lambda w=webhook: _check_distorted(examples, w)  # type: ignore[misc]
        if webhook.sign is not None:
            yield f"relocated: {webhook.name}", lambda w=webhook: _check_relocated(examples, w)  # type: ignore[misc]


# --- requests ----------------------------------------------------------------------------------


def receiver(examples: Examples, **config: Any) -> tuple[Any, list[Any]]:
    """Return a test client of the provider's receivers, and the list of events they record."""
    gateway, _, events = made(examples, "http://127.0.0.1:9", **config)
    return client_of(gateway), events


def client_of(gateway: Gateway) -> Any:
    """Return Flask's test client of an application with the receivers of a gateway."""
    from flask import Flask

    return gateway.receiver_blueprints_register(Flask("receivers"), PREFIX).test_client()


def post_webhook(
    client: Any, webhook: Webhook, *, signed: bool = True, tampered: bool = False
) -> Any:
    """Post a webhook and return the response.

    Args:
        signed: With the signature of ``webhook.sign``.
        tampered: Changed after it was signed.
    """
    return _open(client, request_of(webhook, signed=signed, tampered=tampered))


def _open(client: Any, request: Request) -> Any:
    path, method, headers, body = request
    return client.open(path, method=method, headers=headers, data=body)


def request_of(webhook: Webhook, *, signed: bool = True, tampered: bool = False) -> Request:
    """Return the request of a webhook; arguments as of :func:`post_webhook`."""
    method, headers = webhook.method, dict(webhook.headers)
    path = f"/{PREFIX}/main{webhook.path}"
    if webhook.form is not None and method == "GET":
        path += ("&" if "?" in path else "?") + urlencode(webhook.form, doseq=True)
        body = b""
    elif webhook.form is not None:
        body = urlencode(webhook.form, doseq=True).encode()
        headers.setdefault("Content-Type", _FORM)
    elif webhook.json is not None:
        body = json.dumps(webhook.json).encode()
        headers.setdefault("Content-Type", "application/json")
    else:
        body = webhook.body or b""
    url = PUBLIC_URL + path
    if signed and webhook.sign is not None:
        result = webhook.sign(method, url, headers, body)
        if isinstance(result, tuple):
            method, url, headers, body = result
            path = url.removeprefix(PUBLIC_URL)
        else:
            headers = result
    if tampered and body:
        body = body.replace(b"15", b"16", 1) if b"15" in body else body + b" "
    elif tampered:
        path = path.replace("15", "16", 1) if "15" in path else path + "&x=1"
    return Request(path, method, headers, body)


# --- genuine webhooks --------------------------------------------------------------------------


def _check_recorded(examples: Examples, webhook: Webhook) -> None:
    client, events = receiver(examples)
    response = post_webhook(client, webhook)
    assert response.status_code == webhook.status, (response.status_code, response.data)
    if webhook.answer is not None:
        assert response.data == webhook.answer, response.data
    assert len(events) == len(webhook.events), events
    for event, expected in zip(events, webhook.events, strict=True):
        _compare(event, expected)


def _compare(event: Any, expected: Received | Reported) -> None:
    assert event.provider == "main"
    if isinstance(expected, Received):
        assert isinstance(event, IncomingMessage), event
        received = (event.src, event.body, event.dst, event.msgid)
        assert received == (expected.src, expected.body, expected.dst, expected.msgid), received
        if expected.media is not None:
            assert event.media == tuple(expected.media), event.media
        if expected.recipients is not None:
            recipients = event.meta.get("recipients")
            assert recipients == list(expected.recipients), recipients
        if expected.replyable is not None:
            assert event.replyable is expected.replyable, f"replyable is {event.replyable}"
        return
    assert not isinstance(event, IncomingMessage), event
    report = (event.state, event.msgid, event.reference)
    assert report == (expected.state, expected.msgid, expected.reference), report
    if expected.code is not None:
        assert event.status_code == expected.code, event.status_code
    if expected.status is not None:
        assert event.status == expected.status, event.status


def _check_insecure(examples: Examples) -> None:
    client, events = receiver(examples, insecure=True)
    webhook = examples.webhooks[0]
    assert post_webhook(client, webhook, signed=False).status_code == webhook.status
    assert len(events) == len(webhook.events)


# --- forged webhooks ---------------------------------------------------------------------------


def _check_unsigned(examples: Examples, webhook: Webhook) -> None:
    client, events = receiver(examples)
    assert post_webhook(client, webhook, signed=False).status_code in (401, 403)
    assert events == []


def _check_tampered(examples: Examples, webhook: Webhook) -> None:
    client, events = receiver(examples)
    assert post_webhook(client, webhook, tampered=True).status_code in (401, 403)
    assert events == []


def _check_refused(examples: Examples, webhook: Webhook, status: int) -> None:
    client, events = receiver(examples)
    response = post_webhook(client, webhook)
    assert response.status_code == status, (response.status_code, response.data)
    assert events == []


def _check_secret_required(examples: Examples) -> None:
    config: dict[str, Any] = {examples.secret: None} if examples.secret else {}
    config |= {"insecure": False} | dict(examples.config_without_secret)
    try:
        receiver(examples, **config)
    except SettingsError:
        return
    raise AssertionError("without its secret it makes a receiver, which accepts any webhook")


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
_TYPES = (_FORM, "multipart/form-data; boundary=b", "application/json", "text/html")


def _check_relocated(examples: Examples, webhook: Webhook) -> None:
    """A signature is valid for the request that it was made for, and for no other."""
    genuine = request_of(webhook)
    client, events = receiver(examples)
    for name, request in relocated_requests(genuine):
        events.clear()
        status = _open(client, request).status_code
        assert status < 500, f"{name}: answered {status}"
        if request.method in ("HEAD", "OPTIONS"):
            assert status == 405, f"{name}: answered {status}"
        if not events:
            continue
        only_query_differs = _differs_in_query_only(genuine, request)
        assert webhook.placeless or only_query_differs, f"{name}: it was recorded"
        assert len(events) == len(webhook.events), f"{name}: {len(events)} events"
        for event, expected in zip(events, webhook.events, strict=True):
            # A query may lack our reference, but must not yield another one.
            lacks_reference = only_query_differs and getattr(event, "reference", None) is None
            if lacks_reference and isinstance(expected, Reported):
                _compare(event, replace(expected, reference=None))
            else:
                _compare(event, expected)


def _differs_in_query_only(genuine: Request, request: Request) -> bool:
    """Return whether only the query differs, and all fields are in the body.

    Such a query need not be signed.
    """
    same = (request.method, request.body) == (genuine.method, genuine.body)
    return same and bool(genuine.body) and request.headers == genuine.headers


def relocated_requests(genuine: Request) -> Iterator[tuple[str, Request]]:
    """Yield names and variants of a signed request, all with its signature.

    They have other methods, other content types, and their fields in the query, a form, JSON, or
    in two of these with different values.
    """
    path, _, query = genuine.path.partition("?")
    content_type = genuine.headers.get("Content-Type", "")
    text = genuine.body.decode("latin-1")
    fields: dict[str, Any]
    if content_type == _FORM:
        fields = dict(parse_qsl(genuine.body.decode()))
    elif genuine.body:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        fields = value if isinstance(value, dict) else {}
    else:
        fields = dict(parse_qsl(query))
    other = {name: f"{value}9" for name, value in fields.items()}
    bare = {k: v for k, v in genuine.headers.items() if k != "Content-Type"}
    as_form, as_json = bare | {"Content-Type": _FORM}, bare | {"Content-Type": "application/json"}
    queries = {"no query": "", "its query": query, "the fields": urlencode(fields)}
    queries["its query and the fields"] = "&".join(filter(None, [query, urlencode(fields)]))
    queries["its query and other fields"] = "&".join(filter(None, [query, urlencode(other)]))
    contents: dict[str, tuple[dict[str, str], bytes]] = {
        "its body": (dict(genuine.headers), genuine.body),
        "no body": (bare, b""),
        "a form": (as_form, urlencode(fields).encode()),
        "a form of other fields": (as_form, urlencode(other).encode()),
        "two forms": (as_form, f"{urlencode(fields)}&{urlencode(other)}".encode()),
        "JSON": (as_json, json.dumps(fields).encode()),
        "JSON of other fields": (as_json, json.dumps(other).encode()),
        "multipart": (bare | {"Content-Type": _TYPES[1]}, _multipart(fields)),
    }
    for other_type in _TYPES:
        if genuine.body and other_type != content_type:
            contents[f"its body as {other_type}"] = (
                bare | {"Content-Type": other_type},
                genuine.body,
            )
    for method in _METHODS:
        for query_name, changed_query in queries.items():
            for content_name, (headers, body) in contents.items():
                url = f"{path}?{changed_query}" if changed_query else path
                same = (url, method, body) == (genuine.path, genuine.method, genuine.body)
                if not (same and headers.get("Content-Type", "") == content_type):
                    name = f"{method}, {query_name}, {content_name}"
                    yield name, Request(url, method, headers, body)


def _multipart(fields: Mapping[str, Any]) -> bytes:
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    return "".join(part.format(*item) for item in fields.items()).encode() + b"--b--\r\n"


# --- malformed webhooks ------------------------------------------------------------------------

#: Stands where a word or an id belongs. It must not be logged.
_PHONE_NUMBER = "15551234567"
#: Each of these replaces each value of a JSON webhook.
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    "",
    "\x00",
    "\ud800",
    "9" * 5000,
    "2026-13-45T99:99:99Z",
    [],
    [None],
    [[]],
    {},
    {"a": {"b": []}},
    json.loads("[" * 300 + "]" * 300),
    _PHONE_NUMBER,
    f"call {_PHONE_NUMBER}",
)
#: Each of these replaces each value of a form.
_TEXTS = (
    _PHONE_NUMBER,
    "",
    "\x00",
    "\N{GRINNING FACE}",
    "9" * 5000,
    "%",
    "+",
    "a=b&c=d",
    "../..",
    "<a>",
)


def _check_distorted(examples: Examples, webhook: Webhook) -> None:
    """A malformed webhook is never answered 5xx, and what is recorded of it can be stored."""
    client, events = receiver(examples, insecure=True)
    with captured_log() as lines:
        for distorted in distorted_webhooks(webhook):
            events.clear()
            response = post_webhook(client, distorted, signed=False)
            shown = (distorted.form or distorted.body, response.status_code)
            assert response.status_code < 500, shown
            for event in events:
                incoming = isinstance(validate_event(event), IncomingMessage)
                dump = serialization.dump_incoming if incoming else serialization.dump_status
                serialization.to_json(dump(event))
    assert not [line for line in lines if _PHONE_NUMBER in line], "a number is in the log"


def distorted_webhooks(webhook: Webhook) -> Iterator[Webhook]:
    """Yield copies of a webhook with one fault each: a field that is missing, repeated, of another
    type or of an extreme value, or a malformed body."""
    if webhook.form is not None:
        for form in _distorted_forms(dict(webhook.form)):
            yield _replace(webhook, form=form)
    elif webhook.json is not None:
        for value in _distorted_json(webhook.json):
            yield _replace(webhook, json=None, body=json.dumps(value).encode())
    for body in malformed_bodies():
        yield _replace(webhook, form=None, json=None, body=body, method="POST")


def malformed_bodies() -> Iterator[bytes]:
    """Yield bodies that are no webhook of any provider."""
    yield from (b"", b"\x00", b"\xff\xfe", b"null", b"0", b"[]", b"{}", b'""', b"{", b"<a/>")
    yield b"[" * 50_000 + b"]" * 50_000
    yield b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    yield b"9" * 5000
    yield b"NaN"
    yield json.dumps({"type": "\u0416"}, ensure_ascii=False).encode("utf-16")
    yield "a=\u0416".encode("koi8-r")
    yield b"&".join(b"a%d=1" % n for n in range(2000))


def _distorted_forms(form: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in form:
        yield {k: v for k, v in form.items() if k != name}
        yield form | {name: [form[name], "again"]}
        yield from (form | {name: text} for text in _TEXTS)
    yield form | {"": "", "\x00": "\x00", "ref": "x"}


def _distorted_json(value: Any, *, top: bool = True) -> Iterator[Any]:
    """Yield copies of a JSON value with one part replaced or removed."""
    if not top:
        yield from copy.deepcopy(_VALUES)
    if isinstance(value, dict):
        for name in value:
            yield {k: v for k, v in value.items() if k != name}
            for changed in _distorted_json(value[name], top=False):
                yield value | {name: changed}
    elif isinstance(value, list):
        for n, item in enumerate(value):
            for changed in _distorted_json(item, top=False):
                yield [*value[:n], changed, *value[n + 1 :]]
        yield [*value, *value]


def _replace(webhook: Webhook, **changed: Any) -> Webhook:
    headers = dict(webhook.headers)
    if "body" in changed:
        headers.setdefault("Content-Type", "application/json" if webhook.form is None else _FORM)
    return replace(webhook, events=(), headers=headers, **changed)


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect all formatted log lines of the block."""
    lines: list[str] = []
    handler, root = logging.Handler(logging.DEBUG), logging.getLogger()
    handler.emit = lambda record: lines.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
