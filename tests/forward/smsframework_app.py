"""An application on the published smsframework, in a process of its own.

Arguments: ``server`` or ``client``, and the URL of the other side. It writes what happens as JSON
lines. Each line on its standard input is a message to send.
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
from typing import Any

from flask import Flask
from smsframework import Gateway, OutgoingMessage, exc
from smsframework.providers import ForwardClientProvider, ForwardServerProvider, LoopbackProvider
from werkzeug.serving import make_server

# Its forward providers call this; Python 3.11 removed it.
inspect.getargspec = inspect.getfullargspec  # type: ignore[attr-defined]


def write(what: str, **fields: Any) -> None:
    print(json.dumps({"what": what} | fields, default=str), flush=True)


def write_event(what: str, event: Any) -> None:
    names = ("msgid", "src", "body", "rtime", "meta", "provider", "status", "delivered")
    fields = {name: getattr(event, name) for name in names if hasattr(event, name)}
    write(what, kind=type(event).__name__, **fields)


def subscriber(message: Any) -> None:
    """Replies to messages, or refuses them."""
    if message.body == "no money":
        raise exc.CreditError("pay first")
    message.reply("got " + message.body)


def main(role: str, url: str) -> None:
    gateway = Gateway()
    gateway.onReceive += lambda message: write_event("received", message)
    gateway.onStatus += lambda status: write_event("status", status)
    if role == "server":
        gateway.add_provider("lo", LoopbackProvider).subscribe("15550001", subscriber)
        gateway.add_provider("forward", ForwardServerProvider, clients=[url])
    else:
        gateway.add_provider("remote", ForwardClientProvider, server_url=url)
    app = gateway.receiver_blueprints_register(Flask("app"), "/hook")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    write("ready", port=server.server_port)
    for line in sys.stdin:
        dst, body = json.loads(line)
        try:
            sent = gateway.send(OutgoingMessage(dst, body).options(status_report=True))
            write("sent", msgid=sent.msgid, provider=sent.provider)
        except Exception as error:
            write("failed", kind=type(error).__name__, text=str(error))


main(*sys.argv[1:])
