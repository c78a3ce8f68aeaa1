"""For the tests of an application: captures what it sends and simulates what comes back.

    with capture(gateway) as outbox:
        client.post("/login", data={"number": "+1 555 123"})
        assert "code" in outbox.last.body
        outbox.report(outbox.last, "delivered")
        outbox.reply(outbox.last, "STOP")

Needs no Redis, Celery, Flask or pytest, and never calls a provider.
"""

from smsqueue.testing.capture import Outbox, capture

__all__ = ["Outbox", "capture"]
