"""Pools of senders."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from smsqueue import Gateway, IProvider, OutgoingMessage, exc
from smsqueue.policy.senders import SenderPool

POOL = ["+15550001111", "+15550002222", "Shop"]
RECIPIENTS = [f"1555{n:07}" for n in range(3000)]


def test_a_recipient_keeps_its_sender() -> None:
    pool, again = SenderPool("a", POOL), SenderPool("a", POOL[::-1])
    chosen = [pool.sender_for(number) for number in RECIPIENTS]
    assert [again.sender_for(number) for number in RECIPIENTS] == chosen
    assert all(800 < share < 1200 for share in Counter(chosen).values())


def test_another_sender_takes_only_its_share() -> None:
    before, after = SenderPool("a", POOL), SenderPool("a", [*POOL, "+15550003333"])
    moved = [n for n in RECIPIENTS if before.sender_for(n) != after.sender_for(n)]
    assert {after.sender_for(number) for number in moved} == {"+15550003333"}
    assert len(moved) < len(RECIPIENTS) / 3


class Recording(IProvider):
    """Records the senders, and refuses if its name says so."""

    def __init__(self, gateway: Any, name: str) -> None:
        super().__init__(gateway, name)
        self.senders: list[str | None] = []

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        self.senders.append(message.src)
        if self.name == "full":
            raise exc.LimitsError("no")
        return message


def test_the_pool_is_for_messages_without_a_sender() -> None:
    gateway = Gateway(eager=True)
    provider: Any = gateway.add_provider("a", Recording, sender_pool=POOL)
    gateway.send(OutgoingMessage("15550001", "hi"))
    gateway.send(OutgoingMessage("15550001", "hi", src="+15559999"))
    gateway.send(OutgoingMessage("15550001", "hi").options(senderId="Mine"))
    first, second, third = provider.senders
    assert first in POOL
    assert (second, third) == ("+15559999", None)


def test_the_next_provider_of_a_route_has_its_own_pool() -> None:
    gateway = Gateway(eager=True)
    full: Any = gateway.add_provider("full", Recording, sender_pool=POOL)
    other: Any = gateway.add_provider("other", Recording)
    gateway.router = lambda message: ["full", "other"]
    gateway.send(OutgoingMessage("15550001", "hi").route())
    assert full.senders[0] in POOL
    assert other.senders == [None]


def test_a_pool_that_is_no_list_is_refused() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="must be a list, not int"):
        Gateway(eager=True).add_provider("a", Recording, sender_pool=wrong)


@pytest.mark.parametrize("pool", [[], ["+15550001", "+15550001"], ["!"], ""], ids=str)
def test_invalid_pools_are_refused(pool: Any) -> None:
    with pytest.raises(ValueError, match="sender_pool of the provider 'a'"):
        Gateway(eager=True).add_provider("a", Recording, sender_pool=pool)
