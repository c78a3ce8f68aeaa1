"""Puts a worker together: configuration, tasks, and what runs beside them in the process."""

from __future__ import annotations

import gc
import sys
import threading
from argparse import ArgumentParser
from collections import Counter
from typing import Any

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
from smsqueue.logs import get_logger
from smsqueue.operation.heartbeat import Pulse
from smsqueue.operation.upkeep import Upkeep
from smsqueue.settings import Settings, SettingsError
from workers.channel import survive_lost_connections
from workers.engine import Engine
from workers.stopping import Stopping
from workers.tasks import register

__all__ = ["create_worker"]

log = get_logger("smsqueue.worker")

#: Python looks for cycles among the youngest objects once so many more were made than freed.
_CYCLES = 10_000
#: Seconds after which a thread gives way to others. The consumer of the queues gives way at each
#: command to Redis, and would wait for the usual 5 ms each time while a campaign goes out.
_SWITCH = 0.0005


def create_worker(settings: Settings | None = None) -> Celery:
    """The Celery application of workers. It never becomes the process's current one, so that
    what a hook delays goes to the broker of its own application.

    Ends the process with one line if a setting cannot be used.
    """
    try:
        settings = settings or Settings()
    except SettingsError as error:
        sys.exit(f"smsqueue: {error}")
    survive_lost_connections()
    app: Any = Celery("smsqueue", set_as_current=False)
    app.config_from_object(celery_config(settings, worker=True))
    names = (settings.send_queue, settings.hook_queue)
    app.conf.task_queues = [Broker(name, Exchange(name), name) for name in names]
    app.smsqueue_settings = settings
    register(app)
    app.steps["worker"].add(_Engine)
    app.steps["consumer"].add(_Felt)
    made: Celery = app
    return made


class _Engine(bootsteps.StartStopStep):
    """Loads the gateway when a worker boots, and runs upkeep as long as it lives."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        app: Any = parent.app
        settings: Settings = app.smsqueue_settings
        _refuse_other_pools(parent.pool_cls)
        gateway, self.away = _load(settings)
        consumes = {queue.name for queue in app.amqp.queues.consume_from.values()}
        sends, hooks = settings.send_queue in consumes, settings.hook_queue in consumes
        if not sends and not hooks:
            sys.exit(
                f"smsqueue: this worker consumes {', '.join(sorted(consumes))}, but the queues of "
                f"the namespace {settings.namespace!r} are {settings.send_queue} and "
                f"{settings.hook_queue}: correct -Q or SMSQUEUE_NAMESPACE"
            )
        deadlines = [provider.deadline for provider in gateway.providers.values()]
        self.stopping = stopping = Stopping(
            # A route may name several providers, which are called one after the other.
            max(sum(deadlines) if sends else 0.0, settings.handler_timeout if hooks else 0.0),
            hung=lambda: engine.slots.hung().total(),
        )
        most = settings.max_hung_calls
        concurrency = parent.concurrency or settings.concurrency
        sys.setswitchinterval(_SWITCH)
        self.engine = engine = app.smsqueue_engine = Engine(
            app,
            gateway,
            settings,
            parent.hostname,
            concurrency,
            # Threads of their own: what handlers delay goes to their application's broker.
            handlers=CallThreads(
                prepare=_users_app(app).set_current,
                most_hung=most,
                too_many=lambda: stopping.ask(f"{most} calls of handlers do not end"),
            ),
            others=CallThreads(
                most_hung=most,
                too_many=lambda: stopping.ask(f"{most} calls of routers or look-ups do not end"),
            ),
        )
        # What hooks send goes the same way.
        gateway.ledger, gateway.queue = engine.ledger, engine.queue
        app.smsqueue_pulse = pulse = Pulse(
            engine.ledger,
            parent.hostname,
            queues=sorted(consumes),
            concurrency=concurrency,
            file=settings.heartbeat_file,
            hung=engine.hung,
        )
        self.upkeep = Upkeep(
            settings,
            engine.ledger,
            engine.queue,
            max_lapses=gateway.retry.event_attempts,
            pulse=pulse,
            remedies={name: remedies(each) for name, each in gateway.providers.items()},
            rooms=engine.rooms(sends=sends, hooks=hooks),
        )
        engine.queue.batches = lambda: self.upkeep.batches

    def start(self, parent: Any) -> None:
        # Each message makes hundreds of objects, hardly any in cycles, and what is here stays.
        gc.set_threshold(_CYCLES, *gc.get_threshold()[1:])
        gc.freeze()
        self.upkeep.start()
        self._hung: Counter[str] = Counter()
        if self.away:
            threading.Thread(target=self._verify, name="smsqueue-verify", daemon=True).start()
        parent.timer.call_repeatedly(5.0, self._look_for_hung, (self.engine.slots,))

    def _verify(self) -> None:
        """Redis was away when this worker started: see whether it can be used when it is there."""
        idle = threading.Event()
        while True:
            try:
                return self.engine.ledger.verify_server()
            except RedisMisconfigured as error:
                return self.stopping.ask(str(error))
            except exc.QueueUnavailable:
                idle.wait(1.0)

    def _look_for_hung(self, slots: Slots) -> None:
        hung = slots.hung()
        for name, calls in hung.items():
            if calls > self._hung[name]:
                log.error("%d calls of the provider %s did not end by its deadline", calls, name)
            if calls >= slots.most(name):
                self.stopping.ask(f"all {calls} calls of the provider {name} that it may make hang")
        self._hung = hung

    def close(self, parent: Any) -> None:
        self.stopping.closing()
        self.engine.stop()

    def stop(self, parent: Any) -> None:
        self.upkeep.stop()
        self.stopping.wait(parent.pool, self.engine.running)
        self.engine.close()

    terminate = stop


def _users_app(ours: Celery) -> Celery:
    """The Celery application of the user, for what a handler delays as a ``shared_task``; ours if
    there is none. A worker makes its own the current one, whatever ``set_as_current`` says."""
    state: Any = _state
    now: Celery = state.get_current_app()
    if now is not ours:  # made when the gateway was imported
        return now
    theirs = [app for app in state._get_active_apps() if app.set_as_current]
    return theirs[0] if theirs else ours


class _Felt(bootsteps.StartStopStep):
    """Lets the consumer's loop say that it goes round; begun anew at each connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        pulse = parent.app.smsqueue_pulse
        pulse.feel()
        parent.timer.call_repeatedly(2.0, pulse.feel)


