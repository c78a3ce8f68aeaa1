"""Does a timeline tell a possible story?"""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.records import Record

__all__ = ["unexplained"]

_WAITING = {"sending", "retrying", "expired", "cancelled", "failed"}
_OUTCOMES = {"sent", "retrying", "failed", "unknown", "elsewhere"}

#: Which line may follow which. Reports and late outcomes are news, not steps: left out here.
_AFTER = {
    "": {"queued", "scheduled"},
    "queued": _WAITING | {"queued"},
    "scheduled": _WAITING | {"queued"},
    "retrying": _WAITING | {"queued"},
    # A message that has been routed to a paused provider waits without having been called.
    "sending": _OUTCOMES,
    "elsewhere": {"sending", "retrying", "failed", "unknown"},
    # Its worker came back with an outcome, or an operator decided.
    "unknown": _OUTCOMES | {"queued", "accepted", "delivered", "undelivered", "expired"},
    "failed": {"queued"},
    "expired": {"queued"},
    "undelivered": {"queued"},
    "cancelled": set(),
    "sent": set(),
    "accepted": set(),
    "delivered": set(),
}


def unexplained(record: Record) -> Iterator[str]:
    """What in a timeline cannot be; the last step must be the state, unless a report is."""
    before, lapsed, sendings = "", False, 0
    reported: set[str] = set()
    for line in record.timeline:
        state, why = line["state"], line.get("why") or ""
        if why.startswith("report"):
            reported.add(state)
            continue
        if why.startswith("late outcome"):
            continue
        # Given up and not taken by anybody else yet: its worker may still come back with the news.
        came_back = lapsed and state == "sent"
        # Whatever became of the attempt, the network has it.
        told = before in ("sending", "elsewhere") and state in reported
        if "dropped" in line:  # what led here is not known any more
            before = ""
            sendings = line.get("attempt", sendings) - (state == "sending")
        elif state not in _AFTER[before] and not came_back and not told:
            yield f"{state} after {before or 'nothing'}"
        lapsed = "did not report back" in why
        sendings += (state == "sending") * line.get("times", 1)
        if state == "sending" and line["attempt"] != sendings:
            yield f"attempt {line['attempt']} is number {sendings}"
        elif state in _OUTCOMES and line.get("attempt") not in (None, sendings):
            yield f"{state} of attempt {line['attempt']} during attempt {sendings}"
        before = state
    if not reported and before != record.state:
        yield f"ends as {before}, and is {record.state}"
    if sendings != record.attempts:
        yield f"{sendings} attempts, and the record has {record.attempts}"
