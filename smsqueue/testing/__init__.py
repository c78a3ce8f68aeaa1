"""For the tests of an application: what it sends is caught, what comes back is played.

    with capture(gateway) as outbox:
        client.post("/login", data={"number": "+1 555 123"})
        assert "code" in outbox.last.body
        outbox.report(outbox.last, "delivered")
        outbox.reply(outbox.last, "STOP")

Needs no Redis, Celery, Flask or pytest, and never calls a provider.
"""

from smsqueue.testing.block import capture
from smsqueue.testing.outbox import Outbox

__all__ = ["Outbox", "capture"]
