"""kombu's channel, made to outlive its connection, and a Redis without memory."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

from kombu.transport import redis as broker
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from smsqueue.ledger.connection import execute_above_maxmemory

__all__ = ["survive_lost_connections"]


class _Pipeline(broker.PrefixedRedisPipeline):
    """Goes on above maxmemory, where Redis refuses every command of a transaction."""

    def execute(self, raise_on_error: bool = True) -> Any:
        commands = [arguments for arguments, _ in self.command_stack]
        try:
            return super().execute(raise_on_error)
        except OutOfMemoryError:
            if any(name == "EVALSHA" for name, *_ in commands):  # no script runs in a script
                raise
            client: Any = Redis(connection_pool=self.connection_pool)
            return execute_above_maxmemory(client, self.global_keyprefix, commands)


class _Client(broker.PrefixedStrictRedis):
    """Goes on above maxmemory: what was accepted is finished then, and only that frees memory.

    kombu writes down which triggers its worker has, and a worker that cannot do so ends.
    """

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*arguments, **options)
        except OutOfMemoryError:
            client: Any = Redis(connection_pool=self.connection_pool)
            command = self._prefix_args(arguments)
            return execute_above_maxmemory(client, self.global_keyprefix, [command])[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        return _Pipeline(
            self.connection_pool,
            self.response_callbacks,
            transaction,
            shard_hint,
            global_keyprefix=self.global_keyprefix,
        )


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

    def _get_client(self) -> Any:
        super()._get_client()  # type: ignore[misc]  # checks redis-py's version
        return partial(_Client, global_keyprefix=self.global_keyprefix)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: Any, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
        except ResponseError as error:
            # A script of kombu's; in Redis 6 its error has no class of its own.
            if "OOM" not in str(error):
                raise
            member = self.sep.join([routing_key or "", pattern or "", queue or ""])
            with self.conn_or_acquire() as client:
                client.sadd(self.keyprefix_queue % (exchange,), member)

    def _refresh_bindings(self, queues: Any) -> None:
        # Those of the queues for remote control, which last for another hour or more.
        with suppress(OutOfMemoryError):
            super()._refresh_bindings(queues)  # type: ignore[misc]


def survive_lost_connections() -> None:
    """Use this channel for all connections to Redis of this worker process."""
    broker.Transport.Channel = _Channel
