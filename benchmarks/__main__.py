"""``python -m benchmarks [--only NAME] [--quick] [--json | --markdown] [--plot]``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from benchmarks import plot
from benchmarks.backlog_cost import measure_backlog
from benchmarks.cancelling import measure_cancelling
from benchmarks.delivering import measure_delivery
from benchmarks.fsync import measure_fsync
from benchmarks.idle import measure_idle
from benchmarks.kannel import measure_kannel
from benchmarks.machine import facts
from benchmarks.measured_figures import Figure, NotMeasured
from benchmarks.memory import measure_memory
from benchmarks.passwords import measure_passwords
from benchmarks.receiving import measure_receiver
from benchmarks.replication import measure_replication
from benchmarks.report import as_json, as_markdown, show
from benchmarks.round_trip import measure_round_trip
from benchmarks.run_samples import Recording
from benchmarks.sending import measure_send, measure_send_many
from benchmarks.stage import Stage

MEASUREMENTS: dict[str, Callable[[Stage], Iterator[Figure | NotMeasured]]] = {
    "send": measure_send,
    "send_many": measure_send_many,
    "delivery": measure_delivery,
    "kannel": measure_kannel,
    "round_trip": measure_round_trip,
    "idle": measure_idle,
    "passwords": measure_passwords,
    "cancel": measure_cancelling,
    "receiver": measure_receiver,
    "backlog": measure_backlog,
    "memory": measure_memory,
    "replication": measure_replication,
    "fsync": measure_fsync,
}

#: Columns of the table where there is no terminal.
_WIDTH = 120


def main() -> int:
    """Measure; 0 unless something failed to run, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--only", choices=MEASUREMENTS, action="append", help="run this one (repeatable)"
    )
    parser.add_argument("--quick", action="store_true", help="measure less, for a first look")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument(
        "--markdown", action="store_true", help="print the table as docs/benchmarks.md has it"
    )
    parser.add_argument(
        "--plot", action="store_true", help=f"draw runs over time, into {plot.FOLDER}"
    )
    chosen = parser.parse_args()
    if chosen.plot and not plot.can_plot():
        print(plot.HOW_TO_INSTALL, file=sys.stderr)
        return 2
    for name in [name for name in os.environ if name.startswith("SMSQUEUE_")]:
        if name != "SMSQUEUE_REDIS_SERVER":  # the user's own settings are not to be measured
            del os.environ[name]
    console = Console(stderr=chosen.json or chosen.markdown)
    if not console.is_terminal:  # no line is cut then
        console.width = _WIDTH

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)
    try:
        machine = facts()
        names = chosen.only or list(MEASUREMENTS)
        recordings: list[Recording] | None = [] if chosen.plot else None
        lines, failures = _measure(console, names, chosen.quick, recordings)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has ended")
        return 130
    figures = [line for line in lines if isinstance(line, Figure)]
    not_measured = [line for line in lines if isinstance(line, NotMeasured)]
    if chosen.json:
        print(json.dumps(as_json(machine, figures, not_measured, failures), indent=2))
    else:
        show(console, machine, figures, not_measured)
        if chosen.markdown:
            print(as_markdown(machine, figures))
    if recordings:
        console.print(f"plots: {plot.draw(plot.FOLDER, recordings, machine)}", highlight=False)
    elif chosen.plot:
        console.print("no plots: none of the lines that were measured is drawn over time")
    return 1 if failures else 0


def _measure(
    console: Console, names: list[str], quick: bool, recordings: list[Recording] | None
) -> tuple[list[Figure | NotMeasured], dict[str, str]]:
    lines: list[Figure | NotMeasured] = []
    failures: dict[str, str] = {}
    for name in names:
        with console.status(f"{name} ...") as status:

            def told(what: str, name: str = name, status: Any = status) -> None:
                status.update(f"{name}: {what} ...")

            try:
                with Stage(quick=quick, told=told, recordings=recordings) as stage:
                    lines.extend(MEASUREMENTS[name](stage))
            except Exception as error:  # the others may still run
                failures[name] = f"{type(error).__name__}: {error}"
                console.print(f"[red]{name} failed to run:[/] {failures[name]}", highlight=False)
    return lines, failures


if __name__ == "__main__":
    sys.exit(main())
