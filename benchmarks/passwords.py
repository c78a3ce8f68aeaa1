"""One-time passwords: how long a single message takes from ``send()`` to the provider, alone and
while a campaign is sent, at its first attempt and when that was refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import mean, median

from benchmarks.celery_workers import Workers, start_workers
from benchmarks.measured_figures import Figure, absolute, compared, middle_of
from benchmarks.resources import redis_memory
from benchmarks.run_samples import Recorder
from benchmarks.sending import messages
from benchmarks.stage import Stage, connected
from benchmarks.stub_client import Provider
from smsqueue import Gateway, OutgoingMessage
from smsqueue.settings import Settings
from smsqueue.stack import RedisServer, StackError

__all__ = ["measure_passwords"]

#: Seconds between two passwords, and between two whose first attempt is to be refused while
#: nothing else waits.
_APART, _FAR_APART = 0.05, 0.5
#: Messages that are sent between two of the latter: a provider that refuses most of what it gets
#: is called less, and paused.
_OTHERS = 5
#: Messages of a campaign after which the passwords begin.
_BEGUN = 200
#: Seconds without a request at the provider after which a run counts as stuck.
_STUCK, _INTERVAL = 60.0, 0.25


def measure_passwords(stage: Stage) -> Iterator[Figure]:
    """One worker with its default settings. Latencies are in milliseconds."""
    run = _Run(stage, stage.redis(), stage.provider())
    campaign = stage.size(20_000, 4000)
    accepted, refused = stage.size(60, 15), stage.size(30, 10)
    with Gateway(Settings(redis_url=run.server.url)) as gateway:
        stage.told("nothing else waits")
        run.start_worker()
        run.send(gateway, "warm", 10, _APART)
        alone, _ = run.send(gateway, "alone", accepted, _APART)
        stage.told("nothing else waits, first attempt refused")
        refused_alone, _ = run.send(
            gateway, "refused alone", 2 * refused, _FAR_APART, others=_OTHERS
        )
        stage.told(f"a campaign of {campaign}")
        run.begin_campaign(gateway, campaign, "Passwords during a campaign")
        during, left = run.send(gateway, "during", accepted, _APART)
        stage.told(f"a campaign of {campaign}, first attempt refused")
        title = "Passwords during a campaign, first attempt refused"
        run.begin_campaign(gateway, campaign, title)
        refused_during, refused_left = run.send(gateway, "refused during", refused, 2 * _APART)
        run.end_worker(gateway)
    yield absolute(
        "single",
        "single message",
        "p50 from the call of send() to the provider, nothing else waits",
        "ms",
        [median(alone)],
        at_most=5,
        notes={"max, ms": middle_of([max(alone)]), "messages": accepted},
    )
    notes = {"campaign": campaign, "of it left at the end": left, "messages": accepted}
    for name, of in (("p50", median), ("max", max)):
        yield absolute(
            f"password_{name}",
            f"password, {name}",
            f"{name} from send() to the provider during a campaign, beside the same without one",
            "ms",
            [of(during)],
            at_most={"p50": 50, "max": 250}[name],
            notes={"without a campaign, ms": middle_of([of(alone)])} | notes,
        )
    yield compared(
        "password_refused",
        "password refused once",
        "mean from send() until the provider takes it at the second attempt, during a campaign, "
        "beside the same without one",
        "ms",
        [(mean(refused_during), mean(refused_alone))],
        at_most=1.2,
        notes={
            "p50, ms": middle_of(refused_during),
            "max, ms": middle_of([max(refused_during)]),
            "without a campaign: p50, ms": middle_of(refused_alone),
            "without a campaign: max, ms": middle_of([max(refused_alone)]),
            "campaign": campaign,
            "of it left at the end": refused_left,
            "messages during the campaign": refused,
            "messages without one": 2 * refused,
        },
    )


class _Run:
    """A worker, and what was sent."""

    workers: Workers

    def __init__(self, stage: Stage, server: RedisServer, provider: Provider) -> None:
        self.stage, self.server, self.provider = stage, server, provider
        self.client = connected(server)
        #: Messages of the campaign; 0: there is none.
        self.campaign = 0
        self.recorder: Recorder | None = None
        #: Of single messages: when send() was called, and milliseconds until the provider had it.
        self.latencies: list[tuple[float, float]] = []

    def start_worker(self) -> None:
        """Start the worker."""
        self.workers = start_workers(
            self.stage,
            "workers",
            {
                "SMSQUEUE_REDIS_URL": self.server.url,
                "SMSQUEUE_GATEWAY": "benchmarks.gateways:sending",
                "BENCH_STUB": self.provider.url,
            },
        )

    def end_worker(self, gateway: Gateway) -> None:
        """End the worker; a campaign of which a picture is made is sent to its end first."""
        if self.recorder:
            self._send_to_the_end(gateway)
            self.stage.keep(self.recorder.stop(self.provider.times(), self.latencies))
        self.recorder, self.latencies = None, []
        self.workers.end(self.stage)

    def _send_to_the_end(self, gateway: Gateway) -> None:
        """Send passwords until the campaign is over; they are drawn, and counted in no figure."""
        called: dict[str, float] = {}
        last, since = self._left(), time.monotonic()
        while (left := self._left()) > 0:
            self.workers.check()
            text = f"single later {len(called)}"
            called[text] = time.monotonic()
            gateway.send(OutgoingMessage(f"+1778{len(called):07}", text))
            if left < last:
                last, since = left, time.monotonic()
            elif time.monotonic() - since > _STUCK:
                raise StackError(f"{left} messages of the campaign are not sent")
            time.sleep(_INTERVAL)
        taken = self._wait(called)
        self.latencies += [(at, 1000 * (taken[text] - at)) for text, at in called.items()]

    def begin_campaign(self, gateway: Gateway, count: int, title: str) -> None:
        """Put a campaign in and start a new worker; returns when some of it was sent."""
        self.end_worker(gateway)
        self.client.flushall()
        self.provider.clear()
        gateway.send_many(messages(count))
        self.campaign = count
        self.start_worker()
        self.recorder = self.stage.record(
            title,
            {
                "Redis": lambda: redis_memory(self.client),
                "worker, RSS": self.workers.resident_bytes,
            },
        )
        deadline = time.monotonic() + _STUCK
        while self.provider.state().requests < _BEGUN:
            self.workers.check()
            if time.monotonic() > deadline:
                raise StackError(f"the campaign does not begin\n{self.workers.processes[0].tail()}")
            time.sleep(0.01)

    def send(
        self, gateway: Gateway, kind: str, count: int, apart: float, *, others: int = 0
    ) -> tuple[list[float], int]:
        """Send single messages, some seconds apart, and wait until the provider has taken all.

        Args:
            others: So many messages are sent between two of them.

        Returns:
            Milliseconds that each took, and how many messages of the campaign were left when the
            last one was taken.

        Raises:
            StackError: the campaign was over before the last one was sent.
        """
        called: dict[str, float] = {}
        began = time.monotonic()
        for i in range(count):
            for j in range(others + 1):
                _sleep_until(began + apart * (i + j / (others + 1)))
                text = f"{kind}, other {i}.{j}" if j else f"single {kind} {i}"
                message = OutgoingMessage(f"+1777{i:07}", text)
                if not j:
                    called[text] = time.monotonic()
                gateway.send(message)
        if self.campaign and self._left() == 0:
            raise StackError("the campaign was over before all passwords were sent: make it larger")
        taken = self._wait(called)
        latencies = [(at, 1000 * (taken[text] - at)) for text, at in called.items()]
        self.latencies += latencies
        return [milliseconds for _, milliseconds in latencies], self._left()

    def _left(self) -> int:
        state = self.provider.state()
        return max(0, self.campaign - (state.requests - state.single_requests))

    def _wait(self, called: dict[str, float]) -> dict[str, float]:
        """When the provider took these messages."""
        requests, since = 0, time.monotonic()
        while True:
            taken = self.provider.singles()
            if taken.keys() >= called.keys():
                return taken
            self.workers.check()
            now = self.provider.state().requests
            if now > requests:
                requests, since = now, time.monotonic()
            elif time.monotonic() - since > _STUCK:
                missing = len(called.keys() - taken.keys())
                raise StackError(f"{missing} of {len(called)} single messages never came")
            time.sleep(_INTERVAL)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
