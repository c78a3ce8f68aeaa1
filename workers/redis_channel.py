"""A kombu channel that survives a lost connection, and a Redis above maxmemory."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

from kombu.transport import redis as broker
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from smsqueue.ledger.client import execute_above_maxmemory

__all__ = ["survive_lost_connections"]


class _Pipeline(broker.PrefixedRedisPipeline):
    """Works above maxmemory, where Redis refuses every command of a transaction."""

    def execute(self, raise_on_error: bool = True) -> Any:
        commands = [arguments for arguments, _ in self.command_stack]
        try:
            return super().execute(raise_on_error)
        except OutOfMemoryError:
            if any(name == "EVALSHA" for name, *_ in commands):  # a script cannot run a script
                raise
            client: Any = Redis(connection_pool=self.connection_pool)
            return execute_above_maxmemory(client, self.global_keyprefix, commands)


class _Client(broker.PrefixedStrictRedis):
    """Works above maxmemory, because only finishing accepted messages frees memory.

    kombu records the triggers that its worker holds, and a worker that cannot do so ends.
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
    """A channel that neither restores nor acknowledges messages once its connection is lost.

    kombu would try to, and the error would end the worker. Upkeep publishes again what is due.
    """

    _client_of_pool: Any = None

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

    def _create_client(self, asynchronous: bool = False) -> Any:
        # kombu makes a client for each command, which takes longer than the command.
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[misc]
        if self._client_of_pool is None or self._client_of_pool.connection_pool is not self.pool:
            self._client_of_pool = super()._create_client()  # type: ignore[misc]
        return self._client_of_pool

    def _get_client(self) -> Any:
        super()._get_client()  # type: ignore[misc]  # checks redis-py's version
        return partial(_Client, global_keyprefix=self.global_keyprefix)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: Any, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
        except ResponseError as error:
            # Raised by a script of kombu. In Redis 6 this error has no class of its own.
            if "OOM" not in str(error):
                raise
            member = self.sep.join([routing_key or "", pattern or "", queue or ""])
            with self.conn_or_acquire() as client:
                client.sadd(self.keyprefix_queue % (exchange,), member)

    def _refresh_bindings(self, queues: Any) -> None:
        # The bindings of the remote control queues, which are valid for another hour or more.
        with suppress(OutOfMemoryError):
            super()._refresh_bindings(queues)  # type: ignore[misc]


class _SentinelChannel(_Channel, broker.SentinelChannel):
    """The same, to the primary that sentinels name."""


def survive_lost_connections() -> None:
    """Make every kombu connection of this process use these channels."""
    broker.Transport.Channel = _Channel
    broker.SentinelTransport.Channel = _SentinelChannel
