"""Changing the receivers' prefix loses no webhook, by the procedure of docs/deploy/README.md."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator

import pytest
import requests

from smsqueue import Gateway, Settings
from smsqueue.message.states import EventState
from smsqueue.providers.simulator import SIGNATURE_HEADER, sign
from tests.deploy.compose import Compose, until
from tests.deploy.conftest import Make


class Carrier:
    """A provider behind a proxy: it posts one message after the other to the address that it
    was told, and repeats what was refused, cut off or answered 5xx. What was answered 4xx it
    gives up, as many providers do."""

    def __init__(self, urls: list[str], prefix: str) -> None:
        self.urls, self.prefix = urls, prefix
        self.posted = self.acknowledged = self.repeats = 0
        self.given_up: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Carrier:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            for number in itertools.count(1):
                if self._stop.is_set():
                    return
                self.posted = number
                self._deliver(session, number, self.prefix)

    def _deliver(self, session: requests.Session, number: int, prefix: str) -> None:
        body = json.dumps({"from": "15557654321", "text": str(number), "id": f"m{number}"}).encode()
        headers = {SIGNATURE_HEADER: sign("simulator", body)}
        # As a proxy does: one after the other, and the next one if one does not take it.
        for url in itertools.islice(itertools.cycle(self.urls), number % 2, None):
            try:
                status = session.post(
                    f"{url}/{prefix}/main/im", data=body, headers=headers, timeout=10
                ).status_code
            except requests.RequestException:
                status = 503
            if status < 300:
                self.acknowledged += 1
                return
            if status < 500:
                self.given_up.append(number)
                return
            self.repeats += 1
            if self._stop.wait(0.01):
                return

    def go_on(self) -> None:
        """Wait until some more were taken, all of them posted after this was called."""
        enough = self.acknowledged + len(self.given_up) + 20
        until(lambda: self.acknowledged + len(self.given_up) >= enough)


class Rolling:
    """Two processes of the receivers, restarted one after the other."""

    def __init__(self, make: Make, prefix: str) -> None:
        self.make = make
        self.both = [self._start(prefix), self._start(prefix)]
        for each in self.both:
            each.see_healthy("receivers")

    def _start(self, prefix: str, ports: dict[tuple[str, int], int] | None = None) -> Compose:
        made = self.make(SMSQUEUE_RECEIVER_PREFIX=prefix, SMSQUEUE_NAMESPACE="rolling")
        made.ports |= ports or {}
        made.run("receivers")
        return made

    @property
    def urls(self) -> list[str]:
        return [each.url("receivers") for each in self.both]

    def restart(self, prefix: str) -> None:
        for i, old in enumerate(self.both):
            old.running["receivers"].stop()
            self.both[i] = self._start(prefix, old.ports)
            self.both[i].see_healthy("receivers")


@pytest.fixture
def rolling(another: Make) -> Rolling:
    return Rolling(another, "old-prefix")


@pytest.fixture
def gateway(rolling: Rolling) -> Iterator[Gateway]:
    settings = Settings.from_mapping(rolling.both[0].environment("receivers"))
    with Gateway(settings) as made:
        yield made


def test_changing_the_prefix_loses_no_webhook(rolling: Rolling, gateway: Gateway) -> None:
    with Carrier(rolling.urls, "old-prefix") as carrier:
        carrier.go_on()
        rolling.restart("new-prefix,old-prefix")  # 1. the receivers know both
        carrier.go_on()
        carrier.prefix = "new-prefix"  # 2. the provider is told
        carrier.go_on()  # 3. what it still repeats to the old address comes through
        rolling.restart("new-prefix")  # 4. the receivers forget the old one
        carrier.go_on()

    assert carrier.given_up == []
    assert carrier.repeats > 0  # there was something to lose
    # The last one may have been interrupted by the end of the test.
    assert carrier.posted - carrier.acknowledged in (0, 1)
    events = gateway.ledger.ids_in(EventState.WAITING, limit=carrier.posted + 1)
    texts = [json.loads((gateway.ledger.read_event(e) or {})["data"])["body"] for e in events]
    assert len(texts) == len(set(texts))  # each once, though some were repeated
    assert set(map(str, range(1, carrier.acknowledged + 1))) <= set(texts)
    assert requests.post(f"{rolling.urls[0]}/old-prefix/main/im", timeout=30).status_code == 404
