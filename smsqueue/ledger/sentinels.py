"""Connections to the primary that Redis's sentinels name, over redis-py's Sentinel client.

redis-py asks the sentinels one after the other, only when it connects, and believes the first one
that answers. So a few sentinels that hang would delay a command by all their time limits, and after
a failover a process would write to the old primary for as long as its connections last. Here all
sentinels are asked at the same time, the newest configuration counts, and connections are used for
a second at most until the sentinels are asked again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from typing import Any, NamedTuple

import redis
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from smsqueue.sentinel_url import SentinelUrl

__all__ = ["PrimaryNotFound", "primary_of"]

#: Seconds after which the sentinels are asked again, although the connections work.
_ASK_AGAIN = 1.0


class PrimaryNotFound(MasterNotFoundError):
    """No sentinel named a primary that works."""


class _Answer(NamedTuple):
    """What a sentinel says of the primary."""

    #: Number of the configuration: it grows with each failover.
    epoch: int
    address: tuple[str, int]
    #: Whether the sentinel reaches it.
    works: bool


class _Sentinels(Sentinel):
    """The sentinels of one primary.

    Args:
        within: Seconds in which they have to answer.
    """

    def __init__(self, url: SentinelUrl, options: Mapping[str, Any], within: float) -> None:
        init: Any = super().__init__  # has no types
        init(url.addresses, sentinel_kwargs=dict(options))
        self._within = within
        self._lock = threading.Lock()
        #: Questions under way, by process id and number of the sentinel.
        self._asking: dict[tuple[int, int], Future[_Answer]] = {}
        #: When they were last asked (monotonic).
        self.asked_at: float | None = None

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's address.

        Raises:
            PrimaryNotFound: no sentinel knows one that works, or none answered in time.
        """
        self.asked_at = time.monotonic()
        deadline = self.asked_at + self._within
        waiting = {self._ask(number, service_name) for number in range(len(self.sentinels))}
        majority, answers, failures = len(self.sentinels) // 2 + 1, list[_Answer](), set[str]()
        while waiting and len(answers) < majority:
            left = deadline - time.monotonic()
            done, waiting = wait(waiting, max(0.0, left), FIRST_COMPLETED)
            for each in done:
                error = each.exception()
                if error is None:
                    answers.append(each.result())
                else:
                    failures.add(_reason(error, service_name))
            if not done:
                failures.add("a sentinel did not answer in time")
                break
        if not answers:
            raise PrimaryNotFound("; ".join(sorted(failures)))
        # A sentinel that is cut off from the others still names the old primary.
        newest = max(answers)
        same = [answer.works for answer in answers if answer.epoch == newest.epoch]
        if 2 * sum(same) < len(same):
            raise PrimaryNotFound("the primary does not answer its sentinels")
        return newest.address

    def _ask(self, number: int, name: str) -> Future[_Answer]:
        """Ask a sentinel in a thread; whoever asks meanwhile gets the same answer."""
        place = (os.getpid(), number)  # the threads of a parent process do not answer
        with self._lock:
            asking = self._asking.get(place)
            if asking is not None:
                return asking
            asking = self._asking[place] = Future()
        thread = threading.Thread(
            target=self._answer, args=(place, name, asking), name="smsqueue-sentinel", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be started
            self._asking.pop(place, None)
            asking.set_exception(redis.exceptions.ConnectionError(str(error)))
        return asking

    def _answer(self, place: tuple[int, int], name: str, asking: Future[_Answer]) -> None:
        try:
            state: Any = self.sentinels[place[1]].sentinel_master(name)
            answer = _Answer(
                epoch=int(state["config-epoch"]),
                address=(state["ip"], int(state["port"])),
                works=not (state["is_sdown"] or state["is_odown"]),
            )
        except BaseException as error:
            self._asking.pop(place, None)
            asking.set_exception(error)
        else:
            self._asking.pop(place, None)
            asking.set_result(answer)


def _reason(error: BaseException, name: str) -> str:
    text = str(error)
    if "No such master" in text:
        return f"the sentinels know no primary called {name!r}: correct master="
    if isinstance(error, redis.exceptions.AuthenticationError) or "NOAUTH" in text:
        return (
            "a sentinel refused the user or password: correct sentinel_username and "
            "sentinel_password"
        )
    if isinstance(error, redis.exceptions.TimeoutError):
        return "a sentinel did not answer in time"
    return text[:120]


class _PrimaryPool(SentinelConnectionPool):
    """Connections to the primary. Idle ones to another server are closed."""

    sentinel_manager: _Sentinels

    def get_connection(self, *args: Any, **options: Any) -> Any:
        asked_at = self.sentinel_manager.asked_at
        if asked_at is not None and time.monotonic() - asked_at > _ASK_AGAIN:
            # The primary may work though its sentinels do not.
            ask: Any = self.get_master_address  # has no types
            with suppress(redis.exceptions.RedisError, OSError):
                ask()
        return super().get_connection(*args, **options)


def primary_of(
    url: SentinelUrl, sentinel_options: Mapping[str, Any], options: Mapping[str, Any]
) -> redis.Redis:
    """A client of the primary, whichever server that is.

    Args:
        sentinel_options: Arguments of redis-py for connections to the sentinels.
        options: Arguments of redis-py for connections to the primary.
    """
    within: float = sentinel_options["socket_timeout"]
    sentinels: Any = _Sentinels(url, sentinel_options, within)
    client: redis.Redis = sentinels.master_for(
        url.master, connection_pool_class=_PrimaryPool, **options
    )
    return client
