"""What must hold after each round. Lost and twice are counted at the provider."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.chaos.effects import unmet, untold
from tests.chaos.load import LOSES
from tests.chaos.records import Record
from tests.chaos.timelines import unexplained

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

__all__ = ["Figures", "check"]

FINAL = {"delivered", "undelivered", "expired", "failed", "cancelled"}
TAKEN = {"sent", "accepted", "delivered", "undelivered"}
LANES = {
    "queued": "send", "scheduled": "send", "retrying": "send", "sending": "watch",
    "unknown": "watch", "sent": "watch", "accepted": "watch",
}  # fmt: skip
STATES = [*LANES, *sorted(FINAL)]
EVENTS = {"waiting", "parked", "running"}


class Figures(NamedTuple):
    """What a round came to."""

    messages: int
    requests: int
    lost: int
    twice: int
    unknown: int
    #: Of the unknown: those that asked the provider to lose its answer.
    meant: int
    #: Of the unknown: those that never went out.
    unsent: int
    errors: int


class _Found:
    """Broken promises, and the messages that they concern."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.kinds = rig, Counter[str]()
        self.lines: list[str] = []
        self.about: list[str] = []

    def add(self, kind: str, id: str = "", text: str = "") -> None:
        self.kinds[kind] += 1
        self.lines.append(f"{kind}: {id} {text}")
        if id:
            self.about.append(id)

    def report(self, known: dict[str, Record], asked: dict[str, list[dict[str, Any]]]) -> None:
        if not self.lines:
            return
        text = [f"seed {self.rig.seed}, {self.rig.folder}", *self.lines[:40]]
        for id in dict.fromkeys(self.about[:10]):
            text += [str(known.get(id, f"{id}: no record")), *map(str, asked.get(id, []))]
        raise AssertionError("\n".join(text))


def check(rig: Rig) -> Figures:
    """Check all that was ever sent in this rig; nothing may be under way."""
    rig.clean = False
    found, known = _Found(rig), rig.records()
    asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for request in rig.asked():
        asked[request["id"]].append(request)
    for id in set(known) - set(rig.book.sent) - set(rig.book.maybe):
        if "by" not in known[id].context:
            # One that a caller was told of as not confirmed, and that was taken in once more.
            found.add("twice", id, "a message that nobody sent under this id")
    for id in rig.book.sent:
        state = known[id].state if id in known else None
        took = any(request["took"] for request in asked[id])
        if state is None or (state not in FINAL | {"unknown"} and not took):
            found.add("lost", id, f"is {state}")
    for id, requests in asked.items():
        for text in _repeated(rig, requests, known.get(id)):
            found.add("twice", id, text)
        if id not in known:
            found.add("sent without a record", id)
    for id, record in known.items():
        for text in unexplained(record):
            found.add("timeline", id, text)
        took = any(request["took"] for request in asked[id])
        reported = any(line.get("why") == "report" for line in record.timeline)
        if record.state in TAKEN and not took and not reported:
            found.add("told as sent, and is not", id)
        if record.state in FINAL - TAKEN and took and not record.resend and not reported:
            found.add("told as not sent, and is", id, record.state)
        if len(asked[id]) > record.attempts:
            found.add("attempts that the ledger does not know", id)
    # What a handler sent is sent once, however often the handler ran.
    answers = Counter(record.context.get("by") for record in known.values())
    for id, record in known.items():
        # Of a send whose answer was lost only a report tells, and not to onSend.
        sent = any(line["state"] == "sent" and not line.get("why") for line in record.timeline)
        wanted = sent and "then" in record.context
        if answers[id] > 1 or (wanted and not answers[id]):
            found.add("sent by a handler", id, f"{answers[id]} times")
    for kind, id, text in (*untold(rig, known), *unmet(rig, known)):
        found.add(kind, id, text)
    _indexes(rig, known, found)
    unknown = [record for record in known.values() if record.state == "unknown"]
    meant = {record.id for record in unknown if _loses(record, asked)}
    for record in unknown:
        if record.id not in meant and not rig.hits.explain(record):
            found.add("unknown without a fault", record.id)
    accepted = int(rig.direct.hget(rig.key("counts"), "accepted") or 0)
    if accepted != len(known):
        found.add("counters", text=f"accepted is {accepted}, messages {len(known)}")
    sends = sum(
        int(n) for k, n in rig.direct.hgetall(rig.key("counts")).items() if k[:9] == "attempts|"
    )
    if sends != sum(record.attempts for record in known.values()):
        found.add("counters", text=f"attempts is {sends}, in the records it is not")
    found.report(known, asked)
    rig.clean = True
    return Figures(
        messages=len(known),
        requests=sum(map(len, asked.values())),
        lost=found.kinds["lost"],
        twice=found.kinds["twice"],
        unknown=len(unknown),
        meant=len(meant),
        unsent=sum(not any(r["took"] for r in asked[record.id]) for record in unknown),
        errors=len(rig.book.errors),
    )


def _repeated(rig: Rig, requests: list[dict[str, Any]], record: Record | None) -> Iterator[str]:
    """Requests that nobody had permitted."""
    attempts = [request["attempt"] for request in requests]
    if len(set(attempts)) < len(attempts):
        yield f"the same attempt again: {attempts}"
    if record is None or record.resend or record.id in rig.book.requeued:
        return
    for before, after in pairwise(requests):
        if not before["refused"]:
            yield f"attempt {after['attempt']} although {before['attempt']} was {before['word']}"


def _loses(record: Record, asked: dict[str, list[dict[str, Any]]]) -> bool:
    return any(request["word"].startswith(LOSES) for request in asked[record.id])


def _indexes(rig: Rig, known: dict[str, Record], found: _Found) -> None:
    """Each message is in the index of its state, and looked at in one place at most."""
    pipe = rig.direct.pipeline(transaction=False)
    due = ("due:send", "due:send_bulk", "due:watch", "due:hook", "due:hook_bulk")
    places = [*(f"state:{s}" for s in STATES), *due, "ends"]
    for place in places:
        pipe.zrange(rig.key(*place.split(":")), 0, -1)
    members = {p: set(ids) for p, ids in zip(places, pipe.execute(), strict=True)}
    for lane in ("due:send", "due:hook"):  # single ones and bulk are looked at alike
        for id in members[lane] & members[f"{lane}_bulk"]:
            found.add("due", id, f"in {lane} twice")
        members[lane] |= members[f"{lane}_bulk"]
    for state in STATES:
        belongs = {id for id, record in known.items() if record.state == state}
        for id in belongs ^ members[f"state:{state}"]:
            found.add("index", id, f"state:{state}")
    for id, record in known.items():
        lane = LANES.get(record.state)
        here = {p for p in ("due:send", "due:watch", "ends") if id in members[p]}
        if record.state in FINAL:
            right = not here  # it is forgotten by the time of its state
        elif record.state in ("unknown", "sent", "accepted"):
            right = len(here) == 1 and here <= {"due:watch", "ends"}
        else:
            right = here == {f"due:{lane}"}
        if not right:
            found.add("due", id, f"is {record.state} and in {sorted(here)}")
    for place in ("due:send", "due:watch", "ends"):
        for id in members[place] - set(known):
            found.add("due", id, f"in {place} without a record")
    for event in members["due:hook"]:
        state = rig.direct.hget(rig.key("event", event), "state")
        if state not in EVENTS:
            found.add("due", event, f"an event in due:hook that is {state}")
