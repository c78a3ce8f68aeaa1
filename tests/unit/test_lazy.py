"""Sending eagerly needs neither Redis nor Celery nor Flask: none of them is even imported."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Refuse())
{program}
loaded = {{name.partition(".")[0] for name in sys.modules}} & set({heavy!r})
sys.exit(f"imported: {{loaded}}" if loaded else 0)
"""

HEAVY = ("celery", "kombu", "redis", "flask", "werkzeug", "gunicorn", "flower", "rich")


def run_without(heavy: tuple[str, ...], program: str) -> None:
    """Run a program where some packages cannot be imported, and are not."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(heavy=heavy, program=program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_importing_smsqueue() -> None:
    run_without(HEAVY, "import smsqueue, smsqueue.data, smsqueue.lib, smsqueue.exc")


def test_importing_the_bundled_providers() -> None:
    run_without(HEAVY, "import smsqueue.providers")


def test_sending_and_receiving_eagerly() -> None:
    run_without(
        (*HEAVY, "requests", "urllib3"),
        """
from smsqueue import Gateway, OutgoingMessage
from smsqueue.providers import LogProvider, LoopbackProvider, NullProvider
with Gateway(eager=True) as gateway:
    loopback = gateway.add_provider("lo", LoopbackProvider)
    gateway.add_provider("log", LogProvider)
    gateway.add_provider("null", NullProvider)
    told = []
    gateway.onReceive += told.append
    gateway.onStatus += told.append
    loopback.subscribe("+1", lambda message: message.reply("got it"))
    for name in gateway.providers:
        message = OutgoingMessage("+1", "x", provider=name).options(status_report=True)
        assert gateway.send(message).msgid == "1"
    assert len(told) == 2, told
    gateway.ping()
    gateway.check()
""",
    )


def test_a_queued_gateway_connects_at_its_first_use() -> None:
    run_without(
        HEAVY,
        """
from smsqueue import Gateway
from smsqueue.providers import NullProvider
with Gateway(eager=False) as gateway:
    gateway.add_provider("null", NullProvider)
    gateway.onReceive += print
""",
    )
