"""Webhooks as an attacker, or a provider with a fault, would write them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from smsqueue.testing.examples import Webhook

__all__ = ["NUMBER", "bodies", "hostile"]

#: Whoever writes it where a word or an id should be wants it in a log.
NUMBER = "15551234567"
#: What may stand where something else should.
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
    NUMBER,
    f"call {NUMBER}",
)
_TEXTS = (NUMBER, "", "\x00", "\N{GRINNING FACE}", "9" * 5000, "%", "+", "a=b&c=d", "../..", "<a>")


def hostile(hook: Webhook) -> Iterator[Webhook]:
    """A webhook with one thing wrong, for each thing of it: to be signed like a genuine one."""
    if hook.form is not None:
        for form in _forms(dict(hook.form)):
            yield _changed(hook, form=form)
    elif hook.json is not None:
        for value in _jsons(hook.json):
            yield _changed(hook, json=None, body=_dump(value))
    for body in bodies():
        yield _changed(hook, form=None, json=None, body=body, method="POST")


def bodies() -> Iterator[bytes]:
    """Bodies that are nothing at all."""
    yield from (b"", b"\x00", b"\xff\xfe", b"null", b"0", b"[]", b"{}", b'""', b"{", b"<a/>")
    yield b"[" * 50_000 + b"]" * 50_000
    yield b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    yield b"9" * 5000
    yield b"NaN"
    yield json.dumps({"type": "\u0416"}, ensure_ascii=False).encode("utf-16")
    yield "a=\u0416".encode("koi8-r")
    yield b"&".join(b"a%d=1" % n for n in range(2000))


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _forms(form: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in form:
        yield {k: v for k, v in form.items() if k != name}
        yield form | {name: [form[name], "again"]}
        yield from (form | {name: text} for text in _TEXTS)
    yield form | {"": "", "\x00": "\x00", "ref": "x"}


def _jsons(value: Any, *, top: bool = True) -> Iterator[Any]:
    """The value, with one thing in it replaced or left out."""
    if not top:
        yield from copy.deepcopy(_VALUES)
    if isinstance(value, dict):
        for name in value:
            yield {k: v for k, v in value.items() if k != name}
            for changed in _jsons(value[name], top=False):
                yield value | {name: changed}
    elif isinstance(value, list):
        for n, each in enumerate(value):
            for changed in _jsons(each, top=False):
                yield [*value[:n], changed, *value[n + 1 :]]
        yield [*value, *value]


def _changed(hook: Webhook, **changed: Any) -> Webhook:
    headers = dict(hook.headers)
    if "body" in changed:
        kind = "application/json" if hook.form is None else "application/x-www-form-urlencoded"
        headers.setdefault("Content-Type", kind)
    return replace(hook, events=(), headers=headers, **changed)
