"""Publishes triggers with Celery: task names, configuration, queue."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import redis
from redis.exceptions import OutOfMemoryError, RedisError

from smsqueue.broker.message_template import MessageTemplate, record
from smsqueue.ledger.client import (
    connect,
    execute_above_maxmemory,
    sentinel_options,
    tls_options,
)
from smsqueue.logs import get_logger
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["DELIVER", "DELIVER_MANY", "HOOK", "HOOK_MANY", "Queue", "celery_config"]

log = get_logger("smsqueue.queue")

#: Task names. Workers of other versions must know them, so they never change.
DELIVER = "smsqueue.deliver"
HOOK = "smsqueue.hook"
#: Tasks with a list of ids, by which upkeep publishes a backlog.
DELIVER_MANY = "smsqueue.deliver_many"
HOOK_MANY = "smsqueue.hook_many"

#: Largest number of triggers in one round trip.
_BATCH = 250

_TRANSPORT = {
    "visibility_timeout": 300,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "unacked_restore_limit": 1000,
    "health_check_interval": 10,
    "socket_keepalive": True,
    "priority_steps": [0],
}
_PRODUCER = _TRANSPORT | {
    "socket_timeout": 1.0,
    "socket_connect_timeout": 0.5,
    "max_retries": 0,
    "max_connections": 20,
}
_WORKER = _TRANSPORT | {
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "max_connections": 50,
}
#: Seconds that each sentinel may take. kombu asks them one after the other.
_PRODUCER_SENTINEL, _WORKER_SENTINEL = 0.2, 1.0


def broker_url(settings: Settings) -> str:
    """The Redis URL in kombu's form, whose query parameters differ from redis-py's.

    kombu takes user, password and database of the primary from the first of its sentinels' URLs.
    """
    parts, sentinels = urlsplit(settings.data_url), settings.sentinels
    # If a parameter is repeated, redis-py uses the first.
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.scheme == "unix":
        login, at, _ = parts.netloc.rpartition("@")
        if not at and "password" in query:
            login, at = f":{quote(query['password'], safe='')}", "@"
        return f"redis+socket://{login}{at}{parts.path}?virtual_host={query.get('db', '0')}"
    if sentinels is not None:
        database = query.get("db") or parts.path.strip("/") or "0"
        return ";".join(
            f"sentinel://{parts.netloc}{f'[{host}]' if ':' in host else host}:{port}/{database}"
            for host, port in sentinels.addresses
        )
    return f"{parts.scheme}://{parts.netloc}/{query.get('db') or parts.path.strip('/') or '0'}"


def broker_ssl(settings: Settings) -> dict[str, Any] | None:
    """TLS options of the broker's connections, the same as the ledger's; None without TLS."""
    options = tls_options(settings)
    if not options:
        return None  # with any value, also an empty one, kombu uses TLS
    mode = ssl.VerifyMode[f"CERT_{options['ssl_cert_reqs'].upper()}"]
    return options | {"ssl_cert_reqs": mode}


def _sentinel_transport(settings: Settings, timeout: float) -> dict[str, Any]:
    """kombu's options for sentinels."""
    if settings.sentinels is None:
        return {}
    return {
        "master_name": settings.sentinels.master,
        "sentinel_kwargs": sentinel_options(settings, timeout=timeout),
    }


def celery_config(settings: Settings, *, worker: bool) -> dict[str, Any]:
    """The Celery configuration of producers and workers."""
    sentinel_seconds = _WORKER_SENTINEL if worker else _PRODUCER_SENTINEL
    return {
        "broker_url": broker_url(settings),
        "broker_use_ssl": broker_ssl(settings),
        "broker_transport_options": (_WORKER if worker else _PRODUCER)
        | _sentinel_transport(settings, sentinel_seconds)
        | {"global_keyprefix": settings.broker_prefix},
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A worker survives while Redis is full or read-only.
        "broker_channel_error_retry": True,
        "broker_pool_limit": 32,
        "broker_pool_acquire_timeout": 1.0,
        "task_default_queue": settings.send_queue,
        "task_routes": {
            DELIVER: {"queue": settings.send_queue},
            DELIVER_MANY: {"queue": settings.send_queue},
            HOOK: {"queue": settings.hook_queue},
            HOOK_MANY: {"queue": settings.hook_queue},
        },
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_ignore_result": True,
        "task_publish_retry": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        # One process with threads: after kill -9 it is known which messages were in flight.
        "worker_pool": "threads",
        "worker_concurrency": settings.concurrency,
    }


def _has_listeners(task: str) -> bool:
    """Whether a handler is connected to the publishing signals of a task."""
    from celery import signals

    names = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
    return any(signal.has_listeners(task) for signal in names)


