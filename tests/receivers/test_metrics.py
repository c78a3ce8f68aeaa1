"""``/metrics``: its token and its values."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
import requests
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from receivers import create_app
from smsqueue import exc
from smsqueue.gateway import Gateway
from smsqueue.settings import Settings, SettingsError
from tests.ledger.bench import Bench, Told
from tests.receivers.plugin import HELLO, NUMBER, PREFIX, TEXT, PluginProvider
from tests.receivers.server import SERVERS, Start, address_of

TOKEN = "t0ken=of/metrics"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
Samples = dict[str, float]


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Loggers as they were."""
    loggers = [logging.getLogger(n) for n in ("gunicorn.access", "gunicorn.error", "werkzeug")]
    before = [logger.filters.copy() for logger in loggers]
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters


@pytest.fixture
def watched(settings: Settings) -> Settings:
    return replace(settings, receiver_prefix=(PREFIX,), metrics_token=TOKEN)


@pytest.fixture
def bench(watched: Settings) -> Iterator[Bench]:
    bench = Bench(watched)
    yield bench
    bench.close()


@pytest.fixture
def a(bench: Bench) -> Told:
    return bench.add("a")


@pytest.fixture
def app(a: Told, bench: Bench) -> Flask:
    bench.gateway.add_provider("main", PluginProvider)
    return create_app(gateway=bench.gateway)


def samples(page: str) -> Samples:
    """Each line of a page: ``name{label="value",...}`` and its value."""
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, "Prometheus refuses a page with a line twice"
            found[name] = sample.value
    return found


def scraped(app: Flask) -> Samples:
    answer = app.test_client().get("/metrics", headers=SHOWN)
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    return samples(answer.text)


def counters(found: Samples) -> Samples:
    """What only grows."""
    return {k: v for k, v in found.items() if k.partition("{")[0].endswith(("_total", "_bucket"))}


