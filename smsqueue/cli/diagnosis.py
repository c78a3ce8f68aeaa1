"""What is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from smsqueue.cli.health import Health
from smsqueue.cli.shown import remedy
from smsqueue.cli.tally import advice, needs_somebody, start_worker
from smsqueue.cli.words import clean, counted, size, span
from smsqueue.message.states import EventState, State

__all__ = ["Level", "Problem", "problems"]

#: Part of the memory for messages from which on somebody should know, before send() is refused.
_NEARLY_FULL = 0.8


#: Damaged records that are named one by one.
_NAMED = 3


class Level(IntEnum):
    """Exit codes, as monitoring systems know them."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Problem(NamedTuple):
    """Something that needs attention."""

    level: Level
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.what}: {self.do}" if self.do else self.what


def problems(health: Health, max_oldest: float) -> list[Problem]:
    """The worst first.

    Args:
        max_oldest: Seconds that something may be due.
    """
    found = [*_moving(health, max_oldest), *_failing(health), *_damaged(health)]
    found += [*_unrouted(health), *_paused(health), *_left(health), *_redis(health)]
    return sorted(found, key=lambda problem: -problem.level)


def _moving(health: Health, max_oldest: float) -> Iterator[Problem]:
    """Does everything move?"""
    idle = health.unconsumed
    if idle:
        stuck = any(health.waiting[queue] for queue in idle)
        what, _, do = start_worker(*idle).partition(": ")
        yield Problem(Level.CRITICAL if stuck else Level.WARNING, what, do)
    live = {queue for worker in health.workers if worker.alive for queue in worker.queues}
    for worker in health.workers:
        # One that others stand in for is shown among the workers: it is no problem any more.
        if not worker.alive and not live.issuperset(worker.queues):
            what = f"worker {clean(worker.name)} was not heard of for {span(worker.ago)}"
            yield Problem(Level.WARNING, what, "was it killed? Restart it, and look into its log")
    send, watch, hook = (health.backlog[lane] for lane in ("send", "watch", "hook"))
    slow = "the workers do not keep up: start more"
    if health.send_queue not in idle:
        # A message of a paused provider waits as long as the pause: nobody is slow.
        if send.oldest > max_oldest:
            what = f"{counted(send.due, 'message', 'is')} due since {span(send.oldest)}"
            yield Problem(Level.WARNING, what, slow)
        elif health.oldest_queued > max_oldest and not health.pauses:
            what = f"the oldest queued message waits since {span(health.oldest_queued)}"
            yield Problem(Level.WARNING, what, slow)
    if health.hook_queue not in idle and hook.oldest > max_oldest:
        what = f"{counted(hook.due, 'event', 'is')} due since {span(hook.oldest)}"
        yield Problem(Level.WARNING, what, slow)
    elif health.hook_queue not in idle and health.oldest_event > max_oldest:
        what = f"the oldest event waits for its handlers since {span(health.oldest_event)}"
        do = "they fail, hang or are too slow: look for 'the handler' in the workers' logs"
        yield Problem(Level.WARNING, what, do)
    for worker in health.workers:
        if worker.alive and worker.hung:
            kinds = ", ".join(f"{n} of {clean(kind)}" for kind, n in sorted(worker.hung.items()))
            what = f"worker {clean(worker.name)} has calls that do not end ({kinds})"
            do = "look for 'did not end' in its log; it restarts when they are too many"
            yield Problem(Level.WARNING, what, do)
    if len(idle) < 2 and watch.oldest > max_oldest:
        what = f"{counted(watch.due, 'wait')} should have ended {span(watch.oldest)} ago"
        do = "look for 'upkeep failed' in the workers' logs"
        yield Problem(Level.WARNING, what, do)


def _failing(health: Health) -> Iterator[Problem]:
    """Upkeep that fails: repeats, lost triggers and leases wait for it."""
    live = [worker for worker in health.workers if worker.alive]
    level = Level.CRITICAL if all(worker.failing for worker in live) else Level.WARNING
    for worker in live:
        for name, cause in worker.failing.items():
            what = f"upkeep fails on worker {clean(worker.name)}: {clean(name)}: {clean(cause)}"
            yield Problem(level, what, "look for 'upkeep failed' in its log")


def _damaged(health: Health) -> Iterator[Problem]:
    for damaged in health.damaged[:_NAMED]:
        what = f"{damaged.kind} {clean(damaged.id)} is damaged: {clean(damaged.cause)}"
        yield Problem(Level.WARNING, what, clean(remedy(damaged)))
    left = len(health.damaged) - _NAMED
    if left > 0:
        what = f"{counted(left, 'other record', 'is')} damaged"
        yield Problem(Level.WARNING, what, "smsqueue list --damaged")


def _unrouted(health: Health) -> Iterator[Problem]:
    unrouted = health.unrouted
    if unrouted.number:
        why = ": ".join(clean(part) for part in (unrouted.error, unrouted.why) if part)
        last = "the last: " if unrouted.number > 1 else ""
        what = f"{counted(unrouted.number, 'message', 'was')} not routed lately ({last}{why})"
        do = f"correct the router or add the provider; smsqueue show {clean(unrouted.id)}"
        yield Problem(Level.WARNING, what, do)


def _paused(health: Health) -> Iterator[Problem]:
    for name, pause in health.pauses.items():
        if needs_somebody(pause):
            why = f"{clean(pause.error)}, {pause.times} in a row"
            be = "is" if pause.left else "was"  # nothing was sent there since
            yield Problem(
                Level.WARNING, f"provider {clean(name)} {be} paused ({why})", advice(pause)
            )


def _left(health: Health) -> Iterator[Problem]:
    """What waits for somebody."""
    for state, what in (
        (State.UNKNOWN, "message"),
        (EventState.DEAD, "event"),
        (EventState.UNHEARD, "incoming message"),
    ):
        number = health.troubled[state]
        if number:
            text = f"{counted(number, what, 'is')} {state}"
            yield Problem(Level.WARNING, text, f"smsqueue list --state {state}")


def _redis(health: Health) -> Iterator[Problem]:
    for warning in health.warnings:
        what, colon, do = warning.rpartition(": ")
        yield Problem(Level.WARNING, what if colon else do, do if colon else "")
    room = health.room
    needs = (
        f"Redis uses {size(room.used)} of its {size(room.max)}, and what was accepted still needs "
        f"{size(room.reserved)}"
    )
    do = "raise its maxmemory, or wait until messages are final"
    if room.refuses:
        yield Problem(Level.CRITICAL, f"new messages are refused, {needs}", do)
    elif room.part > _NEARLY_FULL:
        what = f"Redis has {size(room.left)} left for new messages, {needs}"
        yield Problem(Level.WARNING, what, "raise its maxmemory before they are refused")
    if room.refuses_webhooks:
        what = f"webhooks are refused, but for reports of accepted messages: {needs}"
        more = "; smsqueue purge deletes events that nobody wants"
        yield Problem(Level.CRITICAL, what, do + more)
    else:
        for found in health.webhooks:
            if found.refused:
                what = (
                    f"webhooks of {clean(found.provider)} are refused: {size(found.held)} of them "
                    f"wait for their handlers, {size(found.kept)} are kept, of handled ones"
                )
                do_this = (
                    "start hook workers; if it is a flood: change its prefix "
                    f"(webhook_prefix), then smsqueue purge --provider {clean(found.provider)}"
                )
                yield Problem(Level.CRITICAL, what, do_this)
