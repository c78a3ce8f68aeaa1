"""The client of the stub provider: what the benchmark asks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import requests

from smsqueue.stack import StackError

__all__ = ["Provider", "State", "rate"]

#: Seconds without a new request after which a run counts as stuck.
_STUCK = 30.0
#: Seconds between two questions to the stub: rare, as they cost it time.
_INTERVAL = 0.25


class State(NamedTuple):
    """Numbers of requests since the last :meth:`Provider.clear`."""

    requests: int
    answered: int
    #: Requests for a message that had come before.
    repeated: int
    #: Requests of single messages, refused ones too.
    single_requests: int


class Provider:
    """Talks to a running stub."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy

    def _call(self, method: str, path: str) -> Any:
        answer = self._session.request(method, f"{self.url}/{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def answers(self) -> bool:
        """Is the stub up?"""
        try:
            self.state()
        except requests.RequestException:
            return False
        return True

    def state(self) -> State:
        """How many requests came."""
        return State(**self._call("GET", "state"))

    def times(self) -> list[float]:
        """When the requests came, in seconds of ``time.monotonic()``."""
        times: list[float] = self._call("GET", "times")
        return times

    def singles(self) -> dict[str, float]:
        """When messages came and were taken whose text begins with "single ", by text."""
        singles: dict[str, float] = self._call("GET", "singles")
        return singles

    def clear(self) -> None:
        """Forget all requests."""
        self._call("DELETE", "")

    def hold(self) -> None:
        """Keep the answers back until :meth:`release`."""
        self._call("POST", "hold")

    def release(self) -> None:
        """Send the answers that were kept back."""
        self._call("POST", "release")

    def wait_for_answers(self, count: int, alive: Callable[[], None]) -> None:
        """Wait until so many messages were answered.

        Args:
            alive: Called now and then; raises if what sends has ended.

        Raises:
            StackError: no request came for half a minute, or a message came twice.
        """
        last, since = State(0, 0, 0, 0), time.monotonic()
        while last.answered < count:
            time.sleep(_INTERVAL)
            alive()
            state = self.state()
            if state != last:
                last, since = state, time.monotonic()
            elif time.monotonic() - since > _STUCK:
                raise StackError(f"only {state.answered} of {count} messages were sent")
        if last.repeated or last.requests > count:
            raise StackError(f"{last.requests} requests came for {count} messages")


def rate(times: list[float], *, since: float = 0.0) -> float:
    """Requests per second, without the first and the last tenth, in which the workers start and
    run out of messages.

    Args:
        since: Requests that came earlier do not count (``time.monotonic()``).

    Raises:
        StackError: most requests came earlier.
    """
    counted = [moment for moment in times if moment >= since]
    if len(counted) * 2 < len(times):
        raise StackError(
            f"{len(times) - len(counted)} of {len(times)} messages were sent before all that is "
            "measured was ready: more of them are needed"
        )
    first, last = len(counted) // 10, len(counted) - len(counted) // 10 - 1
    return (last - first) / (counted[last] - counted[first])
