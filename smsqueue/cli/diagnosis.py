"""Finds problems of a running gateway: a snapshot of ledger, Redis and workers, judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import NamedTuple

from redis.exceptions import NoPermissionError

from smsqueue import exc
from smsqueue.cli.messages import repair_command
from smsqueue.cli.output import format_count, format_duration, format_size, printable
from smsqueue.cli.pauses import (
    describe_pause,
    disobedient,
    older_workers_text,
    resume_command,
)
from smsqueue.cli.providers import (
    Traffic,
    needs_operator,
    pause_remedy,
    provider_traffic,
    router_traffic,
)
from smsqueue.gateway import Gateway
from smsqueue.ledger import (
    Activity,
    Backlog,
    Damaged,
    OperatorPause,
    Pause,
    Room,
    Unrouted,
    WaitingTags,
    Webhooks,
    Worker,
    total_slots,
)
from smsqueue.ledger.server_facts import Server
from smsqueue.message.states import EventState, State

__all__ = [
    "Advice",
    "Level",
    "Problem",
    "Snapshot",
    "consumed_queues",
    "find_problems",
    "no_consumer",
    "split_advice",
    "take_snapshot",
]

#: States that do not change until an operator decides.
_UNRESOLVED: tuple[State | EventState, ...] = (State.UNKNOWN, EventState.DEAD, EventState.UNHEARD)
#: Part of the memory for messages from which on it is a problem, before send() is refused.
_NEARLY_FULL = 0.8
#: Seconds by which the clocks of Redis and of this machine may differ.
_MOST_CLOCK_DIFFERENCE = 30.0
#: Damaged records that are named; of more, only the number.
_NAMED_DAMAGED = 3


class Advice(NamedTuple):
    """What is wrong, and what to do about it."""

    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


def split_advice(text: str) -> Advice:
    """Split the text of an error or a warning; these are written as "what is wrong: remedy"."""
    text, _, remedy = text.partition(": ")
    return Advice(text, remedy)


class Level(IntEnum):
    """Exit codes, as monitoring systems expect them."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Problem(NamedTuple):
    """Something that needs attention."""

    level: Level
    text: str
    remedy: str

    def __str__(self) -> str:
        return str(Advice(self.text, self.remedy))


# --- The snapshot ------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """The state of ledger, Redis and workers at one moment."""

    #: By Redis's clock, as all times in the ledger.
    at: datetime
    send_queue: str
    hook_queue: str
    #: Messages and events by state.
    counts: dict[str, int]
    #: Number of unknown, dead and unheard ones that an operator should look at.
    unresolved: dict[str, int]
    #: Seconds.
    oldest_queued: float
    oldest_event: float
    #: By lane.
    backlog: dict[str, Backlog]
    #: Number of triggers by broker queue.
    queues: dict[str, int]
    pauses: dict[str, Pause]
    #: None: this account may not read them.
    operator_pauses: list[OperatorPause] | None
    #: By provider (those that were called, are paused, or that a worker has), and of the router.
    traffic: dict[str, Traffic]
    router: Traffic
    #: What happened lately; None: not known.
    activity: Activity | None
    #: Worker processes that run.
    workers: list[Worker]
    #: Those that were lost within the last hour, the last one first.
    lost_workers: list[Worker]
    #: Seconds by which Redis's clock is ahead of this machine's.
    clock_ahead: float
    #: Records that were put aside, the newest first.
    damaged: list[Damaged]
    unrouted: Unrouted
    #: The tags with the most waiting messages.
    tags: WaitingTags
    server: Server
    #: Memory that Redis has for new messages.
    room: Room
    #: Memory that webhooks use, by provider.
    webhooks: list[Webhooks]
    #: Problems of Redis's configuration.
    warnings: list[str]

    @property
    def waiting(self) -> dict[str, int]:
        """By queue: the number of messages or events that need a worker now or soon."""
        counts = self.counts
        messages = counts[State.QUEUED] + counts[State.RETRYING]
        events = sum(counts[s] for s in (EventState.WAITING, EventState.PARKED, EventState.RUNNING))
        return {
            self.send_queue: max(messages, self.backlog["send"].due),
            self.hook_queue: max(events, self.backlog["hook"].due),
        }

    @property
    def waiting_for_pauses(self) -> str:
        """``"3 messages wait while main is paused"``; ``""`` if none does."""
        names = [name for name, pause in self.pauses.items() if pause.left or pause.operator]
        names += [str(pause) for pause in self.operator_pauses or () if pause.kind != "provider"]
        number = self.waiting[self.send_queue]
        if not names or not number:
            return ""
        be = "is" if len(names) == 1 else "are"
        return f"{format_count(number, 'message', 'waits')} while {' and '.join(names)} {be} paused"

    @property
    def unconsumed(self) -> list[str]:
        """The queues that no live worker consumes."""
        consumed = consumed_queues(self.workers)
        return [queue for queue in (self.send_queue, self.hook_queue) if queue not in consumed]


