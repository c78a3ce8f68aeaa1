"""An application on smsframework as it was published, in a process of its own.

Arguments: ``server`` or ``client``, and the other side's address. It writes what happens as JSON
lines; each line on its standard input is a message to be sent.
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

# What its forward providers call, and Python 3.11 has no more.
inspect.getargspec = inspect.getfullargspec  # type: ignore[attr-defined]


def tell(what: str, **words: Any) -> None:
    print(json.dumps({"what": what} | words, default=str), flush=True)


def heard(what: str, thing: Any) -> None:
    names = ("msgid", "src", "body", "rtime", "meta", "provider", "status", "delivered")
    known = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    tell(what, kind=type(thing).__name__, **known)


def owner(message: Any) -> None:
    """The subscriber of a number."""
    if message.body == "no money":
        raise exc.CreditError("pay first")
    message.reply("got " + message.body)


def main(role: str, url: str) -> None:
    gateway = Gateway()
    gateway.onReceive += lambda message: heard("received", message)
    gateway.onStatus += lambda status: heard("status", status)
    if role == "server":
        gateway.add_provider("lo", LoopbackProvider).subscribe("15550001", owner)
        gateway.add_provider("forward", ForwardServerProvider, clients=[url])
    else:
        gateway.add_provider("remote", ForwardClientProvider, server_url=url)
    app = gateway.receiver_blueprints_register(Flask("app"), "/hook")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    tell("ready", port=server.server_port)
    for line in sys.stdin:
        dst, body = json.loads(line)
        try:
            sent = gateway.send(OutgoingMessage(dst, body).options(status_report=True))
            tell("sent", msgid=sent.msgid, provider=sent.provider)
        except Exception as error:
            tell("failed", kind=type(error).__name__, text=str(error))


main(*sys.argv[1:])
