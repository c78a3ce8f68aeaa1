"""Handlers, routers and providers that never return: others go on, and the worker still ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage
from smsqueue.message.states import EventState, State
from smsqueue.operation.metrics import scrape

HANGING = """
import threading, time
from pathlib import Path
from smsqueue import Gateway, IProvider, RetryPolicy
from smsqueue.providers import NullProvider

class Slow(IProvider):
    def send(self, message):
        time.sleep(1.5)
        message.msgid = f"s-{message.id}"
        return message

gateway = Gateway(retry=RetryPolicy(base=0.05, cap=0.1, attempts=3))
gateway.add_provider("null", NullProvider)
gateway.add_provider("slow", Slow)

def note(text):
    with open("heard", "a") as file:
        file.write(text + "\\n")

def on_send(message):
    note(f"{message.body} began")
    if message.body == "sleep":
        time.sleep(100_000)
    if message.body == "loop":
        while True:
            pass
    if message.body == "swallow":
        while True:
            try:
                time.sleep(0.01)
                raise ValueError
            except BaseException:
                pass
    if message.body == "thread":  # which Python would wait for
        threading.Thread(target=time.sleep, args=(100_000,), daemon=False).start()
    if message.body == "late":
        while not Path("go").exists():
            time.sleep(0.01)
    if message.body == "exit":
        raise SystemExit(3)
    note(f"{message.body} ended")

gateway.onSend += on_send
"""

LIMITS = {"SMSQUEUE_HANDLER_TIMEOUT": "1", "SMSQUEUE_GRACE": "1"}


def _heard(tmp_path: Path) -> list[str]:
    file = tmp_path / "heard"
    return file.read_text().splitlines() if file.exists() else []


def _metric(gateway: Gateway, name: str) -> float:
    lines = scrape(gateway.ledger).decode().splitlines()
    [line] = [line for line in lines if line.startswith(name)]
    return float(line.rpartition(" ")[2])


def test_eight_hung_handlers_stop_nobody_and_their_events_end_dead(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None], tmp_path: Path
) -> None:
    worker = start_worker(HANGING, **LIMITS)
    gateway.send_many([OutgoingMessage("15550001", "sleep") for _ in range(8)])
    until(lambda: _heard(tmp_path).count("sleep began") == 8)
    # A thread is lost for each event, not for each of its tries.
    until(lambda: gateway.ledger.counts()[EventState.DEAD] == 8)
    assert _heard(tmp_path).count("sleep began") == 8
    why = gateway.ledger.read_event(gateway.ledger.ids_in(EventState.DEAD)[0]) or {}
    assert "HandlerTimeout" in why["why"]
    # Others are served: those that send, and those that wait for their hooks.
    fine = gateway.send(OutgoingMessage("15550002", "fine"))
    until(lambda: "fine ended" in _heard(tmp_path))
    assert gateway.lookup(fine.id or "").state == State.SENT
    until(lambda: [w.hung for w in gateway.ledger.workers()] == [{"handler": 8}])
    assert _metric(gateway, 'smsqueue_hung_calls{kind="handler"}') == 8
    assert worker.process.poll() is None


def test_a_handler_that_succeeds_too_late_does_not_run_again(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None], tmp_path: Path
) -> None:
    many = HANGING.replace("cap=0.1, attempts=3", "cap=0.1, attempts=1000")
    worker = start_worker(many, **LIMITS)
    gateway.send(OutgoingMessage("15550001", "late"))
    until(lambda: "did not end within 1 s" in worker.text())
    (tmp_path / "go").touch()
    until(lambda: gateway.ledger.counters().get(("hooks", "sent", "done")) == 1)
    assert _heard(tmp_path) == ["late began", "late ended"]
    until(lambda: [w.hung for w in gateway.ledger.workers()] == [{}])


def test_a_handler_that_exits_is_one_that_failed(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    worker = start_worker(HANGING)
    gateway.send(OutgoingMessage("15550001", "exit"))
    until(lambda: gateway.ledger.counts()[EventState.DEAD] == 1)
    assert worker.process.poll() is None


@pytest.mark.parametrize("how", ["sleep", "loop", "swallow"])
def test_sigterm_ends_a_worker_whose_handlers_never_return(
    how: str,
    gateway: Gateway,
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    worker = start_worker(HANGING, **LIMITS | {"SMSQUEUE_HANDLER_TIMEOUT": "2"})
    hung = gateway.send(OutgoingMessage("15550001", how))
    until(lambda: f"{how} began" in _heard(tmp_path))
    flying = gateway.send(OutgoingMessage("15550001", "hello", provider="slow"))
    until(lambda: gateway.lookup(flying.id or "").state == State.SENDING)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(timeout=60) == 0
    assert gateway.lookup(flying.id or "").state == State.SENT
    # The event is not lost: it waits for the next worker.
    states = (EventState.WAITING, EventState.RUNNING)
    events = [id for each in states for id in gateway.ledger.ids_in(each)]
    assert hung.id in [(gateway.ledger.read_event(id) or {})["message"] for id in events]


def test_sigterm_ends_a_worker_whose_handler_began_a_thread(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None], tmp_path: Path
) -> None:
    worker = start_worker(HANGING)
    gateway.send(OutgoingMessage("15550001", "thread"))
    until(lambda: "thread ended" in _heard(tmp_path))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(timeout=60) == 1
    assert gateway.ledger.workers() == []


def test_too_many_hung_handlers_end_the_worker_in_order(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    worker = start_worker(HANGING, **LIMITS | {"SMSQUEUE_MAX_HUNG_CALLS": "3"})
    gateway.send_many([OutgoingMessage("15550001", "sleep") for _ in range(3)])
    flying = [gateway.send(OutgoingMessage("15550002", "hi", provider="slow")) for _ in range(2)]
    assert worker.process.wait(timeout=60) == 1
    assert "this worker stops, so that its supervisor restarts it: 3 calls" in worker.text()
    assert {gateway.lookup(each.id or "").state for each in flying} <= {State.SENT, State.QUEUED}
    assert gateway.ledger.workers() == []


ROUTER = """
import time
from smsqueue import Gateway, IProvider, RetryPolicy
from smsqueue.delivery import pipeline
from smsqueue.providers import NullProvider

