"""Logs what Redis is, and what breaks a promise, when a process starts."""

from __future__ import annotations

from smsqueue.ledger import Ledger
from smsqueue.logs import SafeLogger

__all__ = ["log_server"]


def log_server(log: SafeLogger, ledger: Ledger) -> None:
    """Log one line about Redis, and a warning for each risk.

    Of many processes that start, the first one logs the warnings; for an hour, the others only
    count them.

    Raises:
        QueueUnavailable: Redis does not answer.
    """
    address, server = ledger.settings.safe_redis_url, ledger.server(configuration=True)
    risks = [risk for risk in server.risks(ledger.settings) if risk.level != "note"]
    hint = ""
    if risks:
        hint = f"; {len(risks)} warning{'' if len(risks) == 1 else 's'}, see smsqueue check"
    log.info("%s: %s%s", address, server, hint)
    for risk in risks:
        if ledger.is_news(str(risk)):
            log.warning("%s", risk)
