"""A primary is killed under load. Lost and twice are counted at the provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.failover.rig import FailoverRig, kill_repeatedly


def test_a_killed_primary_loses_and_repeats_nothing(
    make_rig: Callable[..., FailoverRig], publish: Callable[..., Any]
) -> None:
    kill_repeatedly(make_rig(wait_replicas=1), publish, rounds=1)
