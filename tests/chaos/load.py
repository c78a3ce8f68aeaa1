"""Messages, and a caller that does as the manual says: what was not confirmed it sends again."""

from __future__ import annotations

import random
import secrets
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from smsqueue import IncomingMessage, OutgoingMessage, exc

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

__all__ = ["CALM", "MIXED", "Book", "Load", "come_in", "message", "reach", "send", "send_many"]

#: What messages ask of the provider, and how often. Only in MIXED may an answer be lost.
CALM = {"accept": 12, "slow": 4, "busy accept": 2, "503 accept": 1, "no": 1, "429 accept": 1}
MIXED = CALM | {
    "took500": 1, "took502": 1, "took503 accept": 1, "cut": 1, "cutafter": 1,
    "half": 1, "rubbish": 1, "late": 1, "busy busy slow": 1, "307": 1, "accept": 40,
}  # fmt: skip
#: After these the provider may have it and the gateway cannot know.
LOSES = ("took", "slow502", "cut", "half", "rubbish", "late", "huge", "drip", "hang")


@dataclass
class Book:
    """What the callers know."""

    #: Confirmed by ``send()``: id and text.
    sent: dict[str, str] = field(default_factory=dict)
    #: Never confirmed, and not tried again: these may go out, once.
    maybe: dict[str, str] = field(default_factory=dict)
    #: Requeued by an operator since the beginning.
    requeued: set[str] = field(default_factory=set)
    errors: list[exc.QueueUnavailable] = field(default_factory=list)
    #: Sends that were confirmed, one for each call; a repeated key is no new message.
    duplicates: int = 0
    #: Webhooks that were answered 2xx: path and fields.
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def message(dice: random.Random, texts: dict[str, int] = MIXED) -> OutgoingMessage:
    """One of many kinds."""
    text = dice.choices(list(texts), list(texts.values()))[0]
    made = OutgoingMessage(f"1555{dice.randrange(10**6):06d}", text)
    if dice.random() < 0.3:
        made.route(*dice.choice([("a", "b"), ("b", "a"), ("b",)]))
    if dice.random() < 0.05:
        made.options(on_unknown="resend")
    if dice.random() < 0.1:
        made.options(send_at=datetime.now(UTC) + timedelta(seconds=dice.uniform(0.2, 2)))
    if dice.random() < 0.1:
        made.options(expires=dice.uniform(0.02, 10))
    if dice.random() < 0.1:
        made.options(idempotency_key=secrets.token_hex(8))
    if dice.random() < 0.1:
        made.options(context={"then": "accept"})
    return made


def send(rig: Rig, made: OutgoingMessage, *, patience: float = 120.0) -> str | None:
    """Send until it is confirmed, or for as long as the caller's patience lasts."""
    deadline = time.monotonic() + patience
    while True:
        try:
            rig.gateway.send(made)
        except exc.QueueUnavailable as error:
            rig.book.errors.append(error)
            if time.monotonic() >= deadline:
                assert made.unconfirmed_id is not None
                rig.book.maybe[made.unconfirmed_id] = made.body
                return None
            time.sleep(0.05)
        else:
            assert made.id is not None
            rig.book.sent[made.id] = made.body
            rig.book.maybe.pop(made.id, None)
            rig.book.duplicates += made.duplicate
            return made.id


def send_many(rig: Rig, made: list[OutgoingMessage]) -> None:
    """Send a campaign while nothing is wrong."""
    rig.gateway.send_many(made)
    rig.book.sent |= {str(each.id): each.body for each in made}


def come_in(rig: Rig, msgid: str, text: str) -> str:
    """A message comes in from a provider; its event."""
    made = IncomingMessage("15550001", text, msgid=msgid)
    made.provider = "a"
    rig.gateway.receive_message(made)
    return str(made.id)


class Load:
    """Sends messages from a thread of its own while the test breaks things.

    Args:
        seconds: About how long that shall take; 0: as fast as it goes.
        impatient: Share of the callers that give up after an error.
    """

    def __init__(
        self,
        rig: Rig,
        count: int,
        *,
        texts: dict[str, int] = MIXED,
        seconds: float = 0.0,
        impatient: float = 0.05,
    ) -> None:
        self.rig, self.count, self.texts = rig, count, texts
        self.pause, self.impatient = seconds / count, impatient
        self.dice = random.Random(rig.dice.random())
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            for _ in range(self.count):
                made = message(self.dice, self.texts)
                send(self.rig, made, patience=0.0 if self.dice.random() < self.impatient else 120.0)
                if made.id is not None and made.provider_options.idempotency_key:
                    again = OutgoingMessage(made.dst, made.body)
                    again.routing_values = made.routing_values
                    again.options(idempotency_key=made.provider_options.idempotency_key)
                    send(self.rig, again)
                time.sleep(self.pause)
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._thread.join(900)
        assert not self.running, "the load did not end"
        if self._error is not None:
            raise self._error


def reach(
    rig: Rig, moment: str, signum: int = signal.SIGKILL, *, texts: dict[str, int] = CALM
) -> int:
    """Have a worker come to a moment that gives it a signal; its process id."""
    rig.arm(moment, signum)
    deadline = time.monotonic() + 120
    while not rig.reached(moment):
        assert time.monotonic() < deadline, f"nobody came to {moment}"
        with Load(rig, 20, texts=texts):
            if moment.endswith("-half"):  # only a campaign surely makes groups
                send_many(rig, [message(rig.dice, texts) for _ in range(20)])
        while not rig.reached(moment) and rig.open():
            assert time.monotonic() < deadline, f"nobody came to {moment}"
            time.sleep(0.03)
    return rig.reached(moment)
