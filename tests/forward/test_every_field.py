"""Whatever stands in whichever field: a receiver takes it or refuses it, and never fails."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from smsqueue.providers.forward.auth import Signer
from tests.forward.side import SECRET, bind

#: As JSON texts: Python's own JSON does not write all of them.
EVIL = [
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
SENT = {
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
HEARD = {"msgid": "m", "provider": "c", "meta": {"z": 1}, "rtime": "2026-02-03T13:32:07+00:00"}
CAME = {"smsqueue": 1, "id": "1m842pw3", "hops": ["9a"]}
INCOMING = CAME | {"message": HEARD | {"src": "1555", "dst": "777", "body": "hi"}}
FLAGS = {"accepted": True, "delivered": True, "expired": False, "error": False}
STATUS = FLAGS | {"status_code": 1, "status": "x"}
REPORTED = CAME | {
    "status": HEARD | STATUS | {"class": "MessageDelivered", "reference": "1m842psghd5k1m5599r6.1"}
}
TIME = {"?": ["datetime", "2026-02-03T13:32:07.912064"]}
OPTIONS = {"?": ["OutgoingMessageOptions", {"status_report": True, "expires": 5}]}


def original(view: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {view: {"?": [kind, fields]}}


ORIGINAL_SENT = original(
    *("message", "OutgoingMessage"),
    **{"src": "abc", "dst": "1234", "body": "hi", "provider": "fwd", "provider_options": OPTIONS},
    **{"provider_params": {"x": 1}, "routing_values": ["a", 2]},
)
ORIGINAL_INCOMING = original(
    *("message", "IncomingMessage"),
    **{"msgid": "m1", "src": "555", "body": "hello", "dst": "777", "rtime": TIME},
    **{"meta": {"z": 1, "at": TIME}, "provider": "main"},
)
ORIGINAL_REPORTED = original(
    *("status", "MessageError"),
    **STATUS | {"msgid": "c1", "rtime": TIME, "meta": {}, "provider": "main"},
)


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield from places(document[key], (*at, key))


def written(document: Any, place: tuple[Any, ...], evil: str) -> bytes:
    """The document as JSON, with something else at one place."""
    if not place:
        return evil.encode()
    changed = copy.deepcopy(document)
    if "id" in changed:
        changed["id"] = secrets.token_hex(10)  # else it would be the one before, repeated
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "@here@"
    return json.dumps(changed).replace('"@here@"', evil).encode()


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("server/im", SENT),
        ("server/im", ORIGINAL_SENT),
        ("client/im", INCOMING),
        ("client/im", ORIGINAL_INCOMING),
        ("client/status", REPORTED),
        ("client/status", ORIGINAL_REPORTED),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} fields",
)
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "queued"])
def test_it_takes_or_refuses_what_it_is_told(
    make_side: Any, path: str, document: dict[str, Any], eager: bool
) -> None:
    client, server = make_side(eager=eager), make_side(eager=eager)
    bind(client, server)
    who, view = path.split("/")
    side, name = (server, "forward") if who == "server" else (client, "remote")
    url = f"http://127.0.0.1:{side.port}/hook/{name}/{view}"
    failed, taken = [], 0
    with requests.Session() as session:
        for place in places(document):
            for evil in EVIL:
                body = written(document, place, evil)
                headers = Signer(SECRET).headers(path, body)
                status = session.post(url, data=body, headers=headers, timeout=60).status_code
                taken += status == 200
                unknown = (status, place) == (502, ("repeated",))  # to an eager server
                if status not in (200, 400, 501) and not unknown:
                    failed.append((place, evil[:60], status))
    assert failed == []
    assert taken
    if side.bench:  # and what was taken can be worked on
        for id in side.bench.redis.zrange(side.bench.key("state", "queued"), 0, -1):
            side.bench.deliver(id)
        side.bench.run_hooks()
        counts = side.gateway.ledger.counts()
        assert counts["retrying"] + counts["queued"] + counts["sending"] == 0
        assert counts["waiting"] + counts["running"] == 0
