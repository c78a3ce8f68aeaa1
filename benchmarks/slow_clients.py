"""How servers answer webhooks alone and beside slow clients: ``python -m benchmarks.slow_clients``.

Prints webhooks a second of one process with four clients, then what 70 webhooks took beside 500
slow clients. The gateway is eager, so that only servers are compared.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from smsqueue.stack import Process, free_port
from tests.receivers.plugin import HELLO, PREFIX
from tests.receivers.slow_clients import SlowClients, call, p99, webhook

_GATEWAY = """
from smsqueue.gateway import Gateway
from tests.receivers.plugin import PluginProvider
gateway = Gateway()
gateway.add_provider("main", PluginProvider)
"""
_APP = "receivers:create_app()"
_SERVERS = {
    "python:receivers.server": ["--config", "python:receivers.server"],
    "gevent": ["-k", "gevent", _APP],
    "gthread, 16 threads": ["-k", "gthread", "--threads", "16", _APP],
    "sync": [_APP],
}
_HOOK = webhook(f"/{PREFIX}/main/im", **HELLO)


def main() -> None:
    """Measure every server that is installed."""
    print(f"{'gunicorn with':26} {'a second':>9} {'answered':>9} {'p50':>9} {'p99':>9}")
    for name, options in _SERVERS.items():
        if name == "gevent" and importlib.util.find_spec("gevent") is None:
            print(f"{name:26} not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            _measure(name, options, Path(folder))


def _measure(name: str, options: list[str], folder: Path) -> None:
    (folder / "bench_sms.py").write_text(_GATEWAY)
    url = f"http://127.0.0.1:{free_port()}"
    process = Process(
        "receivers",
        [sys.executable, "-m", "gunicorn", *options, "-b", url.removeprefix("http://")],
        folder / "log",
        folder=folder,
        environment={
            "SMSQUEUE_GATEWAY": "bench_sms:gateway",
            "SMSQUEUE_RECEIVER_PREFIX": PREFIX,
            "SMSQUEUE_EAGER": "1",
            "HOME": str(folder),
            "PYTHONPATH": os.getcwd(),
        },
    )
    process.start(lambda: call(url, _HOOK, 5)[0] == 200)
    try:
        rate = _rate(url)
        with SlowClients(url, 500):
            answers: list[tuple[int, float]] = []
            while len(answers) < 70 and (len(answers) < 5 or any(code for code, _ in answers)):
                answers.append(call(url, _HOOK, 3))
    finally:
        process.stop()
    times = sorted(seconds for status, seconds in answers if status == 200)
    shown = [f"{1000 * x:6.0f} ms" for x in (times[len(times) // 2], p99(times))] if times else []
    print(f"{name:26} {rate:9.0f} {len(times):4} of {len(answers)} {' '.join(shown)}", flush=True)


def _rate(url: str, seconds: float = 5.0) -> float:
    counts = [0] * 4
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        while time.monotonic() < end:
            counts[number] += call(url, _HOOK, 10)[0] == 200

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


if __name__ == "__main__":
    main()