def take_snapshot(gateway: Gateway, since: datetime | None) -> Snapshot:
    """Read the state of ledger, Redis and workers.

    Args:
        since: What became unknown, dead or unheard before is not counted as unresolved.
    """
    ledger, settings, counts = gateway.ledger, gateway.settings, gateway.ledger.counts()
    room, counters, workers = ledger.room(), ledger.counters(), ledger.workers()
    activity = ledger.activity(counters, counts)
    pauses = {pause.provider: pause for pause in ledger.pauses()}
    live = [worker for worker in workers if worker.alive]
    lost = [worker for worker in workers if not worker.alive]
    return Snapshot(
        at=datetime.fromtimestamp(ledger.now(), UTC),
        send_queue=settings.send_queue,
        hook_queue=settings.hook_queue,
        counts=counts,
        unresolved={s: ledger.entered(s, since) if since else counts[s] for s in _UNRESOLVED},
        oldest_queued=ledger.oldest(State.QUEUED),
        oldest_event=ledger.oldest_event(),
        backlog=ledger.backlog(),
        queues=ledger.queued_triggers(),
        pauses=pauses,
        operator_pauses=_operator_pauses(gateway),
        traffic=provider_traffic(counters, activity, {*pauses, *total_slots(live)}),
        router=router_traffic(counters, activity),
        activity=activity,
        workers=live,
        lost_workers=sorted(lost, key=lambda worker: worker.ago),
        clock_ahead=ledger.clock_ahead(),
        damaged=ledger.damaged(),
        unrouted=ledger.unrouted(),
        tags=ledger.waiting_tags(),
        server=ledger.server(),
        room=room,
        webhooks=list(room.webhooks),
        warnings=gateway.check(),
    )


def _operator_pauses(gateway: Gateway) -> list[OperatorPause] | None:
    try:
        return gateway.ledger.operator_pauses()
    except exc.QueueUnavailable as error:
        if isinstance(error.__cause__, NoPermissionError):
            return None
        raise


def consumed_queues(workers: Iterable[Worker]) -> set[str]:
    """The queues that live workers consume."""
    return {queue for worker in workers if worker.alive for queue in worker.queues}


def no_consumer(*queues: str) -> Advice:
    """No live worker consumes these queues."""
    return Advice(
        f"no worker is consuming {' and '.join(queues)}",
        f"start one with: celery -A workers worker -Q {','.join(queues)}",
    )


# --- The problems ------------------------------------------------------------


def find_problems(snapshot: Snapshot, max_oldest: float) -> list[Problem]:
    """The problems, the worst first.

    Args:
        max_oldest: Seconds by which messages and events may be overdue.
    """
    problems = [
        *_check_workers(snapshot),
        *_check_delays(snapshot, max_oldest),
        *_check_upkeep(snapshot),
        *_check_damaged_records(snapshot),
        *_check_routing(snapshot),
        *_check_pauses(snapshot),
        *_check_unresolved(snapshot),
        *_check_redis_configuration(snapshot),
        *_check_redis_memory(snapshot),
        *_check_clock(snapshot),
    ]
    return sorted(problems, key=lambda problem: -problem.level)


