"""A carrier that posts webhooks to the receivers, and repeats each until it is answered 2xx."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

__all__ = ["STATES", "Carrier", "Webhooks", "incoming"]

#: What a report may say.
STATES = ("accepted", "expired", "undelivered", "delivered")
#: Seconds after which a carrier takes silence for no answer, and gives up repeating.
_SILENCE, _PATIENCE = 20.0, 300.0


def incoming(name: str, text: str = "YES") -> tuple[str, dict[str, Any]]:
    """The webhook of an incoming message; its name is the provider's id."""
    return "a/im", {"from": "15550001", "text": text, "id": name}


class Carrier:
    """Posts webhooks. What was answered 2xx is in the rig's book."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.answers: Counter[int] = Counter()
        if rig.receivers is None:
            rig.start_receivers()

    def post(self, path: str, fields: dict[str, Any]) -> int:
        """Once; the status, 0: no answer."""
        url = f"{self.rig.receivers_url}/hidden/{path}"
        try:
            status = requests.post(url, json=fields, timeout=_SILENCE).status_code
        except requests.RequestException:
            status = 0
        self.answers[status] += 1
        if 200 <= status < 300:
            self.rig.book.told.append((path, fields))
        return status

    def tell(self, path: str, fields: dict[str, Any]) -> None:
        """Until it was taken."""
        deadline = time.monotonic() + _PATIENCE
        while not 200 <= (last := self.post(path, fields)) < 300:
            assert last in (0, 503), f"{path} was answered {last}"
            assert time.monotonic() < deadline, f"{path} was never taken: {last}"
            time.sleep(0.05)

    def told(self, some: int, all_: list[Future[None]]) -> bool:
        """Were more than some answered, or all?"""
        return self.answers[204] > some or all(each.done() for each in all_)

    def heard(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.rig.heard() if line["kind"] == kind]


class Webhooks:
    """Incoming messages and delivery reports, for as long as its block runs.

    Of what the provider takes some is reported on: any of the four states, in any order, by our
    reference or by the provider's id, before and after the send is settled. Some webhooks are
    repeated although they were answered, and some reports are about nothing that was ever sent.

    Args:
        share: Of the messages taken, how many are reported on.
        every: Seconds between two incoming messages.
    """

    def __init__(self, rig: Rig, *, share: float = 0.3, every: float = 0.2) -> None:
        self.rig, self.share, self.every = rig, share, every
        self.carrier = Carrier(rig)
        self.dice = random.Random(rig.dice.random())
        self._seen = len(rig.asked())
        self._over = threading.Event()
        self._told: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(8)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _post(self, path: str, fields: dict[str, Any]) -> None:
        for _ in range(self.dice.choice([1, 1, 1, 2])):  # carriers repeat what was answered, too
            self._told.append(self._pool.submit(self.carrier.tell, path, fields))

    def _report(self, request: dict[str, Any]) -> None:
        reference, account = f"{request['id']}.{request['attempt']}", request["account"]
        fields: dict[str, Any] = {"id": f"{account}-{reference}"}
        if self.dice.random() < 0.5:
            fields["reference"] = reference
        for state in self.dice.sample(STATES, self.dice.randint(1, len(STATES))):
            self._post(f"{account}/status", fields | {"state": state})

    def _news(self) -> None:
        """Report on some of what was taken since the last look."""
        asked = self.rig.asked()
        for request in asked[self._seen :]:
            if request["took"] and self.dice.random() < self.share:
                self._report(request)
        self._seen = len(asked)

    def _run(self) -> None:
        while not self._over.wait(self.every):
            self._post(*incoming(secrets.token_hex(8), self.dice.choice(["YES", "STOP", "?"])))
            if self.dice.random() < 0.1:
                nobody = {"id": f"nobody-{secrets.token_hex(8)}", "state": "delivered"}
                self._post("a/status", nobody)
            self._news()

    def __enter__(self) -> Webhooks:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()
        try:
            for each in self._told:
                each.result()
        finally:
            self._pool.shutdown(cancel_futures=True)
