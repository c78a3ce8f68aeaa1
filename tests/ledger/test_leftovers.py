"""Whatever a provider's plugin leaves in a message or in its error, the outcome counts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from smsqueue import OutgoingMessage, exc
from tests.ledger.bench import Bench

CIRCLE: dict[str, Any] = {}
CIRCLE["again"] = CIRCLE
DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]


class Mute:
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


LEFT: dict[str, dict[str, Any]] = {
    "keys that are no texts": {"meta": {("a", "b"): 1}},
    "a circle": {"meta": CIRCLE},
    "nested too deeply": {"meta": DEEP},
    "what cannot be shown": {"meta": {"a": Mute()}},
    "an id that cannot be shown": {"msgid": Mute()},
    "the name of another provider": {"provider": "its own"},
    "no name": {"provider": None},
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_what_the_provider_took_is_sent(bench: Bench, left: dict[str, Any]) -> None:
    def leave(message: OutgoingMessage) -> None:
        for name, value in left.items():
            setattr(message, name, value)

    heard: list[tuple[str | None, Any]] = []
    bench.gateway.onSend.connect(lambda m: heard.append((m.provider, m.msgid)), name="heard")
    a = bench.add("a", leave)
    id = bench.send(on_unknown="resend")
    bench.deliver(id)
    bench.run_hooks()
    assert (bench.state(id), len(a.calls)) == ("sent", 1)
    [(provider, msgid)] = heard
    assert provider == "a"
    assert (msgid is None) == ("msgid" in left)
    if msgid:
        bench.report("delivered", msgid=msgid)
        assert bench.state(id) == "delivered"


@pytest.mark.parametrize("wait", [math.nan, math.inf, "soon", True, -5.0, 1e12, 10**400])
def test_a_wait_that_is_none_is_not_waited_for(bench: Bench, wait: Any) -> None:
    bench.add("a", exc.LimitsError("slow", retry_after=wait))
    id = bench.send()
    bench.deliver(id)
    assert bench.state(id) == "retrying"
    assert [pause.left <= 86400 for pause in bench.ledger.pauses()] == [True]
