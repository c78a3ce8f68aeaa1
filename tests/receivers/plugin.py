"""A provider like published plugins: one blueprint for all instances."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, abort, g, request

from smsqueue.message.messages import IncomingMessage
from smsqueue.message.statuses import MessageDelivered
from smsqueue.providers import IProvider

# What no log may hold.
PREFIX, NUMBER, TEXT = "p3cret-prefix", "15551234567", "hunter2"
QUERY = f"?id=7&from=%2B{NUMBER}&text={TEXT}"
HELLO = {"from": f"+{NUMBER}", "text": TEXT}

#: Provider and text of what reached the gateway.
Heard = list[tuple[str | None, str]]

bp = Blueprint("plugin", __name__)


class PluginProvider(IProvider):
    def __init__(self, gateway: Any, name: str, key: str = "right") -> None:
        self.key = key
        super().__init__(gateway, name)

    def make_receiver_blueprint(self) -> Blueprint:
        return bp


@bp.post("/im")
def im() -> str:
    if request.headers.get("X-Key", "right") != g.provider.key:
        raise PermissionError("wrong key for +15551234567")
    told = json.loads(request.get_data())
    g.provider._receive_message(IncomingMessage(told["from"], told["text"]))
    return "taken"


@bp.route("/status", methods=["GET", "POST"])
def status() -> str:
    g.provider._receive_status(MessageDelivered(request.values["id"]))
    return "taken"


@bp.post("/blind")
def blind() -> str:
    return "did not look"


@bp.post("/crash")
def crash() -> str:
    raise RuntimeError(f"cannot handle {request.get_data(as_text=True)}")


@bp.post("/nothing")
def nothing() -> Any:
    return None


@bp.post("/full")
def full() -> Any:
    abort(429)
