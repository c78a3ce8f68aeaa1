"""The checks of a provider's webhooks: genuine ones count, all others are refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from smsqueue.gateway import Gateway
from smsqueue.message import serialization
from smsqueue.message.messages import IncomingMessage
from smsqueue.providers.checked import checked
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
from smsqueue.testing.hostile import NUMBER, Request, hostile, moved

__all__ = ["client_of", "posted", "receiver", "request_of", "webhook_checks"]

_Named = tuple[str, Callable[[], None]]


def webhook_checks(examples: Examples) -> Iterator[_Named]:
    """Names and checks; none for a provider without webhooks."""
    for hook in examples.webhooks:
        yield f"webhook: {hook.name}", lambda h=hook: _taken(examples, h)  # type: ignore[misc]
        if hook.sign is not None:
            yield f"unsigned: {hook.name}", lambda h=hook: _unsigned(examples, h)  # type: ignore[misc]
            yield f"tampered: {hook.name}", lambda h=hook: _tampered(examples, h)  # type: ignore[misc]
    for name, hook, status in examples.refused:
        yield (
            f"refused: {name}",
            lambda h=hook, s=status: _answered(examples, h, s),  # type: ignore[misc]
        )
    if examples.webhooks:
        if examples.provider.authenticates:
            yield "no secret, no receiver", lambda: _closed(examples)
        yield "insecure=True takes unsigned ones", lambda: _open(examples)
    kinds = {(h.path.partition("?")[0], h.method, h.json is None): h for h in examples.webhooks}
    for hook in kinds.values():
        yield f"distorted: {hook.name}", lambda h=hook: _distorted(examples, h)  # type: ignore[misc]
        if hook.sign is not None:
            yield f"moved: {hook.name}", lambda h=hook: _moved(examples, h)  # type: ignore[misc]


def receiver(examples: Examples, **config: Any) -> tuple[Any, list[Any]]:
    """A client of a provider's receivers, behind a TLS proxy, and what the provider reports."""
    gateway, _, heard = made(examples, "http://127.0.0.1:9", **config)
    return client_of(gateway), heard


def client_of(gateway: Gateway) -> Any:
    """Flask's client of an application with the receivers of a gateway."""
    from flask import Flask

    return gateway.receiver_blueprints_register(Flask("receivers"), PREFIX).test_client()


def posted(client: Any, hook: Webhook, *, signed: bool = True, tampered: bool = False) -> Any:
    """The answer to a webhook: signed as it says, or not, or changed after it was signed."""
    return _sent(client, request_of(hook, signed=signed, tampered=tampered))


def _sent(client: Any, request: Request) -> Any:
    path, method, headers, body = request
    return client.open(path, method=method, headers=headers, data=body)


def request_of(hook: Webhook, *, signed: bool = True, tampered: bool = False) -> Request:
    method, headers = hook.method, dict(hook.headers)
    path = f"/{PREFIX}/main{hook.path}"
    if hook.form is not None and method == "GET":
        path += ("&" if "?" in path else "?") + urlencode(hook.form, doseq=True)
        body = b""
    elif hook.form is not None:
        body = urlencode(hook.form, doseq=True).encode()
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    elif hook.json is not None:
        body = json.dumps(hook.json).encode()
        headers.setdefault("Content-Type", "application/json")
    else:
        body = hook.body or b""
    url = PUBLIC_URL + path
    if signed and hook.sign is not None:
        result = hook.sign(method, url, headers, body)
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


def _taken(examples: Examples, hook: Webhook) -> None:
    client, heard = receiver(examples)
    response = posted(client, hook)
    assert response.status_code == hook.status, (response.status_code, response.data)
    if hook.answer is not None:
        assert response.data == hook.answer, response.data
    assert len(heard) == len(hook.events), heard
    for found, wanted in zip(heard, hook.events, strict=True):
        _matches(found, wanted)