def _check_workers(snapshot: Snapshot) -> Iterator[Problem]:
    idle = snapshot.unconsumed
    if idle:
        stuck = any(snapshot.waiting[queue] for queue in idle)
        yield Problem(Level.CRITICAL if stuck else Level.WARNING, *no_consumer(*idle))
    consumed = consumed_queues(snapshot.workers)
    # If other workers consume its queues, a worker that was lost is not missed.
    missed = [lost for lost in snapshot.lost_workers if not consumed.issuperset(lost.queues)]
    if missed:
        name, age = printable(missed[0].name), format_duration(missed[0].ago)
        text = f"worker {name} has sent no heartbeat for {age}"
        if len(missed) > 1:
            text = f"{len(missed)} workers were lost within an hour, the last was {name} {age} ago"
        yield Problem(Level.WARNING, text, "look into its log: it may have been killed. Restart it")


def _check_delays(snapshot: Snapshot, max_oldest: float) -> Iterator[Problem]:
    """Messages, events, handlers and leases that take too long although workers run."""
    idle = snapshot.unconsumed
    send, watch, hook = (snapshot.backlog[lane] for lane in ("send", "watch", "hook"))
    too_slow = "the workers do not keep up: start more"
    if snapshot.send_queue not in idle:
        if send.oldest > max_oldest:
            messages, age = format_count(send.due, "message", "is"), format_duration(send.oldest)
            yield Problem(Level.WARNING, f"{messages} overdue by up to {age}", too_slow)
        # Messages for a paused provider wait as long as the pause, however fast the workers are.
        elif snapshot.oldest_queued > max_oldest and not (
            snapshot.pauses or snapshot.operator_pauses
        ):
            age = format_duration(snapshot.oldest_queued)
            text = f"the oldest queued message has waited for {age}"
            yield Problem(Level.WARNING, text, too_slow)
    if snapshot.hook_queue not in idle and hook.oldest > max_oldest:
        events, age = format_count(hook.due, "event", "is"), format_duration(hook.oldest)
        yield Problem(Level.WARNING, f"{events} overdue by up to {age}", too_slow)
    elif snapshot.hook_queue not in idle and snapshot.oldest_event > max_oldest:
        age = format_duration(snapshot.oldest_event)
        text = f"the oldest event has waited for its handlers for {age}"
        remedy = "they fail, hang or are too slow: look for 'the handler' in the workers' logs"
        yield Problem(Level.WARNING, text, remedy)
    for worker in snapshot.workers:
        if worker.hung:
            hung = sorted(worker.hung.items())
            calls = ", ".join(f"{number} of {printable(kind)}" for kind, number in hung)
            text = f"worker {printable(worker.name)} has calls that do not end ({calls})"
            remedy = "look for 'did not end' in its log; it restarts when there are too many"
            yield Problem(Level.WARNING, text, remedy)
    if len(idle) < 2 and watch.oldest > max_oldest:
        deadlines = format_count(watch.due, "lease or report deadline", "is")
        text = f"{deadlines} overdue by up to {format_duration(watch.oldest)}"
        yield Problem(Level.WARNING, text, "look for 'upkeep failed' in the workers' logs")


def _check_upkeep(snapshot: Snapshot) -> Iterator[Problem]:
    """While upkeep fails, retries, lost triggers and expired leases wait."""
    failing = all(worker.failing for worker in snapshot.workers)
    level = Level.CRITICAL if failing else Level.WARNING
    for worker in snapshot.workers:
        for name, cause in worker.failing.items():
            what = f"{printable(name)}: {printable(cause)}"
            text = f"upkeep fails on worker {printable(worker.name)}: {what}"
            yield Problem(level, text, "look for 'upkeep failed' in its log")


def _check_damaged_records(snapshot: Snapshot) -> Iterator[Problem]:
    for record in snapshot.damaged[:_NAMED_DAMAGED]:
        text = f"{record.kind} {printable(record.id)} is damaged: {printable(record.cause)}"
        yield Problem(Level.WARNING, text, printable(repair_command(record)))
    others = len(snapshot.damaged) - _NAMED_DAMAGED
    if others > 0:
        text = f"{format_count(others, 'other record', 'is')} damaged"
        yield Problem(Level.WARNING, text, "smsqueue list --damaged")


