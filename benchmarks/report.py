"""The figures as a table on the screen, as one for a page, and as JSON."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measured_figures import Figure, NotMeasured

__all__ = ["as_json", "as_markdown", "show"]

_HEADINGS = ("ours", "beside", "ratio", "rounds", "target", "met")


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
    for heading in _HEADINGS[:-1]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(_HEADINGS[-1])
    for figure in figures:
        *cells, met = _cells(figure)
        table.add_row(figure.title, *cells, f"[{'green' if figure.met else 'red'}]{met}[/]")
    if figures:
        console.print(table)
    for each in figures:
        notes = ", ".join(f"{name} {value:,}" for name, value in each.notes.items())
        console.print(f"{each.title}: {each.what} ({notes})", style="dim", highlight=False)
    for missing in not_measured:
        text = f"{missing.title}: not measured: {missing.reason}"
        console.print(text, style="yellow", highlight=False)


def _cells(figure: Figure) -> tuple[str, ...]:
    """The texts of a figure's line, by heading."""
    compared = figure.bare is not None
    several = figure.low != figure.high
    return (
        _quantity(figure.ours, figure.unit),
        _quantity(figure.bare, figure.unit) if figure.bare is not None else "",
        f"{figure.value:.2f}" if compared else "",
        f"{figure.low:.2f} .. {figure.high:.2f}" if several else "",
        f"{'<=' if figure.at_most else '>='} {figure.target:g}",
        "yes" if figure.met else "no",
    )


def as_markdown(machine: dict[str, Any], figures: list[Figure]) -> str:
    """The machine and the table as a page has them."""
    rows = [("line", *_HEADINGS), ("---",) * (len(_HEADINGS) + 1)]
    rows += [(f"`{figure.title}`", *_cells(figure)) for figure in figures]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([f"{about}.", "", *(f"| {' | '.join(row)} |" for row in rows)])


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
