"""A campaign with a tag, and the commands that follow and stop it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smsqueue import Gateway


def test_a_campaign_is_followed_searched_and_stopped(
    gateway: Gateway, recipe: Callable[..., Any]
) -> None:
    campaign = recipe("A campaign")
    for _ in range(2):  # nothing is sent twice
        assert campaign.run("campaign.py") == "50 of 50 wait\n"

    def command(*arguments: str) -> str:
        """What ``smsqueue ARGUMENTS`` prints."""
        return str(campaign.run("-c", "from smsqueue.cli import main; main()", *arguments))

    shown = command("status", "--tag", "black-friday")
    assert shown.startswith("black-friday: 50 of 50 messages wait to be sent")
    [record] = gateway.find(context={"customer": 17})
    assert record.id in command("find", "--tag", "black-friday", "--context", "customer=17")
    waiting = ("--state", "queued", "--state", "retrying")
    command("cancel", "--tag", "black-friday", *waiting, "--yes")
    assert gateway.progress("black-friday").states == {"cancelled": 50}
