"""``python -m benchmarks.naive [--size N] [--json]``: a plain Celery task beside smsqueue."""

from __future__ import annotations

import argparse
import json
import os
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.machine import facts
from benchmarks.naive.rounds import Score, measure

__all__ = ["main"]


def main() -> int:
    """Run all rounds and print both side by side; 0 unless something failed to run."""
    parser = argparse.ArgumentParser(prog="benchmarks.naive", description=__doc__)
    parser.add_argument("--size", type=int, default=400, help="messages in a round")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SMSQUEUE_")]:
        if name != "SMSQUEUE_REDIS_SERVER":  # the user's own settings are not to be measured
            del os.environ[name]
    console = Console(stderr=chosen.json)
    with console.status("starting ...") as status:
        scores = list(measure(chosen.size, lambda what: status.update(f"{what} ...")))
    if chosen.json:
        print(json.dumps({"machine": facts(), "rounds": [s._asdict() for s in scores]}, indent=2))
    else:
        console.print(", ".join(f"{k} {v}" for k, v in facts().items()), style="dim")
        console.print(_table(scores))
    return 0


def _table(scores: list[Score]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("round", no_wrap=True)
    table.add_column("by", no_wrap=True)
    for heading in ("sent", "lost", "twice", "unknown", "unsent", "rate"):
        table.add_column(heading, justify="right")
    for each in scores:
        table.add_row(
            each.round,
            each.side,
            str(each.messages),
            str(each.lost),
            str(each.twice),
            str(each.unknown),
            str(each.unsent),
            f"{each.rate:.0f}/s",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
