"""Deduplication for eager gateways, which have no ledger: by this process only."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from smsqueue import exc

__all__ = ["RecentResults"]

T = TypeVar("T")


class _Running:
    """Stands for a result that is not known yet."""


class RecentResults(Generic[T]):
    """Results of recent requests by key. An error is kept only if it is ambiguous.

    Args:
        keep_seconds: How long a result is kept.
        limit: Results kept at most; the oldest are dropped first.
        clock: Returns seconds.
    """

    def __init__(
        self,
        keep_seconds: float = 3600.0,
        limit: int = 10_000,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keep_seconds = keep_seconds
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._results: OrderedDict[Hashable, tuple[float, T | exc.ProviderError | _Running]] = (
            OrderedDict()
        )

    def run_once(self, key: Hashable | None, run: Callable[[], T], *, repeated: bool = False) -> T:
        """Call ``run``, or return its earlier result for this key; None: always call it.

        Args:
            repeated: The request is a repetition; it is not run if its key is not known here.

        Raises:
            ServerError: ambiguous; the same request is running, or another process ran it.
        """
        if key is None:
            return run()
        with self._lock:
            now = self._clock()
            self._drop_old(now)
            _, result = self._results.get(key, (now, None))
            if result is None and repeated:
                raise exc.ServerError(
                    "a repeated request that this process does not know",
                    code="not known",
                    ambiguous=True,
                )
            if result is None:
                self._results[key] = (now, _Running())
        if isinstance(result, _Running):
            raise exc.ServerError("the same request is running", ambiguous=True)
        if isinstance(result, exc.ProviderError):
            raise result
        return result if result is not None else self._run(key, run)

    def _run(self, key: Hashable, run: Callable[[], T]) -> T:
        result: T | exc.ProviderError | None = None
        try:
            result = run()
            return result
        except exc.ProviderError as error:
            result = error if error.ambiguous else None
            raise
        finally:
            with self._lock:
                if result is None:
                    self._results.pop(key, None)
                else:
                    self._results[key] = (self._clock(), result)

    def _drop_old(self, now: float) -> None:
        while self._results:
            since, _ = next(iter(self._results.values()))
            if len(self._results) <= self._limit and now - since < self._keep_seconds:
                break
            self._results.popitem(last=False)