class Hung(IProvider):
    deadline = 1.0
    def send(self, message):
        time.sleep(100_000)

def route(message, kind=""):
    if kind == "hang":
        time.sleep(100_000)
    return "null"

pipeline.ROUTER_TIMEOUT = 1.0
gateway = Gateway(retry=RetryPolicy(base=0.05, cap=0.1, attempts=2))
gateway.add_provider("null", NullProvider)
gateway.add_provider("hung", Hung)
gateway.router = route
"""


def test_a_hung_router_stops_nobody(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    worker = start_worker(ROUTER)
    hung = [gateway.send(OutgoingMessage("15550001", "hi").route("hang")) for _ in range(12)]
    other = gateway.send(OutgoingMessage("15550001", "hi").route("fine"))
    until(lambda: gateway.lookup(other.id or "").state == State.SENT)
    until(lambda: {gateway.lookup(each.id or "").state for each in hung} == {State.FAILED})
    assert gateway.lookup(hung[0].id or "").error == "RoutingError"
    until(lambda: [w.hung for w in gateway.ledger.workers()] == [{"router": 12}])
    worker.stop(signal.SIGTERM)
    assert worker.process.returncode == 0


def test_a_hung_provider_keeps_neither_others_nor_the_end_of_the_worker(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    few = {"SMSQUEUE_MAX_IN_FLIGHT": "4"}
    worker = start_worker(ROUTER, **few, **{"SMSQUEUE_HANDLER_TIMEOUT": "1"})
    hung = [gateway.send(OutgoingMessage("15550001", "hi", provider="hung")) for _ in range(8)]
    until(lambda: gateway.ledger.counts()[State.SENDING] == 4)
    other = gateway.send(OutgoingMessage("15550001", "hi").route("fine"))
    until(lambda: gateway.lookup(other.id or "").state == State.SENT)
    worker.process.send_signal(signal.SIGTERM)
    # Its deadline, and what is left to record outcomes: no test of speed, else it would never end.
    assert worker.process.wait(timeout=120) == 1
    assert "this process ends without them" in worker.text()
    states = [gateway.lookup(each.id or "").state for each in hung]
    assert states.count(State.SENDING) == 4  # unknown when their leases end


def test_a_worker_whose_provider_hangs_in_all_its_calls_starts_anew(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    overdue = "from smsqueue.delivery import slots\nslots._OVERDUE = 1.0\n"
    worker = start_worker(ROUTER + overdue, **{"SMSQUEUE_MAX_IN_FLIGHT": "4"})
    for _ in range(4):
        gateway.send(OutgoingMessage("15550001", "hi", provider="hung"))
    assert worker.process.wait(timeout=120) == 1
    assert "all 4 calls of the provider hung hang" in worker.text()