def _matches(found: Any, wanted: Received | Reported) -> None:
    assert found.provider == "main"
    if isinstance(wanted, Received):
        assert isinstance(found, IncomingMessage), found
        told = (found.src, found.body, found.dst, found.msgid)
        assert told == (wanted.src, wanted.body, wanted.dst, wanted.msgid), told
        if wanted.media is not None:
            assert found.media == tuple(wanted.media), found.media
        if wanted.recipients is not None:
            recipients = found.meta.get("recipients")
            assert recipients == list(wanted.recipients), recipients
        if wanted.replyable is not None:
            assert found.replyable is wanted.replyable, f"replyable is {found.replyable}"
        return
    assert not isinstance(found, IncomingMessage), found
    report = (found.state, found.msgid, found.reference)
    assert report == (wanted.state, wanted.msgid, wanted.reference), report
    if wanted.code is not None:
        assert found.status_code == wanted.code, found.status_code
    if wanted.status is not None:
        assert found.status == wanted.status, found.status


def _unsigned(examples: Examples, hook: Webhook) -> None:
    client, heard = receiver(examples)
    assert posted(client, hook, signed=False).status_code in (401, 403)
    assert heard == []


def _tampered(examples: Examples, hook: Webhook) -> None:
    client, heard = receiver(examples)
    assert posted(client, hook, tampered=True).status_code in (401, 403)
    assert heard == []


def _moved(examples: Examples, hook: Webhook) -> None:
    """A genuine signature counts for the request that it was made for, and for no other."""
    genuine = request_of(hook)
    client, heard = receiver(examples)
    for name, request in moved(genuine):
        heard.clear()
        status = _sent(client, request).status_code
        assert status < 500, f"{name}: answered {status}"
        if request.method in ("HEAD", "OPTIONS"):
            assert status == 405, f"{name}: answered {status}"
        if not heard:
            continue
        unread = _same_but_for_the_query(genuine, request)
        assert hook.placeless or unread, f"{name}: it was recorded"
        assert len(heard) == len(hook.events), f"{name}: {len(heard)} events"
        for found, wanted in zip(heard, hook.events, strict=True):
            # Our reference may be lost with the query, never be another one.
            if unread and isinstance(wanted, Reported) and found.reference is None:
                _matches(found, replace(wanted, reference=None))
            else:
                _matches(found, wanted)


def _same_but_for_the_query(genuine: Request, request: Request) -> bool:
    """Is only the query changed of a request whose body has all fields? It need not be signed."""
    same = (request.method, request.body) == (genuine.method, genuine.body)
    return same and bool(genuine.body) and request.headers == genuine.headers


def _distorted(examples: Examples, hook: Webhook) -> None:
    """One thing wrong at a time, from somebody who may send webhooks: never our fault."""
    posts, heard = receiver(examples, insecure=True)
    with _logged() as lines:
        for each in hostile(hook):
            heard.clear()
            answer = posted(posts, each, signed=False)
            assert answer.status_code < 500, (each.form or each.body, answer.status_code)
            for event in heard:
                incoming = isinstance(checked(event), IncomingMessage)
                serialization.to_json(
                    (serialization.dump_incoming if incoming else serialization.dump_status)(event)
                )
    assert not [line for line in lines if NUMBER in line], "a number is in the log"


@contextmanager
def _logged() -> Iterator[list[str]]:
    """All that is logged in the block, formatted."""
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


def _answered(examples: Examples, hook: Webhook, status: int) -> None:
    client, heard = receiver(examples)
    response = posted(client, hook)
    assert response.status_code == status, (response.status_code, response.data)
    assert heard == []


def _closed(examples: Examples) -> None:
    without: dict[str, Any] = {examples.secret: None} if examples.secret else {}
    try:
        receiver(examples, **without | {"insecure": False} | dict(examples.config_without_secret))
    except SettingsError:
        return
    raise AssertionError("it makes a receiver that takes anybody's webhooks")


def _open(examples: Examples) -> None:
    client, heard = receiver(examples, insecure=True)
    hook = examples.webhooks[0]
    assert posted(client, hook, signed=False).status_code == hook.status
    assert len(heard) == len(hook.events)
