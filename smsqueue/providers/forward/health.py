"""How a client fared lately, so that a dead one does not hold the threads of the living."""

from __future__ import annotations

import threading
import time

from smsqueue import exc

__all__ = ["Health"]

_SHORTEST, _LONGEST = 1.0, 60.0


class Health:
    """After a failure the client is not called for a while; then one call at a time tries."""

    def __init__(self, deadline: float) -> None:
        self._lock = threading.Lock()
        self._deadline = deadline
        self._failures = 0
        self._until = 0.0
        #: The class of the last failure, which is that of a call which is not made for it.
        self.last_failure: type[exc.ProviderError] = exc.ConnectionError

    def may_call(self) -> bool:
        """May it be called now? Whoever is told yes has to report how it went."""
        with self._lock:
            now = time.monotonic()
            if now < self._until:
                return False
            if self._failures:
                self._until = now + self._deadline
            return True

    def report(self, *, well: bool, failure: type[exc.ProviderError] = exc.ProviderError) -> None:
        """Note how a call went."""
        with self._lock:
            if well:
                self._failures, self._until = 0, 0.0
                return
            self.last_failure = failure
            pause = min(_LONGEST, _SHORTEST * 2 ** min(self._failures, 16))
            self._failures += 1
            self._until = time.monotonic() + pause
