"""A provider's reports are about messages that it was given."""

from __future__ import annotations

import base64
import json
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask

from smsqueue.providers.base.installed_providers import load
from tests.ledger.bench import Bench


def test_a_captured_report_of_telnyx_speaks_of_no_other_message(bench: Bench) -> None:
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    bench.add("a")
    bench.gateway.add_provider("telnyx", load("telnyx"), api_key="k", public_key=public)
    app = bench.gateway.receiver_blueprints_register(Flask("x"), "sms")
    victim = bench.send(status_report=True)
    bench.deliver(victim)
    body = json.dumps(
        {
            "data": {
                "event_type": "message.finalized",
                "payload": {"id": "t1", "to": [{"status": "delivered"}]},
            }
        }
    ).encode()
    now = str(int(time.time()))
    headers = {
        "telnyx-timestamp": now,
        "telnyx-signature-ed25519": base64.b64encode(key.sign(now.encode() + b"|" + body)).decode(),
    }
    answer = app.test_client().post(
        f"/sms/telnyx/status?ref={victim}.1", data=body, headers=headers
    )
    assert answer.status_code == 204
    assert bench.state(victim) == "sent"  # it went through another provider
