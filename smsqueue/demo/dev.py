"""``smsqueue dev``: runs all processes until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from rich.console import Console

from smsqueue.demo.app import clear_settings
from smsqueue.stack import Stack

__all__ = ["DEMO_GATEWAY", "run_dev"]

DEMO_GATEWAY = "smsqueue.demo.app:gateway"


def run_dev(console: Console | None = None) -> int:
    """Run Redis, worker, receivers, simulator and Flower until Ctrl-C; return the exit code.

    Uses the gateway that SMSQUEUE_GATEWAY names, else that of the demo.

    Raises:
        StackError: a process could not be started.
    """
    console = console or Console()
    ended = threading.Event()
    before = {s: signal.signal(s, lambda *_: ended.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        gateway = os.environ.get("SMSQUEUE_GATEWAY") or DEMO_GATEWAY
        if gateway == DEMO_GATEWAY:
            clear_settings()
        with Stack(
            gateway, flower=True, on_start=lambda name: console.print(f"starting {name} ...")
        ) as stack:
            webhook = f"{stack.receivers_url}/{stack.prefix}"
            console.print(f"\n[bold]smsqueue is running[/] with the gateway {gateway}\n")
            console.print(f"  Flower      {stack.flower_url}")
            console.print(f"  receivers   {webhook}/<provider>/im and /status")
            console.print(f"  simulator   {stack.simulator_url}")
            console.print(f"  logs        {stack.folder}\n")
            console.print("In another terminal:\n", highlight=False)
            folder = Path(sys.executable).parent
            console.print(f"  export PATH={shlex.quote(str(folder))}:$PATH", soft_wrap=True)
            for name in ("SMSQUEUE_REDIS_URL", "SMSQUEUE_GATEWAY"):
                console.print(f"  export {name}={stack.environment[name]}", soft_wrap=True)
            console.print("  smsqueue send +15550000101 'hello' --report --wait")
            console.print("\nCtrl-C stops it.")
            while not ended.wait(0.5):
                process = stack.died()
                if process is not None:
                    console.print(f"[red]{process.name} has ended:[/]\n{process.tail()}")
                    return 1
            console.print("stopping ...")
        return 0
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