class Queue:
    """Publishes triggers, which carry ids only.

    Upkeep replaces lost triggers, so errors are logged and not raised.

    While handlers are connected to Celery's publishing signals, as by tracing, each trigger is
    published through Celery and has headers of its own. Otherwise it is filled into a template,
    which takes half the time.

    Args:
        app: The Celery application to publish with; by default the queue creates one.
    """

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self.settings = settings
        self._app = app
        self._templates: dict[tuple[str, int], MessageTemplate | None] = {}

    @cached_property
    def app(self) -> Celery:
        """The application, created at first use because importing Celery is slow."""
        if self._app is not None:
            return self._app
        from celery import Celery

        # The current application of the process belongs to the user.
        app = Celery("smsqueue", set_as_current=False)
        app.config_from_object(celery_config(self.settings, worker=False))
        return app

    def deliver(self, triggers: Iterable[tuple[str, int]]) -> None:
        """Publish triggers of messages, as (id, attempts so far)."""
        self._publish(DELIVER, self.settings.send_queue, triggers)

    def hook(self, events: Iterable[str], *, bulk: bool = False) -> None:
        """Publish triggers of events. An empty id is skipped.

        Args:
            bulk: The events belong to messages of a campaign.
        """
        self._publish(HOOK, self.settings.hook_queue, [(event, 0) for event in events if event])

    def deliver_many(self, ids: Sequence[str], *, bulk: bool, routed: bool) -> None:
        """Publish one trigger for several messages.

        Args:
            bulk: The messages belong to a campaign.
            routed: Their senders named providers or routing values.
        """
        arguments = {"bulk": bulk, "routed": routed}
        self._publish_many(DELIVER_MANY, self.settings.send_queue, ids, "messages", arguments)

    def hook_many(self, events: Sequence[str], *, bulk: bool) -> None:
        """Publish one trigger for several events."""
        hooks = self.settings.hook_queue
        self._publish_many(HOOK_MANY, hooks, events, "events", {"bulk": bulk})

    def _publish_many(
        self, task: str, queue: str, ids: Sequence[str], what: str, arguments: dict[str, bool]
    ) -> None:
        description = f"({len(ids)} {what})"
        try:
            with self.app.producer_or_acquire() as producer:
                self.app.send_task(
                    task,
                    args=(list(ids),),
                    kwargs=arguments,
                    argsrepr=description,
                    queue=queue,
                    retry=False,
                    add_to_parent=False,
                    producer=producer,
                )
        except Exception as error:  # the ledger has the ids
            self._log_unpublished([(id, 0) for id in ids], error, "upkeep will do it")

    def _publish(self, task: str, queue: str, triggers: Iterable[tuple[str, int]]) -> None:
        batch = list(triggers)
        if not batch:
            return
        try:
            template = self._template(task, queue)
            if template is None:
                self._send_tasks(task, queue, batch)
            elif not _has_listeners(task):
                self._push(template, batch)
            else:
                self._send_to_listeners(task, queue, batch, template)
        except Exception as error:  # the ledger has the ids
            self._log_unpublished(batch, error, "upkeep will do it")

    def _send_to_listeners(
        self, task: str, queue: str, batch: list[tuple[str, int]], template: MessageTemplate
    ) -> None:
        try:
            self._send_tasks(task, queue, batch)
        except Exception as error:
            from kombu.exceptions import OperationalError

            if isinstance(error, OperationalError | OSError | RedisError):
                raise
            # A signal handler must not stop a trigger: the next publish would fail, too.
            self._log_unpublished(batch, error, "publishing without the handlers of signals")
            self._push(template, batch)

    def _log_unpublished(self, batch: list[tuple[str, int]], error: Exception, remedy: str) -> None:
        name, first = type(error).__name__, batch[0][0]
        others = f", nor were some of {len(batch) - 1} others" if len(batch) > 1 else ""
        log.warning(
            "%s was not published%s (%s): %s",
            *(first, others, name, remedy),
            extra={"id": first, "error": name},
        )

    def _template(self, task: str, queue: str) -> MessageTemplate | None:
        """The template of a task; None if Celery itself has to publish."""
        key = (task, os.getpid())  # a message contains the process id of its sender
        if key not in self._templates:
            from kombu.exceptions import KombuError

            options = self.app.conf.broker_transport_options or {}
            ours = options.get("global_keyprefix") == self.settings.broker_prefix
            try:
                # The user's application may have another broker.
                same = (broker_url(self.settings), self.settings.redis_url)
                known = ours and self.app.conf.broker_url in same
                self._templates[key] = record(self.app, task, queue) if known else None
            except (KombuError, OSError, RedisError):
                raise
            except Exception as error:
                why = str(error) if isinstance(error, LookupError) else type(error).__name__
                text, extra = "%s: publishing through it, at half the speed", {"task": task}
                log.info(text, why, extra=extra)
                self._templates[key] = None
        return self._templates[key]

    def _push(self, template: MessageTemplate, batch: list[tuple[str, int]]) -> None:
        for start in range(0, len(batch), _BATCH):
            pipe: Any = self._redis.pipeline(transaction=False)
            commands = list(template.commands(batch[start : start + _BATCH]))
            for command in commands:
                pipe.execute_command(*command)
            try:
                pipe.execute()
            except OutOfMemoryError:  # events were published, triggers were not
                pushes = [command for command in commands if command[0] != "PUBLISH"]
                execute_above_maxmemory(self._redis, self.settings.broker_prefix, pushes)

    def _send_tasks(self, task: str, queue: str, batch: list[tuple[str, int]]) -> None:
        with self.app.producer_or_acquire() as producer, producer.batch(_BATCH):
            for id, retries in batch:
                self.app.send_task(
                    task,
                    args=(id,),
                    task_id=id,
                    root_id=id,
                    queue=queue,
                    retries=retries,
                    retry=False,
                    add_to_parent=False,
                    producer=producer,
                )

    @cached_property
    def _redis(self) -> redis.Redis:
        timeout = (self.app.conf.broker_transport_options or {}).get("socket_timeout", 1.0)
        return connect(self.settings, timeout=timeout)

    def close(self) -> None:
        """Close the connections, and the application if the queue created it."""
        self._templates.clear()
        if "_redis" in self.__dict__:
            self.__dict__.pop("_redis").close()
        app = self.__dict__.pop("app", None)
        if app is not None and app is not self._app:
            app.close()