# --- who may read it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer tök€n"),
        *(f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}", f"Basic {TOKEN}", TOKEN),
    ],
)
def test_without_the_token_there_is_nothing_to_read(app: Flask, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = app.test_client().get("/metrics", headers=headers)
    assert (answer.status_code, answer.text) == (401, "unauthorized\n")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="metrics"'


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_token_opens_the_page(app: Flask, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    assert app.test_client().get("/metrics", headers=headers).status_code == 200
    assert app.test_client().post("/metrics", headers=headers).status_code == 405


def test_a_token_that_is_not_ascii(bench: Bench, watched: Settings) -> None:
    """Blanks around it, as a file's last line has them, do not count."""
    app = create_app(replace(watched, metrics_token="pässwörd\n"), bench.gateway)
    shown = {"Authorization": "Bearer " + "pässwörd".encode().decode("latin-1")}
    assert app.test_client().get("/metrics", headers=shown).status_code == 200


def test_the_token_opens_what_readyz_says_of_redis(
    app: Flask, bench: Bench, watched: Settings
) -> None:
    client = app.test_client()
    assert client.get("/readyz").text == "ready\n"
    assert client.get("/readyz", headers={"Authorization": "Bearer guessed"}).text == "ready\n"
    ready, server, *risks = client.get("/readyz", headers=SHOWN).text.splitlines()
    assert ready == "ready"
    assert "primary with no replicas, AOF with appendfsync everysec" in server
    assert [risk.partition(": ")[0] for risk in risks] == ["warning", "note"]
    untold = create_app(replace(watched, metrics_token=""), bench.gateway).test_client()
    for headers in ({}, SHOWN, {"Authorization": "Bearer "}):
        assert untold.get("/readyz", headers=headers).text == "ready\n"


@pytest.mark.parametrize("token", ["", " \n"])
def test_without_a_token_there_is_no_page(bench: Bench, watched: Settings, token: str) -> None:
    client = create_app(replace(watched, metrics_token=token), bench.gateway).test_client()
    for headers in ({}, SHOWN, {"Authorization": "Bearer "}):
        page, other = (client.get(path, headers=headers) for path in ("/metrics", "/metrix"))
        assert (page.status_code, page.text) == (404, "not found\n")
        assert (page.text, page.headers) == (other.text, other.headers)


def test_an_eager_gateway_has_nothing_to_show(watched: Settings) -> None:
    app = create_app(gateway=Gateway(replace(watched, eager=True)))
    assert app.test_client().get("/metrics", headers=SHOWN).status_code == 404


def test_refusals_have_a_line_in_the_log(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smsqueue.access")
    app.test_client().get("/metrics", headers=SHOWN)
    app.test_client().get("/metrics", headers={"Authorization": "Bearer guessed"})
    [line] = [r.getMessage() for r in caplog.records if r.name == "smsqueue.access"]
    assert line.startswith("GET metrics 401")
    assert "guessed" not in caplog.text


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, watched: Settings) -> None:
    monkeypatch.delitem(sys.modules, "smsqueue.operation.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SettingsError, match=r"prometheus_client is not installed: pip install"):
        create_app(gateway=Gateway(watched))
    create_app(gateway=Gateway(replace(watched, metrics_token="")))


def test_without_a_token_prometheus_client_is_not_imported() -> None:
    code = (
        "import sys, smsqueue, receivers; from smsqueue import Gateway, Settings; "
        "receivers.create_app(gateway=Gateway(Settings(receiver_prefix=('prefix',), eager=True))); "
        "print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- what it says ------------------------------------------------------------------------------


def test_traffic(bench: Bench, a: Told, app: Flask) -> None:
    before = scraped(app)
    assert before["smsqueue_accepted_total"] == 0
    a.then(None, exc.ServerError(ambiguous=True), exc.CreditError())
    bench.listen()
    ids = [bench.send(TEXT, dst=NUMBER, status_report=True, context={"x": TEXT}) for _ in range(4)]
    for id in ids:
        bench.deliver(id)
    client = app.test_client()
    for _ in range(2):
        assert client.post(f"/{PREFIX}/main/im", json=HELLO).status_code == 200
        assert client.post(f"/{PREFIX}/main/status", data={"id": "nobody"}).status_code == 200
    bench.report("delivered", reference=f"{ids[0]}.1")
    bench.run_hooks()
    assert len(a.calls) == 3

    answer = client.get("/metrics", headers=SHOWN)
    found = samples(answer.text)
    expected = {
        "smsqueue_accepted_total": 4,
        "smsqueue_attempts_total{provider=a}": 3,
        "smsqueue_sent_total{provider=a}": 1,
        "smsqueue_send_seconds_count{provider=a}": 1,
        "smsqueue_send_seconds_bucket{le=+Inf,provider=a}": 1,
        "smsqueue_delivery_seconds_count{provider=a}": 1,
        "smsqueue_errors_total{error=ServerError,provider=a,verdict=unknown}": 1,
        "smsqueue_errors_total{error=CreditError,provider=a,verdict=retry}": 1,
        "smsqueue_ended_total{error=ServerError,provider=a,state=unknown}": 1,
        "smsqueue_ended_total{error=,provider=a,state=delivered}": 1,
        "smsqueue_reports_total{outcome=matched,provider=a,state=delivered}": 1,
        "smsqueue_reports_total{outcome=parked,provider=main,state=delivered}": 1,
        "smsqueue_reports_total{outcome=repeated,provider=main,state=delivered}": 1,
        "smsqueue_incoming_total{outcome=recorded,provider=main}": 2,
        "smsqueue_hooks_total{kind=received,outcome=unheard}": 2,
        "smsqueue_hooks_total{kind=status,outcome=done}": 1,
        "smsqueue_hooks_total{kind=status,outcome=dead}": 0,
        "smsqueue_pauses_total{error=CreditError,provider=a}": 1,
        "smsqueue_paused{error=CreditError,provider=a}": 1,
        "smsqueue_lapses_total{provider=a}": 0,
        "smsqueue_requeued_total": 0,
        "smsqueue_messages{state=retrying}": 1,
        "smsqueue_messages{state=queued}": 1,  # its provider is paused
        "smsqueue_messages{state=unknown}": 1,
        "smsqueue_messages{state=delivered}": 1,
        "smsqueue_events{state=unheard}": 2,
        "smsqueue_events{state=parked}": 1,
        "smsqueue_triggers{queue=send}": bench.published(),
        "smsqueue_workers{queue=send}": 0,
        "smsqueue_redis_aof_enabled": 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert 0 < found["smsqueue_pause_left_seconds{provider=a}"] <= 60
    assert found["smsqueue_redis_memory_used_bytes"] > 0
    for secret in (NUMBER, TEXT, PREFIX, TOKEN, *ids, *bench.events(), bench.settings.redis_url):
        assert secret not in answer.text


def test_a_pause_that_is_over_stays_until_the_provider_worked(
    bench: Bench, a: Told, app: Flask
) -> None:
    a.then(exc.AuthError())
    id = bench.send()
    bench.deliver(id)
    bench.unpause("a")
    assert scraped(app)["smsqueue_paused{error=AuthError,provider=a}"] == 1
    assert scraped(app)["smsqueue_pause_left_seconds{provider=a}"] == 0
    bench.ripe(id)
    bench.deliver(id)
    found = scraped(app)
    assert found["smsqueue_paused{error=,provider=a}"] == 0
    assert "smsqueue_paused{error=AuthError,provider=a}" not in found


def test_a_histogram_rises_to_its_count(bench: Bench, app: Flask) -> None:
    counts = {"took|sent|a|0.1": 2, "took|sent|a|10": 3, "took|sent|a|3": 1, "took|sent|a|+Inf": 4}
    bench.redis.hset(bench.key("counts"), mapping=counts | {"took_ms|sent|a": 1500})
    found = scraped(app)
    rising = {
        name.partition("le=")[2].partition(",")[0]: value
        for name, value in found.items()
        if name.startswith("smsqueue_send_seconds_bucket")
    }
    assert rising == {
        **{"0.1": 2, "0.25": 2, "0.5": 2, "1.0": 2, "2.5": 2, "3.0": 3, "5.0": 3, "10.0": 6},
        **{"30.0": 6, "60.0": 6, "300.0": 6, "1800.0": 6, "7200.0": 6, "+Inf": 10},
    }
    assert found["smsqueue_send_seconds_count{provider=a}"] == 10
    assert found["smsqueue_send_seconds_sum{provider=a}"] == 1.5
    assert found["smsqueue_sent_total{provider=a}"] == 10


def test_backlog_and_workers(bench: Bench, app: Flask) -> None:
    ns = bench.settings.namespace
    for _ in range(3):
        bench.send()
    waiting = bench.send()
    now = bench.now()
    bench.redis.zadd(bench.key("due", "send"), {waiting: now - 90_000})
    bench.redis.zadd(bench.key("state", "queued"), {waiting: now - 100_000})
    for name, queues in (("w1", ["send", "hook"]), ("w2", ["send"]), ("gone", ["hook"])):
        told = {"queues": [f"{ns}.{queue}" for queue in queues], "concurrency": 1, "version": "1"}
        if name != "w2":  # an older version
            told |= {"memory": 1 << 20, "uptime": 3, "build": "b1", "python": "3.12.1"}
            told |= {"slots": {"a": [3, 32, 250]}, "handlers": [2, 8, 8]}
        bench.ledger.record_heartbeat(name, told)
    seen = bench.redis.hget(bench.key("workers"), "gone")
    assert isinstance(seen, str)
    bench.redis.hset(bench.key("workers"), "gone", f"{now - 60_000} {seen.partition(' ')[2]}")
    found = scraped(app)
    assert found["smsqueue_due{lane=send}"] == 1
    assert 90 <= found["smsqueue_due_oldest_seconds{lane=send}"] < 190
    assert 100 <= found["smsqueue_queued_oldest_seconds"] < 200
    assert found["smsqueue_due{lane=hook}"] == found["smsqueue_due_oldest_seconds{lane=hook}"] == 0
    assert found["smsqueue_triggers{queue=send}"] == 4
    assert found["smsqueue_workers{queue=send}"] == 2
    assert found["smsqueue_workers{queue=hook}"] == 1
    # A worker that is gone has no lines.
    about = {name: value for name, value in found.items() if "worker=" in name}
    assert about == {
        "smsqueue_worker_info{build=b1,python=3.12.1,version=1,worker=w1}": 1,
        "smsqueue_worker_info{build=,python=,version=1,worker=w2}": 1,
        "smsqueue_worker_memory_bytes{worker=w1}": 1 << 20,
        "smsqueue_worker_uptime_seconds{worker=w1}": 3,
        "smsqueue_slots_in_use{provider=a,worker=w1}": 3,
        "smsqueue_slots_limit{provider=a,worker=w1}": 32,
        "smsqueue_handlers_running{worker=w1}": 2,
    }


def test_rates_and_recent_errors(bench: Bench, a: Told, app: Flask) -> None:
    def age_samples(seconds: float) -> None:
        for sample in bench.redis.zrange(bench.key("samples"), 0, -1):
            bench.redis.zadd(bench.key("samples"), {sample: bench.now() - seconds * 1000})

    a.then(exc.ServerError())
    bench.deliver(bench.send())
    assert not [name for name in scraped(app) if "recent" in name or "per_second" in name]
    bench.ledger.record_heartbeat("w", {"queues": []})  # takes a sample
    age_samples(930)
    routed = bench.send_by("a")
    bench.gateway.router = lambda message, *values: 1 // 0
    bench.deliver(routed)
    found = scraped(app)
    assert found["smsqueue_recent_errors{error=ServerError,provider=a}"] == 0
    assert found["smsqueue_recent_errors{error=ZeroDivisionError,provider=}"] == 1
    assert found["smsqueue_messages_per_second{kind=accepted}"] == pytest.approx(1 / 930, rel=0.1)
    assert found["smsqueue_backlog_left_seconds"] == float("inf")
    for name in ("queued", "retrying"):
        bench.redis.delete(bench.key("state", name))
    assert scraped(app)["smsqueue_backlog_left_seconds"] == 0


def test_odd_names_do_not_break_the_page(bench: Bench, app: Flask) -> None:
    odd = 'quo"te\nline\\n {} é'
    fields = [f"attempts|{odd}", f"errors|{odd}|{odd}|retry", f"took|sent|{odd}|10"]
    misfits = ["attempts|a|b", "attempts|a|b|c", "errors|a|b", "took|sent|a|b|10", "later|x"]
    bench.redis.hset(bench.key("counts"), mapping=dict.fromkeys([*fields, *misfits], 1))
    found = scraped(app)
    assert found[f"smsqueue_attempts_total{{provider={odd}}}"] == 1
    assert found[f"smsqueue_errors_total{{error={odd},provider={odd},verdict=retry}}"] == 1
    assert found[f"smsqueue_sent_total{{provider={odd}}}"] == 1
    assert len([name for name in found if name.startswith("smsqueue_attempts_total")]) == 1


# --- Redis -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_redis_away(
    redis_server: Callable[..., Any],
    watched: Settings,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = redis_server()
    client = create_app(gateway=Gateway(replace(watched, redis_url=server.url))).test_client()
    assert client.get("/metrics", headers=SHOWN).status_code == 200
    server.stop() if how == "stopped" else server.process.send_signal(signal.SIGSTOP)
    answer = client.get("/metrics", headers=SHOWN)
    cause = "ConnectionError" if how == "stopped" else "TimeoutError"
    assert (answer.status_code, answer.text) == (503, f"not available: {cause}\n")
    assert "Traceback" not in caplog.text
    assert client.get("/metrics").status_code == 401
    server.start() if how == "stopped" else server.process.send_signal(signal.SIGCONT)
    assert client.get("/metrics", headers=SHOWN).status_code == 200


def test_a_scrape_is_cheap(
    redis_server: Callable[..., Any], watched: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of round trips does not depend on how much there is."""
    gateway = Gateway(replace(watched, redis_url=redis_server().url))
    app, trips = create_app(gateway=gateway), 0
    write = redis.Connection.send_packed_command

    def noted(*args: Any, **more: Any) -> None:
        nonlocal trips
        trips += 1
        write(*args, **more)

    def size_and_trips() -> tuple[int, int]:
        before = trips
        return len(scraped(app)), trips - before

    size_and_trips()  # connects
    monkeypatch.setattr(redis.Connection, "send_packed_command", noted)
    few, alone = size_and_trips()
    fields = []
    for name in (f"provider-{n}" for n in range(50)):
        fields += [f"attempts|{name}", f"took_ms|sent|{name}", f"took|sent|{name}|10"]
        fields += [f"errors|{name}|{error}|retry" for error in ("ServerError", "LimitsError")]
        fields += [f"ended|{state}|{name}|" for state in ("failed", "delivered", "undelivered")]
        gateway.ledger.redis.sadd(f"{watched.namespace}:pauses", name)
        gateway.ledger.redis.hset(f"{watched.namespace}:pause:{name}", "until", 1)
    gateway.ledger.redis.hset(f"{watched.namespace}:counts", mapping=dict.fromkeys(fields, 7))
    many, together = size_and_trips()
    assert many > few + 50 * 30
    assert alone <= together <= 22
    told: Any = gateway.ledger.redis.info("commandstats")
    assert not {"cmdstat_keys", "cmdstat_scan"} & told.keys()
    gateway.close()


def test_two_instances_say_the_same_and_remember_it(
    start: Start, redis_url: str, settings: Settings
) -> None:
    environment = {
        "SMSQUEUE_EAGER": "0",
        "SMSQUEUE_REDIS_URL": redis_url,
        "SMSQUEUE_NAMESPACE": settings.namespace,
        "SMSQUEUE_METRICS_TOKEN": TOKEN,
    }

    def begin() -> list[tuple[Any, str]]:
        servers = [start(SERVERS["receivers"], **environment) for _ in range(2)]
        return [(server, address_of(server)) for server in servers]

    def read(address: str) -> Samples:
        answer = requests.get(f"{address}/metrics", headers=SHOWN, timeout=30)
        assert answer.status_code == 200
        return counters(samples(answer.text))

    servers = begin()
    for n, (_, address) in enumerate(servers):
        for _ in range(n + 1):
            requests.post(f"{address}/{PREFIX}/main/im", json=HELLO, timeout=30)
    first, second = (read(address) for _, address in servers)
    assert first == second
    assert first["smsqueue_incoming_total{outcome=recorded,provider=main}"] == 3
    for server, _ in servers:
        assert TOKEN not in server.end()
    assert [read(address) for _, address in begin()] == [first, first]
