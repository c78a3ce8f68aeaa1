"""kombu's channel, made to outlive its connection."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as broker

__all__ = ["survive_lost_connections"]


class _Channel(broker.Channel):
    """A channel whose connection was lost has nothing to give back and nothing to acknowledge.

    kombu tries to, and fails in a way that ends the worker. Upkeep publishes again what is due.
    """

    def _gone(self) -> bool:
        return self.connection is None or self.connection.client is None

    def close(self) -> None:
        if self._gone():
            self.do_restore = False
        super().close()

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        if not self._gone():
            super().basic_ack(delivery_tag, multiple=multiple)

    def basic_reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        if not self._gone():
            super().basic_reject(delivery_tag, requeue=requeue)


def survive_lost_connections() -> None:
    """Use this channel for all connections to Redis of this worker process."""
    broker.Transport.Channel = _Channel
