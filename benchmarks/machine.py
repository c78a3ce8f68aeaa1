"""The machine that it was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smsqueue.stack import find_redis

__all__ = ["facts"]

_PACKAGES = ("celery", "kombu", "redis", "aiohttp", "requests", "flask", "gunicorn")


def facts() -> dict[str, Any]:
    """Cores, versions, and what else ran when the measuring began."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "redis-server": _redis(),
    } | {name: version(name) for name in _PACKAGES}


def _redis() -> str:
    said = subprocess.run([find_redis(), "--version"], capture_output=True, text=True, check=False)
    return next((w[2:] for w in said.stdout.split() if w.startswith("v=")), "unknown")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else "unknown"
