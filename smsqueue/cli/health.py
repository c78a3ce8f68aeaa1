"""Everything that is asked for a status, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from smsqueue.cli.tally import Tally, consumed, tallies
from smsqueue.cli.words import counted
from smsqueue.gateway import Gateway
from smsqueue.ledger import Backlog, Damaged, Pause, Room, Unrouted, Webhooks, Worker
from smsqueue.ledger.watching import Server
from smsqueue.message.states import EventState, State

__all__ = ["Health", "examine"]

#: What somebody has to look at, and that stays so until somebody does.
_TROUBLED: tuple[State | EventState, ...] = (State.UNKNOWN, EventState.DEAD, EventState.UNHEARD)


@dataclass(frozen=True)
class Health:
    """What the ledger and Redis tell."""

    send_queue: str
    hook_queue: str
    #: Messages and events by state.
    counts: dict[str, int]
    #: Of unknown, dead and unheard: those that became so lately.
    troubled: dict[str, int]
    #: Seconds.
    oldest_queued: float
    oldest_event: float
    backlog: dict[str, Backlog]
    #: Triggers by broker queue.
    queues: dict[str, int]
    pauses: dict[str, Pause]
    tallies: dict[str, Tally]
    workers: list[Worker]
    #: Records that were put aside, the newest first.
    damaged: list[Damaged]
    unrouted: Unrouted
    server: Server
    #: Memory that Redis has for new messages.
    room: Room
    #: What webhooks hold of it, by provider.
    webhooks: list[Webhooks]
    #: What is wrong with Redis's configuration.
    warnings: list[str]

    @property
    def waiting(self) -> dict[str, int]:
        """By queue: what waits for a worker, now or soon."""
        count = self.counts
        messages = count[State.QUEUED] + count[State.RETRYING]
        events = sum(count[s] for s in (EventState.WAITING, EventState.PARKED, EventState.RUNNING))
        return {
            self.send_queue: max(messages, self.backlog["send"].due),
            self.hook_queue: max(events, self.backlog["hook"].due),
        }

    @property
    def waiting_for_pauses(self) -> str:
        """That messages wait while providers are paused, in words; "": it is not so."""
        names = [name for name, pause in self.pauses.items() if pause.left]
        number = self.waiting[self.send_queue]
        if not names or not number:
            return ""
        be = "is" if len(names) == 1 else "are"
        return f"{counted(number, 'message', 'waits')} while {' and '.join(names)} {be} paused"

    @property
    def unconsumed(self) -> list[str]:
        """The queues that no live worker consumes."""
        live = consumed(self.workers)
        return [queue for queue in (self.send_queue, self.hook_queue) if queue not in live]


def examine(gateway: Gateway, since: datetime | None) -> Health:
    """Ask the ledger and Redis.

    Args:
        since: What became unknown, dead or unheard before is no trouble (any more).
    """
    ledger, settings, counts = gateway.ledger, gateway.settings, gateway.ledger.counts()
    room = ledger.room()
    return Health(
        send_queue=settings.send_queue,
        hook_queue=settings.hook_queue,
        counts=counts,
        troubled={s: ledger.entered(s, since) if since else counts[s] for s in _TROUBLED},
        oldest_queued=ledger.oldest(State.QUEUED),
        oldest_event=ledger.oldest_event(),
        backlog=ledger.backlog(),
        queues=ledger.queued_triggers(),
        pauses={pause.provider: pause for pause in ledger.pauses()},
        tallies=tallies(ledger.counters()),
        workers=ledger.workers(),
        damaged=ledger.damaged(),
        unrouted=ledger.unrouted(),
        server=ledger.server(),
        room=room,
        webhooks=list(room.webhooks),
        warnings=gateway.check(),
    )