def _check_routing(snapshot: Snapshot) -> Iterator[Problem]:
    unrouted = snapshot.unrouted
    if unrouted.number:
        why = ": ".join(printable(part) for part in (unrouted.error, unrouted.why) if part)
        last = "the last: " if unrouted.number > 1 else ""
        text = f"{format_count(unrouted.number, 'message')} could not be routed ({last}{why})"
        show = f"smsqueue show {printable(unrouted.id)}"
        yield Problem(Level.WARNING, text, f"correct the router or add the provider; {show}")


def _check_pauses(snapshot: Snapshot) -> Iterator[Problem]:
    if snapshot.operator_pauses is None:  # an ACL file of an older version
        text = "this account may not read what operators have paused"
        yield Problem(Level.WARNING, text, "make the accounts again: smsqueue acl")
    older = disobedient(snapshot.operator_pauses or (), snapshot.workers)
    if older:
        yield Problem(Level.WARNING, older_workers_text(older), "update or stop them")
    for paused in snapshot.operator_pauses or ():
        yield Problem(Level.WARNING, describe_pause(paused), resume_command(paused))
    for name, pause in snapshot.pauses.items():
        if needs_operator(pause):
            why = f"{printable(pause.error)}, {pause.times} in a row"
            be = "is" if pause.left else "was"  # over, but no message was sent there since
            text = f"provider {printable(name)} {be} paused ({why})"
            yield Problem(Level.WARNING, text, pause_remedy(pause))


def _check_unresolved(snapshot: Snapshot) -> Iterator[Problem]:
    for state, noun in (
        (State.UNKNOWN, "message"),
        (EventState.DEAD, "event"),
        (EventState.UNHEARD, "incoming message"),
    ):
        number = snapshot.unresolved[state]
        if number:
            text = f"{format_count(number, noun, 'is')} {state}"
            yield Problem(Level.WARNING, text, f"smsqueue list --state {state}")


def _check_redis_configuration(snapshot: Snapshot) -> Iterator[Problem]:
    for warning in snapshot.warnings:
        yield Problem(Level.WARNING, *split_advice(warning))


def _check_redis_memory(snapshot: Snapshot) -> Iterator[Problem]:
    room = snapshot.room
    usage = (
        f"Redis uses {format_size(room.used)} of its {format_size(room.max)}, and accepted "
        f"messages still need {format_size(room.reserved)}"
    )
    remedy = "raise its maxmemory, or wait until messages are final"
    if room.refuses:
        yield Problem(Level.CRITICAL, f"new messages are refused, {usage}", remedy)
    elif room.part > _NEARLY_FULL:
        text = f"Redis has {format_size(room.left)} left for new messages, {usage}"
        yield Problem(Level.WARNING, text, "raise its maxmemory before they are refused")
    if room.refuses_webhooks:
        text = f"webhooks are refused, except reports of accepted messages: {usage}"
        purge = "; smsqueue purge deletes unwanted events"
        yield Problem(Level.CRITICAL, text, remedy + purge)
        return
    for webhooks in snapshot.webhooks:
        if webhooks.refused:
            name = printable(webhooks.provider)
            text = (
                f"webhooks of {name} are refused: its events that wait for handlers use "
                f"{format_size(webhooks.held)}, its handled events {format_size(webhooks.kept)}"
            )
            remedy = (
                "start hook workers; if it is a flood: change its prefix (webhook_prefix), "
                f"then smsqueue purge --provider {name}"
            )
            yield Problem(Level.CRITICAL, text, remedy)


def _check_clock(snapshot: Snapshot) -> Iterator[Problem]:
    ahead = snapshot.clock_ahead
    if abs(ahead) > _MOST_CLOCK_DIFFERENCE:
        difference = f"{format_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'}"
        text = f"the clock of Redis is {difference} this machine's"
        remedy = "synchronize both (NTP): all times here, and those of send_at, are by Redis's"
        yield Problem(Level.WARNING, text, remedy)
