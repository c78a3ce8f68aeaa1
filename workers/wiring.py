"""Creates the Celery application of a worker, and the boot steps that run the engine in it."""

from __future__ import annotations

import gc
import os
import sys
import threading
from argparse import ArgumentParser
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

from celery import Celery, _state, bootsteps
from celery.concurrency.thread import TaskPool
from kombu import Exchange
from kombu import Queue as Broker

from smsqueue import exc
from smsqueue.broker.queue import celery_config
from smsqueue.concurrency.call_threads import CallThreads
from smsqueue.configuration.loader import LoaderError, load_gateway
from smsqueue.delivery import Slots
from smsqueue.delivery.outcomes import remedies
from smsqueue.gateway import Gateway
from smsqueue.ledger import RedisMisconfigured
from smsqueue.logs import end_process, get_logger
from smsqueue.operation.heartbeat import Heartbeat
from smsqueue.operation.redis_at_start import log_server
from smsqueue.operation.upkeep import Upkeep
from smsqueue.settings import Settings, SettingsError
from workers.engine import Engine
from workers.logs import set_up_logs
from workers.redis_channel import survive_lost_connections
from workers.shutdown import Shutdown
from workers.tasks import register

__all__ = ["create_worker"]

log = get_logger("smsqueue.worker")

#: Allocations after which Python collects its youngest generation.
_GC_THRESHOLD = 10_000
#: Seconds after which a thread hands the interpreter lock to another. The consumer of the queues
#: releases it at each Redis command. During a campaign it would wait for the default 5 ms each.
_SWITCH_INTERVAL = 0.0005


def create_worker(settings: Settings | None = None) -> Celery:
    """Create the Celery application of workers.

    It never becomes the current application of the process, so that a task that a handler delays
    goes to the broker of the handler's own application. An invalid setting ends the process with
    one line.
    """
    try:
        settings = settings or Settings()
    except SettingsError as error:
        end_process(str(error), as_json=os.environ.get("SMSQUEUE_LOG") == "json")
    survive_lost_connections()
    app: Any = Celery("smsqueue", set_as_current=False)
    set_up_logs(app, as_json=settings.log == "json")
    app.config_from_object(celery_config(settings, worker=True))
    names = (settings.send_queue, settings.hook_queue)
    app.conf.task_queues = [Broker(name, Exchange(name), name) for name in names]
    worker = _Worker(settings)
    register(app, lambda: worker.engine)
    # Celery creates the steps, so they get the worker as an attribute of their class.
    app.steps["worker"].add(type("EngineStep", (_EngineStep,), {"worker": worker}))
    app.steps["consumer"].add(type("ConsumerStep", (_ConsumerStep,), {"worker": worker}))
    created: Celery = app
    return created


@dataclass
class _Worker:
    """What the tasks and the boot steps of one worker process share."""

    settings: Settings
    #: Set when the worker boots, before a task runs or the consumer starts.
    engine: Engine = field(init=False)
    heartbeat: Heartbeat = field(init=False)


class _EngineStep(bootsteps.StartStopStep):
    """Loads the gateway when a worker boots, and runs the engine and upkeep."""

    requires = ("celery.worker.components:Pool",)
    worker: ClassVar[_Worker]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        app: Any = parent.app
        settings = self.worker.settings
        _refuse_other_pools(parent.pool_cls, as_json=settings.log == "json")
        gateway, self.away = _load(settings)
        consumes = {queue.name for queue in app.amqp.queues.consume_from.values()}
        sends, hooks = settings.send_queue in consumes, settings.hook_queue in consumes
        if not sends and not hooks:
            end_process(
                f"this worker consumes {', '.join(sorted(consumes))}, but the queues of the "
                f"namespace {settings.namespace!r} are {settings.send_queue} and "
                f"{settings.hook_queue}: correct -Q or SMSQUEUE_NAMESPACE",
                as_json=settings.log == "json",
            )
        deadlines = [provider.deadline for provider in gateway.providers.values()]
        self.shutdown = shutdown = Shutdown(
            # The providers of a route are called one after the other.
            max(sum(deadlines) if sends else 0.0, settings.handler_timeout if hooks else 0.0),
            hung=lambda: engine.slots.hung().total(),
        )
        max_hung = settings.max_hung_calls
        concurrency = parent.concurrency or settings.concurrency
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self.engine = engine = self.worker.engine = Engine(
            app,
            gateway,
            settings,
            parent.hostname,
            concurrency,
            # Separate threads, so that tasks delayed by handlers go to their own broker.
            handlers=CallThreads(
                prepare=_users_app(app).set_current,
                most_hung=max_hung,
                too_many=lambda: shutdown.request(f"{max_hung} calls of handlers do not end"),
            ),
            others=CallThreads(
                most_hung=max_hung,
                too_many=lambda: shutdown.request(
                    f"{max_hung} calls of routers or lookups do not end"
                ),
            ),
        )
        # Messages that handlers send use the same ledger and queue.
        gateway.ledger, gateway.queue = engine.ledger, engine.queue
        self.worker.heartbeat = heartbeat = Heartbeat(
            engine.ledger,
            parent.hostname,
            queues=sorted(consumes),
            concurrency=concurrency,
            file=settings.heartbeat_file,
            hung=engine.hung,
            slots=engine.provider_slots,
            handlers=engine.handler_slots,
            packages=("workers",),
        )
        self.upkeep = Upkeep(
            settings,
            engine.ledger,
            engine.queue,
            max_lapses=gateway.retry.event_attempts,
            heartbeat=heartbeat,
            remedies={name: remedies(each) for name, each in gateway.providers.items()},
            rooms=engine.rooms(sends=sends, hooks=hooks),
        )
        engine.queue.batches = lambda: self.upkeep.batches

    def start(self, parent: Any) -> None:
        # Each message creates hundreds of objects, hardly any of them in cycles. What exists now
        # stays, and need not be examined.
        gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])
        gc.freeze()
        self.upkeep.start()
        self._hung: Counter[str] = Counter()
        if self.away:
            threading.Thread(target=self._verify, name="smsqueue-verify", daemon=True).start()
        parent.timer.call_repeatedly(5.0, self._check_hung, (self.engine.slots,))

    def _verify(self) -> None:
        """Wait for Redis, which was away at the start, and check whether it can be used."""
        idle = threading.Event()
        while True:
            try:
                self.engine.ledger.verify_server()
                return log_server(log, self.engine.ledger)
            except RedisMisconfigured as error:
                return self.shutdown.request(str(error))
            except exc.QueueUnavailable:
                idle.wait(1.0)

    def _check_hung(self, slots: Slots) -> None:
        hung = slots.hung()
        for name, calls in hung.items():
            if calls > self._hung[name]:
                log.error(
                    *("%d calls of the provider %s did not end by its deadline", calls, name),
                    extra={"provider": name},
                )
            if calls >= slots.most(name):
                self.shutdown.request(f"all {calls} calls of the provider {name} hang")
        self._hung = hung

    def close(self, parent: Any) -> None:
        self.shutdown.begin()
        self.engine.stop()

    def stop(self, parent: Any) -> None:
        self.upkeep.stop()
        self.shutdown.wait(parent.pool, self.engine.running)
        self.engine.close()

    terminate = stop


