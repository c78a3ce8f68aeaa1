"""The demo: a hundred messages to the simulator's magic numbers, and whether each of them ended
as its number says."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from smsqueue import Gateway, OutgoingMessage
from smsqueue.demo.alone import forget_settings
from smsqueue.demo.app import AUTO_REPLY
from smsqueue.ledger import Record
from smsqueue.message.states import WAITING, State
from smsqueue.simulator.numbers import NUMBERS, Number
from smsqueue.stack import Stack

__all__ = ["run"]

PER_NUMBER = 10
#: Seconds that all of it may take, and for how long an unknown message must stay unknown.
PATIENCE, STAYS = 45.0, 3.0

#: Times that suit a simulator that answers in milliseconds.
_SHORT = {
    "SMSQUEUE_UPKEEP_INTERVAL": "0.1",
    "SMSQUEUE_GRACE": "5",
    "SMSQUEUE_PARK_WAIT": "5",
    "SMSQUEUE_CONCURRENCY": "40",
}


@dataclass
class _Row:
    number: Number
    numbers: list[str]
    ids: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    @property
    def ended(self) -> int:
        return sum(self._right(record) for record in self.records)

    @property
    def expected(self) -> str:
        """As it is shown: a lost answer is unknown before its report says what became of it."""
        passes = self.number.lost and self.number.ends != State.UNKNOWN
        return f"unknown, {self.number.ends}" if passes else str(self.number.ends)

    def _right(self, record: Record) -> bool:
        was_unknown = any(line["state"] == State.UNKNOWN for line in record.timeline)
        return record.state == self.number.ends and was_unknown == self.number.lost


def run(console: Console | None = None, provider: str = "simulator") -> int:
    """Run the demo; 0 if every message ended as its number says.

    Args:
        provider: Whose dialect is spoken: a function of the demo's gateway module.

    Raises:
        StackError: a process could not be started.
    """
    console = console or Console()
    forget_settings()
    ended: list[int] = []

    def interrupt(signum: int, frame: Any) -> None:
        ended.append(signum)
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as running:
            with console.status("starting ...") as status:
                stack = running.enter_context(
                    Stack(
                        f"smsqueue.demo.app:{provider}",
                        environment=_SHORT,
                        told=lambda what: status.update(f"starting {what} ..."),
                    )
                )
            gateway = running.enter_context(Gateway(stack.settings))
            if ended:  # an exception that a signal raises at a bad moment gets lost
                raise KeyboardInterrupt
            return _show(console, *_send_and_wait(console, gateway), stack, gateway, provider)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has ended")
        return 130
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _send_and_wait(console: Console, gateway: Gateway) -> tuple[list[_Row], float]:
    rows = [_Row(number, list(number.numbers(PER_NUMBER))) for number in NUMBERS]
    total = PER_NUMBER * len(rows)
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("sending", total=total)
        for i in range(PER_NUMBER):
            for row in rows:
                message = OutgoingMessage(row.numbers[i], f"demo {i}").route("demo")
                gateway.send(message.options(status_report=True))
                row.ids.append(message.id or "")
                progress.advance(task)
        task = progress.add_task("as expected", total=total)
        while time.monotonic() - began < PATIENCE:
            for row in rows:
                row.records = [gateway.lookup(id) for id in row.ids]
            progress.update(task, completed=sum(row.ended for row in rows))
            if all(row.ended == PER_NUMBER for row in rows) and _settled(rows):
                answered, received = _replies(rows, gateway)
                if answered == received:
                    break
            time.sleep(0.2)
    return rows, time.monotonic() - began


def _settled(rows: list[_Row]) -> bool:
    """What is to stay unknown has been so for a while."""
    newest = max(record.changed_at.timestamp() for row in rows for record in row.records)
    return time.time() - newest > STAYS


def _show(
    console: Console,
    rows: list[_Row],
    seconds: float,
    stack: Stack,
    gateway: Gateway,
    provider: str,
) -> int:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("number", "behaviour", "expected", "actual", "attempts", "time"):
        justify: Any = "right" if heading == "time" else "left"
        table.add_column(heading, justify=justify, no_wrap=heading == "actual")
    good = True
    for row in rows:
        actual = sorted({str(record.state) for record in row.records})
        attempts = sorted({record.attempts for record in row.records})
        took = max((r.changed_at - r.accepted_at).total_seconds() for r in row.records)
        right = row.ended == PER_NUMBER
        good = good and right
        mark = "[green]" if right else "[red]"
        table.add_row(
            row.number.pattern,
            row.number.name,
            row.expected,
            f"{mark}{PER_NUMBER if right else row.ended} {', '.join(actual)}[/]",
            "-".join(str(n) for n in sorted({attempts[0], attempts[-1]})),
            f"{took:.1f} s",
        )
    console.print(table)
    accepted = requests.get(f"{stack.simulator_url}/accepted", timeout=5).json()
    twice = _twice(accepted)
    answered, received = _replies(rows, gateway)
    spoken = {each["dialect"] for each in accepted}
    expected = sum(len(row.ids) for row in rows if row.number.replies)
    good = good and not twice and answered == received >= expected and spoken == {provider}
    if provider != "simulator":
        console.print(f"spoken with the simulator: {', '.join(sorted(spoken))}'s dialect")
    console.print(f"accepted by the simulator more than once: {twice}")
    console.print(f"replies received: {received}, auto-replies sent: {answered}")
    sent = PER_NUMBER * len(rows)
    console.print(
        f"{sent} messages in {seconds:.1f} s: "
        + ("[green]all as expected[/]" if good else "[red]not as expected[/]")
    )
    console.print(
        f"\nTo look further: {_dev()} runs the same until Ctrl-C, with Flower, and prints\n"
        "how another terminal can use it: smsqueue send NUMBER TEXT --report,\n"
        "smsqueue show ID, smsqueue find NUMBER, smsqueue list --state unknown",
        highlight=False,
    )
    return 0 if good else 1


def _dev() -> str:
    return "make dev" if Path("Makefile").exists() else "smsqueue dev"


def _twice(accepted: list[dict[str, Any]]) -> int:
    """Messages that the simulator accepted more than once, by its own books."""
    ids = [str(each["reference"]).partition(".")[0] for each in accepted]
    return len(ids) - len(set(ids))


def _replies(rows: list[_Row], gateway: Gateway) -> tuple[int, int]:
    """(auto-replies that went out, replies that came in).

    A phone replies to each message but not twice within 10 s, so an auto-reply that had to wait
    for longer is replied to as well.
    """
    counters = gateway.ledger.counters().items()
    received = sum(n for name, n in counters if name[0] == "incoming" and name[-1] == "recorded")
    records = [r for row in rows if row.number.replies for r in _to(row, gateway)]
    answers = [r for r in records if r.message.body == AUTO_REPLY]
    waiting = {State.SENDING, *WAITING}
    return sum(r.state not in waiting for r in answers), received


def _to(row: _Row, gateway: Gateway) -> list[Record]:
    return [r for i in range(PER_NUMBER) for r in gateway.find(row.numbers[i])]
