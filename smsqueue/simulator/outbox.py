"""Posts webhooks, later and again: as carriers do, until they are answered 2xx."""

from __future__ import annotations

import heapq
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from smsqueue.logs import get_logger
from smsqueue.providers.simulator import SIGNATURE_HEADER, sign

__all__ = ["Dialect", "Outbox"]

#: How often one webhook is tried, and the longest pause between, in seconds: a minute in all.
TRIES = 16
LONGEST_PAUSE = 5.0
TIMEOUT = 5.0
#: Webhooks that are posted at once.
THREADS = 8

_log = get_logger(__name__)


#: Of a kind and payload, the account's base address and the token: address, headers and body.
Dialect = Callable[[str, Mapping[str, Any], str, str], tuple[str, dict[str, str], bytes]]


@dataclass(frozen=True)
class _Webhook:
    account: str
    kind: str
    payload: Mapping[str, Any] = field(repr=False)
    tried: int = 0


def _own(
    kind: str, payload: Mapping[str, Any], base: str, token: str
) -> tuple[str, dict[str, str], bytes]:
    """The simulator's own dialect: signed JSON."""
    body = json.dumps(payload).encode()
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: sign(token, body)}
    return f"{base.rstrip('/')}/{kind}", headers, body


class Outbox:
    """The webhooks that are still to be posted.

    Args:
        webhooks: Base address of each account's webhooks; ``/im`` and ``/status`` are appended.
            An account without one gets none.
        token: What webhooks are signed with.
        dialects: Of payloads that name one in their field ``dialect``.
    """

    def __init__(
        self,
        webhooks: Mapping[str, str],
        token: str,
        dialects: Mapping[str, Dialect] | None = None,
    ) -> None:
        self._webhooks = webhooks
        self._dialects = dialects or {}
        self._token = token
        self._session = requests.Session()
        self._session.trust_env = False  # webhooks go to this machine, by no proxy
        self._session.mount("http://", HTTPAdapter(pool_maxsize=THREADS * 2))
        self._due: list[tuple[float, int, _Webhook]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(THREADS, "webhook")
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def post(self, account: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Post a webhook now and wait for its answer; if that is not 2xx, repeat it later."""
        self._post(_Webhook(account, kind, payload))

    def schedule(self, delay: float, account: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Post a webhook in ``delay`` seconds."""
        self._put(delay, _Webhook(account, kind, payload))

    def close(self) -> None:
        """Post nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        self._session.close()

    def _put(self, delay: float, webhook: _Webhook) -> None:
        with self._changed:
            entry = (time.monotonic() + delay, next(self._order), webhook)
            heapq.heappush(self._due, entry)
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                else:
                    self._pool.submit(self._post, heapq.heappop(self._due)[2])

    def _post(self, webhook: _Webhook) -> None:
        base = self._webhooks.get(webhook.account)
        if base is None:
            return
        dialect = self._dialects.get(webhook.payload.get("dialect", ""), _own)
        url, headers, body = dialect(webhook.kind, webhook.payload, base, self._token)
        try:
            with self._session.post(
                url,
                data=body,
                headers=headers,
                timeout=TIMEOUT,
                allow_redirects=False,
            ) as answer:
                outcome = "" if 200 <= answer.status_code < 300 else str(answer.status_code)
        except requests.RequestException as error:
            outcome = type(error).__name__
        if outcome:
            self._again(webhook, outcome)

    def _again(self, webhook: _Webhook, outcome: str) -> None:
        tried = webhook.tried + 1
        if tried >= TRIES:
            _log.warning("webhook %s given up after %d tries: %s", webhook.kind, tried, outcome)
            return
        if tried == 1:
            _log.info("webhook %s not taken: %s; repeating it", webhook.kind, outcome)
        again = _Webhook(webhook.account, webhook.kind, webhook.payload, tried)
        self._put(min(0.1 * 2**tried, LONGEST_PAUSE), again)
