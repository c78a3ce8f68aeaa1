"""The figures as a table and as JSON."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, NotMeasured

__all__ = ["as_json", "show"]


def show(
    console: Console,
    machine: dict[str, Any],
    figures: list[Figure],
    not_measured: list[NotMeasured],
) -> None:
    """Print the machine, the table, and what could not be measured."""
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    console.print(about, style="dim", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("measured", no_wrap=True)
    for heading in ("ours", "beside", "ratio", "rounds", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met")
    for each in figures:
        compared = each.bare is not None
        several = each.low != each.high
        table.add_row(
            each.title,
            _quantity(each.ours, each.unit),
            _quantity(each.bare, each.unit) if each.bare is not None else "",
            f"{each.value:.2f}" if compared else "",
            f"{each.low:.2f} .. {each.high:.2f}" if several else "",
            f"{'<=' if each.at_most else '>='} {each.target:g}",
            "[green]yes[/]" if each.met else "[red]no[/]",
        )
    if figures:
        console.print(table)
    for each in figures:
        notes = ", ".join(f"{name} {value:,}" for name, value in each.notes.items())
        console.print(f"{each.title}: {each.what} ({notes})", style="dim", highlight=False)
    for missing in not_measured:
        text = f"{missing.title}: not measured: {missing.reason}"
        console.print(text, style="yellow", highlight=False)


def _quantity(value: float, unit: str) -> str:
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    shown = f"{value:.{decimals}f}"
    return f"{shown}{'' if unit.startswith('/') else ' '}{unit}".rstrip()


def as_json(
    machine: dict[str, Any],
    figures: list[Figure],
    not_measured: list[NotMeasured],
    failures: dict[str, str],
) -> dict[str, Any]:
    """The whole report as one JSON document."""
    return {
        "machine": machine,
        "figures": [vars(each) | {"met": each.met} for each in figures],
        "not_measured": {missing.name: missing.reason for missing in not_measured},
        "failures": failures,
    }
