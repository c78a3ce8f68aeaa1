"""``smsqueue demo``: sends to the simulator's magic numbers, and checks how each message ends."""

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
from smsqueue.demo.app import AUTO_REPLY, clear_settings
from smsqueue.ledger import Record
from smsqueue.message.states import WAITING, State
from smsqueue.simulator.magic_numbers import NUMBERS, Number
from smsqueue.stack import Stack

__all__ = ["run"]

_MESSAGES_PER_BEHAVIOR = 10
_TIMEOUT_S = 45.0
#: An unknown message has to stay unknown for this long.
_STABLE_S = 3.0

#: Short times: the simulator answers in milliseconds.
_SETTINGS = {
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
    def as_expected(self) -> int:
        """How many messages ended as expected."""
        return sum(self._is_as_expected(record) for record in self.records)

    @property
    def expected(self) -> str:
        """For the table: without an answer a message is unknown until its report comes."""
        final = self.number.final_state
        unknown_first = self.number.answer_lost and final != State.UNKNOWN
        return f"unknown, {final}" if unknown_first else str(final)

    def _is_as_expected(self, record: Record) -> bool:
        was_unknown = any(line["state"] == State.UNKNOWN for line in record.timeline)
        final = record.state == self.number.final_state
        return final and was_unknown == self.number.answer_lost


def run(console: Console | None = None, provider: str = "simulator") -> int:
    """Run the demo; return 0 if all messages ended as expected.

    Args:
        provider: The dialect, and the function of :mod:`smsqueue.demo.app` that makes the gateway.

    Raises:
        StackError: a process could not be started.
    """
    console = console or Console()
    clear_settings()
    signals: list[int] = []

    def interrupt(signum: int, frame: Any) -> None:
        signals.append(signum)
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as running:
            with console.status("starting ...") as status:
                stack = running.enter_context(
                    Stack(
                        f"smsqueue.demo.app:{provider}",
                        environment=_SETTINGS,
                        on_start=lambda name: status.update(f"starting {name} ..."),
                    )
                )
            gateway = running.enter_context(Gateway(stack.settings))
            if signals:  # an exception raised in a destructor or callback is lost
                raise KeyboardInterrupt
            return _show(console, *_send_and_wait(console, gateway), stack, gateway, provider)
    except KeyboardInterrupt:
        console.print("interrupted; all processes have ended")
        return 130
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _send_and_wait(console: Console, gateway: Gateway) -> tuple[list[_Row], float]:
    rows = [_Row(number, list(number.numbers(_MESSAGES_PER_BEHAVIOR))) for number in NUMBERS]
    total = _MESSAGES_PER_BEHAVIOR * len(rows)
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("sending", total=total)
        for i in range(_MESSAGES_PER_BEHAVIOR):
            for row in rows:
                message = OutgoingMessage(row.numbers[i], f"demo {i}").route("demo")
                gateway.send(message.options(status_report=True))
                row.ids.append(message.id or "")
                progress.advance(task)
        task = progress.add_task("as expected", total=total)
        while time.monotonic() - began < _TIMEOUT_S:
            for row in rows:
                row.records = [gateway.lookup(id) for id in row.ids]
            progress.update(task, completed=sum(row.as_expected for row in rows))
            if all(row.as_expected == _MESSAGES_PER_BEHAVIOR for row in rows) and _stable(rows):
                answered, received = _count_replies(rows, gateway)
                if answered == received:
                    break
            time.sleep(0.2)
    return rows, time.monotonic() - began


def _stable(rows: list[_Row]) -> bool:
    """Return whether no state has changed for _STABLE_S."""
    newest = max(record.changed_at.timestamp() for row in rows for record in row.records)
    return time.time() - newest > _STABLE_S


def _show(
    console: Console,
    rows: list[_Row],
    seconds: float,
    stack: Stack,
    gateway: Gateway,
    provider: str,
) -> int:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("number", "behavior", "expected", "actual", "attempts", "time"):
        justify: Any = "right" if heading == "time" else "left"
        table.add_column(heading, justify=justify, no_wrap=heading == "actual")
    success = True
    for row in rows:
        actual = sorted({str(record.state) for record in row.records})
        attempts = sorted({record.attempts for record in row.records})
        took = max((r.changed_at - r.accepted_at).total_seconds() for r in row.records)
        complete = row.as_expected == _MESSAGES_PER_BEHAVIOR
        success = success and complete
        color = "[green]" if complete else "[red]"
        table.add_row(
            row.number.pattern,
            row.number.name,
            row.expected,
            f"{color}{row.as_expected} {', '.join(actual)}[/]",
            "-".join(str(n) for n in sorted({attempts[0], attempts[-1]})),
            f"{took:.1f} s",
        )
    console.print(table)
    accepted = requests.get(f"{stack.simulator_url}/accepted", timeout=5).json()
    duplicates = _count_duplicates(accepted)
    answered, received = _count_replies(rows, gateway)
    dialects = {entry["dialect"] for entry in accepted}
    expected = sum(len(row.ids) for row in rows if row.number.replies)
    success = success and not duplicates and answered == received >= expected
    success = success and dialects == {provider}
    if provider != "simulator":
        console.print(f"dialect of the simulator: {', '.join(sorted(dialects))}")
    console.print(f"accepted by the simulator more than once: {duplicates}")
    console.print(f"replies received: {received}, auto-replies sent: {answered}")
    sent = _MESSAGES_PER_BEHAVIOR * len(rows)
    console.print(
        f"{sent} messages in {seconds:.1f} s: "
        + ("[green]all as expected[/]" if success else "[red]not as expected[/]")
    )
    console.print(
        f"\nNext: {_dev_command()} runs the same processes and Flower until Ctrl-C, and prints\n"
        "how to use them from another terminal: smsqueue send NUMBER TEXT --report,\n"
        "smsqueue show ID, smsqueue find NUMBER, smsqueue list --state unknown",
        highlight=False,
    )
    return 0 if success else 1


def _dev_command() -> str:
    return "make dev" if Path("Makefile").exists() else "smsqueue dev"


def _count_duplicates(accepted: list[dict[str, Any]]) -> int:
    """Return how many messages the simulator accepted more than once."""
    ids = [str(entry["reference"]).partition(".")[0] for entry in accepted]
    return len(ids) - len(set(ids))


def _count_replies(rows: list[_Row], gateway: Gateway) -> tuple[int, int]:
    """Return how many auto-replies were sent, and how many replies were received.

    A simulated number replies at most once in 10 s; it also replies to an auto-reply that was
    delayed for longer.
    """
    counters = gateway.ledger.counters().items()
    received = sum(n for name, n in counters if name[0] == "incoming" and name[-1] == "recorded")
    records = [r for row in rows if row.number.replies for r in _find_messages(row, gateway)]
    answers = [r for r in records if r.message.body == AUTO_REPLY]
    waiting = {State.SENDING, *WAITING}
    return sum(r.state not in waiting for r in answers), received


def _find_messages(row: _Row, gateway: Gateway) -> list[Record]:
    return [r for i in range(_MESSAGES_PER_BEHAVIOR) for r in gateway.find(row.numbers[i])]
