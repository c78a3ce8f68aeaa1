"""A Celery application of one's own that delivers: ours is not even importable here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from smsqueue import Gateway, OutgoingMessage, State

SEND = """
from smsqueue import OutgoingMessage
from shop.sms import gateway
message = OutgoingMessage("+1 555 0001", "hello").options(context={"order": 7})
print(gateway.send(message).id)
"""


def test_an_application_that_has_its_own_workers_delivers(
    gateway: Gateway, recipe: Callable[..., Any], until: Callable[..., None]
) -> None:
    celery = recipe("A Celery application of your own")
    (celery.folder / "workers.py").write_text("raise RuntimeError('these are mine')")
    celery.environment["SHOP_BROKER"] = gateway.settings.redis_url.removesuffix("/0") + "/1"
    sent = celery.run("-c", SEND).strip()
    later = OutgoingMessage("15550002", "later").options(context={"order": 8})
    later.options(send_at=datetime.now(UTC) + timedelta(seconds=1))
    gateway.send(later)
    queues = f"celery,{gateway.settings.send_queue},{gateway.settings.hook_queue}"
    options = ("-l", "INFO", "--pool", "threads", "--concurrency", "10", "-Q", queues)
    worker = celery.start("worker", " ready.", "celery", "-A", "shop", "worker", *options)
    until(lambda: gateway.lookup(sent).state == State.SENT)
    celery.start("beat", "beat: Starting", "celery", "-A", "shop", "beat", "-l", "INFO")
    until(lambda: gateway.lookup(later.id or "").state == State.SENT)
    for order in (7, 8):
        until(lambda order=order: f"invoice for order {order}" in worker.tail(1000))
