"""Posts the simulator's webhooks after a delay, and repeats them until they are answered 2xx."""

from __future__ import annotations

import heapq
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from smsqueue.logs import get_logger
from smsqueue.providers.simulator import SIGNATURE_HEADER, sign

__all__ = ["Dialect", "WebhookDelivery"]

#: Attempts for each webhook; with these pauses they take about a minute.
_MAX_ATTEMPTS = 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_TIMEOUT_S = 5.0
#: Webhooks that are posted at the same time.
_THREADS = 8

_log = get_logger(__name__)

#: Takes kind, payload, the account's base URL and the token; returns URL, headers and body.
Dialect = Callable[[str, Mapping[str, Any], str, str], tuple[str, dict[str, str], bytes]]


@dataclass(frozen=True)
class _Webhook:
    account: str
    kind: str
    payload: Mapping[str, Any] = field(repr=False)
    attempts: int = 0


def _own_dialect(
    kind: str, payload: Mapping[str, Any], base: str, token: str
) -> tuple[str, dict[str, str], bytes]:
    """Signed JSON."""
    body = json.dumps(payload).encode()
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: sign(token, body)}
    return f"{base.rstrip('/')}/{kind}", headers, body


class WebhookDelivery:
    """Posts webhooks in threads.

    Args:
        webhooks: Base URL of each account's webhooks; ``/im`` and ``/status`` are appended. Nothing
            is posted for an account without one.
        token: Key of the signatures.
        dialects: By the name in the field ``dialect`` of the payload.
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
        self._session.trust_env = False  # no proxy: webhooks go to this machine
        self._session.mount("http://", HTTPAdapter(pool_maxsize=_THREADS * 2))
        self._due: list[tuple[float, int, _Webhook]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(_THREADS, "webhook")
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def post(self, account: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Post a webhook and wait for its answer; if that is not 2xx, repeat it later."""
        self._post(_Webhook(account, kind, payload))

    def schedule(self, delay: float, account: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Post a webhook in ``delay`` seconds."""
        self._schedule(delay, _Webhook(account, kind, payload))

    def close(self) -> None:
        """Stop posting; scheduled webhooks are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        self._session.close()

    def _schedule(self, delay: float, webhook: _Webhook) -> None:
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
        dialect = self._dialects.get(webhook.payload.get("dialect", ""), _own_dialect)
        url, headers, body = dialect(webhook.kind, webhook.payload, base, self._token)
        try:
            with self._session.post(
                url,
                data=body,
                headers=headers,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
            ) as answer:
                failure = "" if 200 <= answer.status_code < 300 else str(answer.status_code)
        except requests.RequestException as error:
            failure = type(error).__name__
        if failure:
            self._repeat(webhook, failure)

    def _repeat(self, webhook: _Webhook, failure: str) -> None:
        attempts = webhook.attempts + 1
        if attempts >= _MAX_ATTEMPTS:
            _log.warning(
                "webhook %s dropped after %d attempts: %s", webhook.kind, attempts, failure
            )
            return
        if attempts == 1:
            _log.info("webhook %s failed: %s; repeating it", webhook.kind, failure)
        pause = min(_FIRST_PAUSE_S * 2 ** (attempts - 1), _LONGEST_PAUSE_S)
        self._schedule(pause, replace(webhook, attempts=attempts))
