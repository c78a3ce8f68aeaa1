"""What tests do with a side: report events to it, post requests, look up states."""

from __future__ import annotations

from typing import Any

import requests

from smsqueue import IncomingMessage
from smsqueue.providers.forward.auth import Signer
from tests.forward.side import SECRET, Side, carrier_of


def receive_message(side: Side, body: str = "YES", msgid: Any = "m1") -> IncomingMessage:
    message = IncomingMessage("+1 555 0001", body, msgid, dst="777", meta={"cell": 4})
    carrier_of(side)._receive_message(message)
    return message


def state(side: Side, id: str) -> str:
    return str(side.gateway.lookup(id).state)


def report(server: Side, kind: Any, msgid: object, reference: str) -> None:
    status = kind(msgid)
    status.reference = reference
    carrier_of(server)._receive_status(status)


def post(side: Side, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    url = f"http://127.0.0.1:{side.port}/hook/{path}"
    return requests.post(url, data=body, headers=headers, timeout=60).status_code


def post_signed(
    side: Side, body: bytes, secret: str = SECRET, purpose: str = "server/im"
) -> tuple[int, str]:
    url = f"http://127.0.0.1:{side.port}/hook/forward/im"
    headers = Signer(secret).headers(purpose, body)
    answer = requests.post(url, data=body, headers=headers, timeout=60)
    return answer.status_code, answer.text
