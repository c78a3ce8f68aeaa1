"""Webhooks as an attacker, or a provider with a fault, would write them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from smsqueue.testing.examples import Webhook

__all__ = ["NUMBER", "Request", "bodies", "hostile", "moved"]

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


class Request(NamedTuple):
    """A request as it goes to Flask's test client."""

    path: str
    method: str
    headers: Mapping[str, str]
    body: bytes


_FORM = "application/x-www-form-urlencoded"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
_TYPES = (_FORM, "multipart/form-data; boundary=b", "application/json", "text/html")


def moved(genuine: Request) -> Iterator[tuple[str, Request]]:
    """A genuine request with its signature, by other methods, as other content types, and with
    its fields elsewhere: in query, form and JSON, in one of them or in two, where the second one
    says something else.
    """
    path, _, query = genuine.path.partition("?")
    kind = genuine.headers.get("Content-Type", "")
    text = genuine.body.decode("latin-1")
    fields: dict[str, Any]
    if kind == _FORM:
        fields = dict(parse_qsl(genuine.body.decode()))
    elif genuine.body:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        fields = found if isinstance(found, dict) else {}
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
        "parts": (bare | {"Content-Type": "multipart/form-data; boundary=b"}, _parts(fields)),
    }
    for each in _TYPES:
        if genuine.body and each != kind:
            contents[f"its body as {each}"] = (bare | {"Content-Type": each}, genuine.body)
    for method in _METHODS:
        for where, asked in queries.items():
            for what, (headers, body) in contents.items():
                url = f"{path}?{asked}" if asked else path
                same = (url, method, body) == (genuine.path, genuine.method, genuine.body)
                if not (same and headers.get("Content-Type", "") == kind):
                    yield f"{method}, {where}, {what}", Request(url, method, headers, body)


def _parts(fields: Mapping[str, Any]) -> bytes:
    head = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    return "".join(head.format(*each) for each in fields.items()).encode() + b"--b--\r\n"


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