def _users_app(ours: Celery) -> Celery:
    """The user's Celery application, for tasks that a handler delays; ours if there is none.

    A worker makes its own application the current one, whatever ``set_as_current`` says.
    """
    state: Any = _state
    now: Celery = state.get_current_app()
    if now is not ours:  # created when the gateway was imported
        return now
    theirs = [app for app in state._get_active_apps() if app.set_as_current]
    return theirs[0] if theirs else ours


class _ConsumerStep(bootsteps.StartStopStep):
    """Lets the consumer's loop report that it runs. Celery starts it at each connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    worker: ClassVar[_Worker]

    def start(self, parent: Any) -> None:
        heartbeat = self.worker.heartbeat
        heartbeat.note_consumer_alive()
        parent.timer.call_repeatedly(2.0, heartbeat.note_consumer_alive)


def _refuse_other_pools(pool: type, *, as_json: bool) -> None:
    name = pool.__module__.rpartition(".")[2]
    # Celery ignores "-P prefork" here and would silently use threads.
    arguments = ArgumentParser(add_help=False, allow_abbrev=False)
    arguments.add_argument("-P", "--pool")
    if arguments.parse_known_args(sys.argv[1:])[0].pool == "prefork":
        name = "prefork"
    if name == "prefork" or not issubclass(pool, TaskPool):
        end_process(
            f"the pool {name} does not work here: slots and time limits count the "
            "threads of one process, and another pool loses messages when it stops. Start the "
            "worker without -P (or with -P threads), and leave worker_pool alone",
            as_json=as_json,
        )


def _load(settings: Settings) -> tuple[Gateway, bool]:
    """Load the gateway and log a summary of it; returns it, and whether Redis is away.

    A gateway that cannot be used ends the process.
    """
    as_json = settings.log == "json"
    try:
        gateway = load_gateway(settings, queued=True)
    except LoaderError as error:
        end_process(str(error), as_json=as_json)
    used = gateway.settings
    if (used.redis_url, used.namespace) != (settings.redis_url, settings.namespace):
        end_process(
            f"the gateway {settings.gateway} sends through {used.namespace!r} in Redis "
            f"at {used.safe_redis_url}, but this worker works on {settings.namespace!r} at "
            f"{settings.safe_redis_url}: set SMSQUEUE_REDIS_URL and SMSQUEUE_NAMESPACE to the "
            "gateway's",
            as_json=as_json,
        )
    if not gateway.providers:
        end_process(
            f"the gateway {settings.gateway} has no provider: add one with "
            "gateway.add_provider(name, Provider, ...)",
            as_json=as_json,
        )
    handlers = {
        name: [handler.name for handler in getattr(gateway, name)]
        for name in ("onSend", "onReceive", "onStatus")
    }
    log.info(
        "gateway %s: providers %s; router %s; handlers %s",
        settings.gateway,
        ", ".join(gateway.providers),
        getattr(gateway.router, "__qualname__", type(gateway.router).__name__),
        "; ".join(f"{name}: {', '.join(names) or 'none'}" for name, names in handlers.items()),
    )
    if gateway.unreported():
        log.warning(
            "no delivery reports are asked of %s with a message: set SMSQUEUE_PUBLIC_URL and "
            "SMSQUEUE_RECEIVER_PREFIX here too, they are the address for reports",
            ", ".join(gateway.unreported()),
        )
    try:
        gateway.ping()
        log_server(log, gateway.ledger)
    except (RedisMisconfigured, SettingsError) as error:
        end_process(str(error), as_json=as_json)
    except exc.QueueUnavailable as error:
        log.error("%s; waiting for it", error)
        return gateway, True
    return gateway, False
