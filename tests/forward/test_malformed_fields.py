"""Any value in any field: a receiver accepts or refuses the document, and never fails."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from smsqueue.providers.forward.auth import Signer
from tests.forward.side import SECRET, connect

#: JSON texts, because json.dumps() cannot write all of them.
VALUES = [
    *("null", "true", "-1", "1e999", "1" + "0" * 4000, '""', '"\\ud800"', '"\\u0000"'),
    *(
        '[["x"]]',
        '{"a": null}',
        '{"?": 1}',
        '{"?": ["x", {"?": 1}]}',
        '{"?E": ["SystemExit", [1]]}',
    ),
    *('"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"'),
    *('{"?": ["datetime", "0001-01-01T00:00:00+23:59"]}', '{"?": ["datetime", 5]}'),
    '"' + "x" * 1000 + '"',
]
MESSAGE = {
    "smsqueue": 1,
    "id": "1m842psghd5k1m5599r6",
    "attempt": 1,
    "repeated": False,
    "hops": ["5f0c"],
    "message": {
        **{"dst": "15551234567", "body": "hello", "src": "shop", "route": ["otp"]},
        "params": {"a": 1},
        "options": {
            **{"status_report": True, "expires": 5, "senderId": "Shop", "on_unknown": "hold"},
            **{"escalate": False, "allow_reply": True, "send_at": "2027-01-01T00:00:00+00:00"},
        },
    },
}
EVENT_FIELDS = {
    "msgid": "m",
    "provider": "c",
    "meta": {"z": 1},
    "rtime": "2026-02-03T13:32:07+00:00",
}
EVENT = {"smsqueue": 1, "id": "1m842pw3", "hops": ["9a"]}
INCOMING = EVENT | {"message": EVENT_FIELDS | {"src": "1555", "dst": "777", "body": "hi"}}
FLAGS = {"accepted": True, "delivered": True, "expired": False, "error": False}
STATUS = FLAGS | {"status_code": 1, "status": "x"}
REPORT = EVENT | {
    "status": EVENT_FIELDS
    | STATUS
    | {"class": "MessageDelivered", "reference": "1m842psghd5k1m5599r6.1"}
}
TIME = {"?": ["datetime", "2026-02-03T13:32:07.912064"]}
OPTIONS = {"?": ["OutgoingMessageOptions", {"status_report": True, "expires": 5}]}


def smsframework_document(view: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {view: {"?": [kind, fields]}}


SMSFRAMEWORK_MESSAGE = smsframework_document(
    *("message", "OutgoingMessage"),
    **{"src": "abc", "dst": "1234", "body": "hi", "provider": "fwd", "provider_options": OPTIONS},
    **{"provider_params": {"x": 1}, "routing_values": ["a", 2]},
)
SMSFRAMEWORK_INCOMING = smsframework_document(
    *("message", "IncomingMessage"),
    **{"msgid": "m1", "src": "555", "body": "hello", "dst": "777", "rtime": TIME},
    **{"meta": {"z": 1, "at": TIME}, "provider": "main"},
)
SMSFRAMEWORK_REPORT = smsframework_document(
    *("status", "MessageError"),
    **STATUS | {"msgid": "c1", "rtime": TIME, "meta": {}, "provider": "main"},
)


def paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield from paths(document[key], (*path, key))


def write_changed(document: Any, path: tuple[Any, ...], value: str) -> bytes:
    """The document as JSON, with another value at one path."""
    if not path:
        return value.encode()
    changed = copy.deepcopy(document)
    if "id" in changed:
        changed["id"] = secrets.token_hex(10)  # else it would be a repetition
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "@here@"
    return json.dumps(changed).replace('"@here@"', value).encode()


@pytest.mark.parametrize(
    ("purpose", "document"),
    [
        ("server/im", MESSAGE),
        ("server/im", SMSFRAMEWORK_MESSAGE),
        ("client/im", INCOMING),
        ("client/im", SMSFRAMEWORK_INCOMING),
        ("client/status", REPORT),
        ("client/status", SMSFRAMEWORK_REPORT),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} fields",
)
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "queued"])
def test_a_receiver_accepts_or_refuses_any_value_in_any_field(
    make_side: Any, purpose: str, document: dict[str, Any], eager: bool
) -> None:
    client, server = make_side(eager=eager), make_side(eager=eager)
    connect(client, server)
    role, view = purpose.split("/")
    side, name = (server, "forward") if role == "server" else (client, "remote")
    url = f"http://127.0.0.1:{side.port}/hook/{name}/{view}"
    failures, accepted = [], 0
    with requests.Session() as session:
        for path in paths(document):
            for value in VALUES:
                body = write_changed(document, path, value)
                headers = Signer(SECRET).headers(purpose, body)
                status = session.post(url, data=body, headers=headers, timeout=60).status_code
                accepted += status == 200
                unknown = (status, path) == (502, ("repeated",))  # to an eager server
                if status not in (200, 400, 501) and not unknown:
                    failures.append((path, value[:60], status))
    assert failures == []
    assert accepted
    if side.bench:  # accepted messages can be delivered
        for id in side.bench.redis.zrange(side.bench.key("state", "queued"), 0, -1):
            side.bench.deliver(id)
        side.bench.run_hooks()
        counts = side.gateway.ledger.counts()
        assert counts["retrying"] + counts["queued"] + counts["sending"] == 0
        assert counts["waiting"] + counts["running"] == 0
