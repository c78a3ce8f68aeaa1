"""Providers that answer late, wrongly or not at all: counted at the provider, and as told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import requests

from smsqueue import IProvider, OutgoingMessage
from tests.chaos.invariants import check
from tests.chaos.load import send
from tests.chaos.records import Record
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway

#: What the provider is told to do; what the message is then, and how often it was asked for.
ENDS = {
    "late": ("unknown", 1),
    "took500": ("unknown", 1),
    "took502": ("unknown", 1),
    "took503": ("unknown", 1),
    "took303": ("unknown", 1),  # the answer to a request that was processed
    "cut": ("unknown", 1),  # before it took the message; nobody can know
    "cutafter": ("unknown", 1),
    "half": ("unknown", 1),
    "rubbish": ("unknown", 1),
    "huge": ("unknown", 1),
    "driphead": ("unknown", 1),
    "dripbody": ("unknown", 1),
    **dict.fromkeys(("301", "302", "307", "308"), ("failed", 1)),
    "no": ("failed", 1),
    "503 accept": ("sent", 2),
    "busy busy accept": ("sent", 3),
    "429 accept": ("sent", 2),
    "401 accept": ("sent", 2),
    "402 accept": ("sent", 2),
    # The answer to the second attempt is lost; the first one was a refusal.
    "busy cutafter": ("unknown", 2),
}
#: Without a deadline of its own a dripping answer takes longer, and so does a silent one.
BOUND = 15.0


class Careless(IProvider):
    """A plugin without any timeout, which hangs until it is let go."""

    deadline: ClassVar = 0.5

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        if message.body.startswith("before"):
            self._hang()
        asked = {"reference": message.reference, "to": message.dst, "text": message.body}
        url = f"{os.environ['CHAOS_STUB']}/{self.name}/messages"
        answer = requests.post(url, json=asked)
        message.msgid = answer.json()["id"]
        if message.body.startswith("after"):
            self._hang()
        return message

    def _hang(self) -> None:
        while not (Path(os.environ["CHAOS_POINTS"]) / "go").exists():
            time.sleep(0.05)


def __getattr__(name: str) -> Gateway:
    """``gateway``: what the workers load."""
    if name != "gateway":
        raise AttributeError(name)
    from tests.chaos.app import gateway

    gateway.add_provider("careless", Careless)
    # Nobody listens there.
    gateway.add_provider("gone", type(gateway.get_provider("a")), url="http://127.0.0.1:9")
    globals()["gateway"] = gateway
    return gateway


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One whose workers know more providers."""
    more = {"SMSQUEUE_GATEWAY": f"{__name__}:gateway"}
    with Rig(tmp_path_factory.mktemp("faults"), environment=more) as made:
        yield made


def _peak(pid: int) -> int:
    """The most memory that a process ever had, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _took(record: Record) -> float:
    """Seconds from a message's last call to its outcome."""
    calls = [line["at"] for line in record.timeline if line["state"] == "sending"]
    return float(record.timeline[-1]["at"] - calls[-1]) / 1000


def test_whatever_a_provider_does_a_message_is_told_of_truly(rig: Rig) -> None:
    ids: dict[str, str] = {}
    for n, text in enumerate(ENDS):
        ids[str(send(rig, OutgoingMessage(f"15550{n}", text)))] = text
    rig.settle()
    known, asked = rig.records(), [request["id"] for request in rig.asked()]
    found = {text: (known[id].state, asked.count(id)) for id, text in ids.items()}
    assert found == ENDS
    slow = {known[id]: _took(known[id]) for id, text in ids.items() if _took(known[id]) > BOUND}
    assert not slow
    # No redirect was followed: it would have led elsewhere, or to an answer that tells nothing.
    assert {request["account"] for request in rig.asked()} == {"a"}
    figures = check(rig)
    assert (figures.lost, figures.twice) == (0, 0)


def test_an_answer_of_fifty_megabytes_is_not_kept(rig: Rig) -> None:
    # The test before has warmed the workers up; alone this one finds them cold, and is easier.
    for n in range(40):
        send(rig, OutgoingMessage(f"15555{n}", "slow"))
    rig.settle()
    peaks = [_peak(worker.pid) for worker in rig.workers]
    ids = [send(rig, OutgoingMessage(f"15556{n}", "huge")) for n in range(4)]
    rig.settle()
    assert _states(rig, ids) == ["unknown"] * 4
    assert all(_peak(w.pid) < p + 8_000 for w, p in zip(rig.workers, peaks, strict=True))
    check(rig)


def test_a_second_provider_is_called_only_if_the_first_surely_did_not_take_it(rig: Rig) -> None:
    texts = {"busy accept": "b", "503 accept": "b", "took500 accept": "a", "cut accept": "a"}
    texts["took503 accept"] = "a"
    for name in ("a", "b"):  # what failed there before counts no more
        rig.direct.delete(rig.key("pause", name), rig.key("health", name))
    ids = {}
    for text in texts:
        ids[text] = send(rig, OutgoingMessage("15551", text).route("a", "b"))
    gone = send(rig, OutgoingMessage("15551", "accept").route("gone", "b"))
    rig.settle()
    last = {request["id"]: request["account"] for request in rig.asked()}
    assert {text: last[str(id)] for text, id in ids.items()} == texts
    assert last[str(gone)] == "b"
    check(rig)


def test_who_chose_resend_gets_it_sent(rig: Rig) -> None:
    message = OutgoingMessage("15552", "cutafter took502 late accept")
    id = str(send(rig, message.options(on_unknown="resend")))
    rig.settle()
    assert rig.records()[id].state == "sent"
    assert [request["attempt"] for request in rig.asked() if request["id"] == id] == [1, 2, 3, 4]
    check(rig)


def test_a_plugin_hangs_beyond_the_deadline_that_it_declares(rig: Rig) -> None:
    texts = ["before", "after", "before", "after"]
    ids = [
        send(rig, OutgoingMessage(f"15553{n}", t).route("careless")) for n, t in enumerate(texts)
    ]
    others = [send(rig, OutgoingMessage(f"15554{n}", "accept").route("b")) for n in range(20)]
    rig.settle()
    assert _states(rig, others) == ["sent"] * 20
    assert _states(rig, ids) == ["unknown"] * 4
    # Nobody else calls it meanwhile; then its answer still comes, and counts.
    (rig.points / "go").touch()
    until(lambda: _states(rig, ids) == ["sent"] * 4, what="the late answers")
    rig.settle()
    figures = check(rig)
    assert (figures.lost, figures.twice) == (0, 0)


def _states(rig: Rig, ids: list[Any]) -> list[str]:
    known = rig.records()
    return [known[id].state for id in ids]