def _refuse_other_pools(pool: type) -> None:
    name = pool.__module__.rpartition(".")[2]
    # Celery takes "-P prefork" for no -P, and would run threads without a word.
    asked_for = ArgumentParser(add_help=False, allow_abbrev=False)
    asked_for.add_argument("-P", "--pool")
    if asked_for.parse_known_args(sys.argv[1:])[0].pool == "prefork":
        name = "prefork"
    if name == "prefork" or not issubclass(pool, TaskPool):
        sys.exit(
            f"smsqueue: the pool {name} does not work here: slots and time limits count the "
            "threads of one process, and another pool loses messages when it stops. Start the "
            "worker without -P (or with -P threads), and leave worker_pool alone"
        )


def _load(settings: Settings) -> tuple[Gateway, bool]:
    """The gateway, with a line on what it has, and whether Redis is away; ends the process if
    there is none to work with."""
    try:
        gateway = load_gateway(settings, queued=True)
    except LoaderError as error:
        sys.exit(f"smsqueue: {error}")
    theirs = gateway.settings
    if (theirs.redis_url, theirs.namespace) != (settings.redis_url, settings.namespace):
        sys.exit(
            f"smsqueue: the gateway {settings.gateway} sends through {theirs.namespace!r} in Redis "
            f"at {theirs.safe_redis_url}, but this worker works on {settings.namespace!r} at "
            f"{settings.safe_redis_url}: set SMSQUEUE_REDIS_URL and SMSQUEUE_NAMESPACE to the "
            "gateway's"
        )
    if not gateway.providers:
        sys.exit(
            f"smsqueue: the gateway {settings.gateway} has no provider: add one with "
            "gateway.add_provider(name, Provider, ...)"
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
        for warning in gateway.check():
            log.warning("%s", warning)
    except (RedisMisconfigured, SettingsError) as error:
        sys.exit(f"smsqueue: {error}")
    except exc.QueueUnavailable as error:
        log.error("%s; waiting for it", error)
        return gateway, True
    return gateway, False
