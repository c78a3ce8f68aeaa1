"""Handlers that raise, hang, kill their worker, are renamed, or are not there."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from smsqueue import IncomingMessage, OutgoingMessage
from smsqueue.events import current_event
from tests.chaos.invariants import check
from tests.chaos.load import come_in
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway


def _told(kind: str, msgid: object) -> int:
    """How often something was noted of a message, by whichever process."""
    with open(os.environ["CHAOS_HEARD"]) as file:
        lines = [json.loads(line) for line in file if line.endswith("\n")]
    return sum((line["kind"], line["msgid"]) == (kind, msgid) for line in lines if "msgid" in line)


def _note(kind: str, message: IncomingMessage) -> None:
    line = {"kind": kind, "id": message.id, "msgid": message.msgid}
    with open(os.environ["CHAOS_HEARD"], "a") as file:
        file.write(json.dumps(line) + "\n")


def _reply(word: str, message: IncomingMessage) -> None:
    gateway: Gateway = globals()["gateway"]
    reply = OutgoingMessage(message.src, f"{word}-{message.msgid}")
    gateway.send(reply.options(context={"by": message.id}))


def _unruly(message: IncomingMessage) -> None:
    """Does what the message says, the first times."""
    before = _told("began", message.msgid)
    _note("began", message)
    words = message.body.split()
    if "reply" in words:
        _reply("reply", message)
    if "die" in words and before < 1:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    if "raise" in words and before < 3:
        raise RuntimeError(message.body)
    if "hang" in words and before < 1:
        # Until the lease is over, and another run has ended well.
        until(lambda: _told("ended", message.msgid), what="another run")
    _note("ended", message)


def _fails(message: IncomingMessage) -> None:
    raise RuntimeError("this version has a fault")


def _mended(message: IncomingMessage) -> None:
    _note("mended", message)


def _plain(message: IncomingMessage) -> None:
    _note("plain", message)


def _renamed(message: IncomingMessage) -> None:
    _note("plain", message)


def _stable(message: IncomingMessage) -> None:
    assert current_event() == message.id
    _reply("stable", message)
    _note("stable", message)


def __getattr__(name: str) -> Gateway:
    """``gateway``: what the workers load, with the handlers of one version of the application."""
    if name != "gateway":
        raise AttributeError(name)
    from tests.chaos.app import gateway, on_receive

    match os.environ["CHAOS_VERSION"]:
        case "unruly":
            gateway.onReceive += _unruly
        case "none":
            gateway.onReceive -= on_receive
        case "old":
            gateway.onReceive.connect(_stable, name="stable")
            gateway.onReceive += _plain
            gateway.onReceive.connect(_fails, name="faulty")
        case "new":
            gateway.onReceive.connect(_stable, name="stable")
            gateway.onReceive += _renamed
            gateway.onReceive.connect(_mended, name="faulty")
    globals()["gateway"] = gateway
    return gateway


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    more = {"SMSQUEUE_GATEWAY": f"{__name__}:gateway", "CHAOS_VERSION": "unruly"}
    more |= {"SMSQUEUE_GRACE": "0.5", "SMSQUEUE_HOOK_LEASE": "4", "SMSQUEUE_HANDLER_TIMEOUT": "3"}
    with Rig(tmp_path_factory.mktemp("hooks"), environment=more) as made:
        yield made


def _replies(rig: Rig) -> Counter[str]:
    return Counter(request["word"] for request in rig.asked() if request["took"])


def _heard(rig: Rig, msgid: str) -> Counter[str]:
    return Counter(line["kind"] for line in rig.heard() if line.get("msgid") == msgid)


def _ended(rig: Rig, msgid: str, times: int) -> bool:
    return _heard(rig, msgid)["ended"] == times


def _is(rig: Rig, event: str) -> str:
    return str(rig.direct.hget(rig.key("event", event), "state"))


def _deploy(rig: Rig, version: str) -> None:
    """Another version of the application; nobody works meanwhile."""
    for worker in rig.workers:
        worker.stop()
    rig.workers, rig.wanted = [], 1
    rig.environment["CHAOS_VERSION"] = version
    rig.heal()


def test_handlers_raise_and_kill_their_worker(rig: Rig) -> None:
    names = ["fine", "raise", "die", "reply", "reply-raise", "reply-die"]
    events = {n: come_in(rig, n, n.replace("-", " ")) for n in [*names, *names]}  # each comes twice

    def ended() -> bool:
        return all(_heard(rig, name)["ended"] for name in names)

    with rig.hits.during():
        while not ended():
            until(
                lambda: ended() or not all(worker.alive for worker in rig.workers),
                what="the death of a worker, or the end",
            )
            rig.heal()
    rig.settle()
    assert {name: _is(rig, event) for name, event in events.items()} == dict.fromkeys(names, "done")
    for name in names:
        # A worker that dies takes others' handlers with it: these run once more.
        assert _heard(rig, name)["began"] >= (4 if "raise" in name else 1 + ("die" in name)), name
    # However often a handler ran, its reply went out once.
    assert _replies(rig) == Counter({f"reply-{name}": 1 for name in names if "reply" in name})
    check(rig)


def test_a_handler_hangs_for_longer_than_its_lease(rig: Rig) -> None:
    names = ["hang", "reply-hang"]
    events = [come_in(rig, name, name.replace("-", " ")) for name in names]
    rig.settle()
    for name, event in zip(names, events, strict=True):
        until(partial(_ended, rig, name, 2), what="the end of both runs")
        # What succeeded before it hung does not run again; its own second run counts.
        assert _heard(rig, name) == Counter(received=1, began=2, ended=2)
        assert _is(rig, event) == "done"
    assert _replies(rig)["reply-reply-hang"] == 1
    check(rig)


def test_no_handler_at_all(rig: Rig) -> None:
    _deploy(rig, "none")
    event = come_in(rig, "unheard", "hello")
    rig.settle()
    assert _is(rig, event) == "unheard"
    _deploy(rig, "unruly")
    assert rig.gateway.replay(event)
    until(lambda: _is(rig, event) == "done", what="the replay")
    assert _heard(rig, "unheard") == Counter(received=1, began=1, ended=1)
    check(rig)


def test_handlers_are_renamed_while_an_event_is_repeated(rig: Rig) -> None:
    _deploy(rig, "old")
    event = come_in(rig, "deploy", "hello")
    until(lambda: "fault" in (rig.direct.hget(rig.key("event", event), "why") or ""))
    _deploy(rig, "new")
    until(lambda: _is(rig, event) == "done", what="the mended handler")
    rig.settle()
    # By its name a handler is known to have succeeded; the renamed one is another one.
    assert _heard(rig, "deploy") == Counter(received=1, stable=1, plain=2, mended=1)
    assert _replies(rig)["stable-deploy"] == 1
    check(rig)
