"""Draws runs over time: a page with a picture of each run."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.run_samples import Recording

__all__ = ["FOLDER", "HOW_TO_INSTALL", "can_plot", "draw"]

#: Where the page and its pictures are written.
FOLDER = Path("build/bench")
HOW_TO_INSTALL = (
    "--plot needs matplotlib, which is not installed: "
    ".venv/bin/pip install --require-hashes -r requirements/plot.txt"
)
#: Bars of the rate over a run, at most; each is at least so many seconds wide.
_BARS, _NARROWEST = 120, 0.1
_MEGABYTE = 1_000_000


def can_plot() -> bool:
    """Is matplotlib installed?"""
    try:
        import_module("matplotlib")
    except ImportError:
        return False
    return True


def draw(folder: Path, recordings: list[Recording], machine: dict[str, Any]) -> Path:
    """Write the page and its pictures; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for recording in recordings:
        name = re.sub(r"\W+", "-", recording.title.lower()).strip("-") + ".png"
        _picture(recording).savefig(folder / name)
        title = html.escape(recording.title)
        sections.append(f'<h2>{title}</h2>\n<img src="{name}" alt="{title}">')
    about = html.escape(", ".join(f"{name} {value}" for name, value in machine.items()))
    page = folder / "index.html"
    page.write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>smsqueue: make bench'
        '</title>\n<body style="font-family: sans-serif">\n<h1>make bench</h1>\n'
        f"<p>{about}</p>\n" + "\n".join(sections) + "\n</body>\n</html>\n",
        "utf-8",
    )
    return page


def _picture(recording: Recording) -> Any:
    """Rate, latencies (if there are any) and memory, one above the other."""
    panels = [_rate, *([_latency] if recording.latencies else []), _memory]
    figure = import_module("matplotlib.figure").Figure(
        figsize=(8, 2.1 * len(panels) + 0.6), dpi=90, layout="constrained"
    )
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, axis in zip(panels, axes, strict=True):
        panel(axis, recording)
        axis.set_ylim(0, 1.08 * axis.get_ylim()[1])
        axis.grid(alpha=0.3)
    axes[0].set_title(recording.title)
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(left=0)
    return figure


def _rate(axis: Any, recording: Recording) -> None:
    ends = max(recording.requests, default=1.0)
    width = max(_NARROWEST, ends / _BARS)
    bars = Counter(math.floor(moment / width) for moment in recording.requests)
    steps = range(math.floor(ends / width) + 1)
    axis.step([i * width for i in steps], [bars[i] / width for i in steps], where="post")
    axis.set_ylabel("messages/s")


def _latency(axis: Any, recording: Recording) -> None:
    moments, milliseconds = zip(*recording.latencies, strict=True)
    axis.plot(moments, milliseconds, ".", color="tab:red")
    axis.set_ylabel("password, ms")


def _memory(axis: Any, recording: Recording) -> None:
    for name, samples in recording.memory.items():
        if samples:
            moments, values = zip(*samples, strict=True)
            axis.plot(moments, [value / _MEGABYTE for value in values], label=name)
    axis.set_ylabel("memory, MB")
    axis.legend(loc="lower right")
