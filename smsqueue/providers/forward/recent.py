"""What an eager gateway was asked lately. It keeps no ledger, so this process remembers."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from smsqueue import exc

__all__ = ["Recent"]

T = TypeVar("T")

#: Seconds that an answer is remembered, and how many are.
_KEEP = 3600.0
_MOST = 10_000


class _Running:
    """Stands for an answer that is not there yet."""


class Recent(Generic[T]):
    """Answers by what was asked for. A refusal is forgotten: it may be tried again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[float, T | exc.ProviderError | _Running]] = (
            OrderedDict()
        )

    def once(self, key: Hashable | None, work: Callable[[], T], *, repeated: bool = False) -> T:
        """Do a piece of work, unless it was done for this key before; None is no key.

        Args:
            repeated: It was asked for before, so it is not done if the key is not known here.

        Raises:
            ServerError: ambiguous; the same is being done right now, or was asked of a process
                that is not this one.
        """
        if key is None:
            return work()
        with self._lock:
            now = time.monotonic()
            self._forget(now)
            _, before = self._known.get(key, (now, None))
            if before is None and repeated:
                raise exc.ServerError("not known here", code="not known", ambiguous=True)
            if before is None:
                self._known[key] = (now, _Running())
        if isinstance(before, _Running):
            raise exc.ServerError("the same is being done right now", ambiguous=True)
        if isinstance(before, exc.ProviderError):
            raise before
        return before if before is not None else self._work(key, work)

    def _work(self, key: Hashable, work: Callable[[], T]) -> T:
        outcome: T | exc.ProviderError | None = None
        try:
            outcome = work()
            return outcome
        except exc.ProviderError as error:
            outcome = error if error.ambiguous else None
            raise
        finally:
            with self._lock:
                if outcome is None:
                    self._known.pop(key, None)
                else:
                    self._known[key] = (time.monotonic(), outcome)

    def _forget(self, now: float) -> None:
        while self._known:
            since, _ = next(iter(self._known.values()))
            if len(self._known) <= _MOST and now - since < _KEEP:
                break
            self._known.popitem(last=False)
