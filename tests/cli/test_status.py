"""smsqueue status"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from hashlib import sha256

import pytest

from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.ledger import AttemptOutcome
from smsqueue.ledger.acl import ROLES, user_line

PERSONAL = ("15551234567", "secret")


def _first(result) -> str:
    return result.stdout.splitlines()[0]


def _age(gateway: Gateway, *key: str, seconds: float) -> None:
    """Make the members of a sorted set older."""
    name = ":".join((gateway.settings.namespace, *key))
    redis = gateway.ledger.redis
    for id, score in redis.zrange(name, 0, -1, withscores=True):
        redis.zadd(name, {id: score - seconds * 1000})


def test_no_problem(run, run_json, live, make, settings: Settings) -> None:
    live()
    make("queued")
    make("sent")
    make("failed", error="RequestError", code="21211")
    result = run("status")
    assert _first(result) == "OK: 1 message waits, 1 worker"
    assert "problems" not in result.stdout
    for text in ("1 queued", "1 failed", "celery@host/1", "1 RequestError", "0.1.0", "AOF"):
        assert text in result.stdout
    document = run_json("status")
    assert (document["status"], document["exit_code"], document["problems"]) == ("OK", 0, [])
    assert document["messages"] == {
        **{"queued": 1, "scheduled": 0, "retrying": 0, "sending": 0, "unknown": 0, "failed": 1},
    }
    assert document["backlog"]["send"] == {"due": 0, "oldest": 0.0, "held": 1}
    assert set(document["queues"]) == {settings.send_queue, settings.hook_queue}
    assert document["events"] == {"waiting": 1, "running": 0, "dead": 0, "unheard": 0}
    [provider] = document["providers"]
    assert provider == {
        **{"name": "main", "attempts": 2, "sent": 1, "errors": {"RequestError": 1}},
        **{"recent": None, "sent_per_second": None, "slots": None, "paused": None},
    }
    # An old version sends no more than this with its heartbeats.
    [worker] = document["workers"]
    assert (worker["alive"], worker["slots"], worker["version"]) == (True, 8, "0.1.0")
    assert (worker["memory"], worker["build"], worker["slots_in_use"]) == (None, None, {})
    assert document["redis"]["aof"] is True
    for word in PERSONAL:
        assert word not in result.stdout + str(document)


def test_no_worker_is_a_warning_while_nothing_waits(run, settings: Settings) -> None:
    result = run("status", code=1)
    queues = f"{settings.send_queue} and {settings.hook_queue}"
    assert _first(result) == f"WARNING: no worker is consuming {queues}"
    options = f"-Q {settings.send_queue},{settings.hook_queue}"
    assert f"start one with: celery -A workers worker {options}" in result.stdout


@pytest.mark.parametrize(("waits", "missing"), [("queued", "send"), ("waiting", "hook")])
def test_no_worker_is_critical_if_something_waits(
    run, live, make, settings, waits: str, missing: str
) -> None:
    queues = {"send": settings.send_queue, "hook": settings.hook_queue}
    live(*(queue for name, queue in queues.items() if name != missing))
    run("status", code=1)
    make(waits)
    result = run("status", code=2)
    assert _first(result) == f"CRITICAL: no worker is consuming {queues[missing]}"
    assert f"start one with: celery -A workers worker -Q {queues[missing]}\n" in result.stdout


def test_workers_that_do_not_keep_up(run, live, make, gateway: Gateway) -> None:
    live()
    make("queued")
    make("waiting")
    _age(gateway, "due", "send", seconds=500)
    _age(gateway, "due", "hook", seconds=800)
    result = run("status", code=1)
    assert (
        "1 message is overdue by up to 7 min: the workers do not keep up: start more"
        in result.stdout
    )
    assert "1 event is overdue by up to 12 min: the workers do not keep up" in result.stdout
    run("status", "--max-oldest", "1000")


def test_a_message_that_is_not_claimed(run, live, make, gateway: Gateway) -> None:
    live()
    make("queued")
    _age(gateway, "state", "queued", seconds=400)
    text = "the oldest queued message has waited for 6 min: the workers do not keep up"
    assert text in run("status", code=1).stdout
    # While its provider is paused, it must wait.
    make("retrying", error="LimitsError", pause_ms=60_000, pause_max_ms=60_000)
    run("status")


def test_the_oldest_event_is_measured_from_its_beginning(
    run, run_json, live, make, gateway: Gateway
) -> None:
    live()
    event = make("waiting")
    run("status")
    hash = f"{gateway.settings.namespace}:event:{event}"
    gateway.ledger.redis.hincrby(hash, "since", -400_000)
    # Claims, retries and delays do not change its age.
    for verdict in ("back", "retry"):
        gateway.ledger.claim_event(event, verdict, "w")
        text = "the oldest event has waited for its handlers for 6 min: they fail, hang or are too"
        assert text in run("status", code=1).stdout
        gateway.ledger.settle_event(event, verdict, verdict, delay=0, why="")
        gateway.ledger.postpone_event(event, 60)
        result = run("status", code=1)
        assert _first(result) == "WARNING: the oldest event has waited for its handlers for 6 min"
        assert 400 <= run_json("status", code=1)["oldest_event"] < 500
    gateway.ledger.claim_event(event, "end", "w")
    gateway.ledger.settle_event(event, "end", "done", delay=0, why="")
    run("status")


def test_events_whose_handlers_run_are_counted(run, run_json, live, make, gateway: Gateway) -> None:
    live()
    gateway.ledger.claim_event(make("waiting"), "token", "w")
    text = run("status").stdout
    assert "0 waiting, 1 running, 0 dead, 0 unheard" in text
    assert run_json("status")["events"]["running"] == 1


def test_messages_that_wait_for_paused_providers(run, live, make, gateway: Gateway) -> None:
    live()
    make("queued")
    assert "paused" not in _first(run("status"))
    for name in ("main", "backup"):
        make("retrying", name, error="ServerError", pause_ms=60_000, pause_max_ms=600_000)
    waits = "3 messages wait while backup and main are paused"
    result = run("status")
    assert _first(result) == f"OK: {waits}, 1 worker"
    assert result.stdout.count(waits) == 2
    make("unknown", "third")
    assert _first(run("status", code=1)) == f"WARNING: 1 message is unknown; {waits}"
    for name in ("main", "backup"):
        gateway.ledger.redis.hset(f"{gateway.settings.namespace}:pause:{name}", "until", 1)
    assert "paused" not in _first(run("status", code=1))


def test_calls_that_do_not_end(run, run_json, live, gateway: Gateway, settings: Settings) -> None:
    queues = (settings.send_queue, settings.hook_queue)
    report = {"queues": queues, "concurrency": 8, "version": "0.1.0"}
    gateway.ledger.record_heartbeat("celery@host/1", report | {"hung": {"handler": 8, "router": 1}})
    result = run("status", code=1)
    assert _first(result) == (
        "WARNING: worker celery@host/1 has calls that do not end (8 of handler, 1 of router)"
    )
    [worker] = run_json("status", code=1)["workers"]
    assert worker["hung_calls"] == {"handler": 8, "router": 1}


def test_leases_that_do_not_end(run, live, make, gateway: Gateway) -> None:
    live()
    make("sending")
    _age(gateway, "due", "watch", seconds=1000)
    assert "look for 'upkeep failed' in the workers' logs" in run("status", code=1).stdout


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("unknown", "1 message is unknown"),
        ("dead", "1 event is dead"),
        ("unheard", "1 incoming message is unheard"),
    ],
)
def test_unresolved_messages_and_events_are_problems(
    run, run_json, live, make, gateway, state, text
) -> None:
    live()
    make(state)
    result = run("status", code=1)
    assert _first(result) == f"WARNING: {text}"
    assert f"{text}: smsqueue list --state {state}\n" in result.stdout
    run("status", "--since", "1h", code=1)
    _age(gateway, "state", state, seconds=7200)
    run("status", code=1)
    document = run_json("status", "--since", "1h")
    assert document["messages" if state == "unknown" else "events"][state] == 1


@pytest.mark.parametrize(
    ("error", "code", "do"),
    [
        ("CreditError", 1, "top up the account"),
        ("AuthError", 1, "correct the credentials"),
        ("LimitsError", 0, "it ends by itself"),
        ("ConnectionError", 0, "it ends by itself"),
    ],
)
def test_a_paused_provider(run, run_json, live, make, gateway, error, code, do) -> None:
    live()
    make("retrying", error=error, pause_ms=60_000, pause_max_ms=600_000)
    text = run("status", code=code).stdout
    assert do in text
    assert ("provider main is paused" in text) == bool(code)
    [provider] = run_json("status", code=code)["providers"]
    paused = provider["paused"]
    assert (paused["error"], paused["times"], paused["do"]) == (error, 1, do)
    assert datetime.fromisoformat(paused["until"]).tzinfo
    assert 0 < paused["left"] <= 60
    # Many pauses in a row do not seem to end by themselves.
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:pause:main", "times", 6)
    assert f"provider main is paused ({error}, 6 in a row)" in run("status", code=1).stdout
    # The pause is over, but no message was sent since.
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:pause:main", "until", 1)
    text = run("status", code=1).stdout
    assert "over: the next message tries again" in text
    assert f"provider main was paused ({error}, 6 in a row): {do}" in text


def _lose(gateway: Gateway, name: str, *queues: str, seconds: float = 200) -> None:
    """Record the last heartbeat of a worker that was killed."""
    report = json.dumps({"queues": queues, "concurrency": 8, "version": "0.1.0"})
    seen = int((time.time() - seconds) * 1000)
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:workers", name, f"{seen} {report}")


def test_a_lost_worker_is_not_shown_if_another_consumes_its_queues(
    run, run_json, live, make, gateway, settings
) -> None:
    _lose(gateway, "other/2", settings.send_queue, settings.hook_queue)
    make("queued")
    result = run("status", code=2)
    assert _first(result) == (
        f"CRITICAL: no worker is consuming {settings.send_queue} and {settings.hook_queue}, "
        "and 1 more problem"
    )
    assert "WARNING  worker other/2 has sent no heartbeat for 3 min: look into its log" in (
        result.stdout
    )
    live()  # consumes the same queues
    result = run("status")
    assert _first(result).endswith(", 1 worker")
    assert "other/2" not in result.stdout
    assert [worker["name"] for worker in run_json("status")["workers"]] == ["celery@host/1"]


def test_lost_workers_are_one_problem(run, live, gateway: Gateway) -> None:
    live()
    for number in range(40):
        _lose(gateway, f"other/{number}", "special", seconds=200 + 100 * number)
    assert _first(run("status", code=1)) == (
        "WARNING: 40 workers were lost within an hour, the last was other/0 3 min ago"
    )


def test_a_damaged_heartbeat_hides_no_other(run, run_json, live, gateway: Gateway) -> None:
    live()
    queues = json.dumps([gateway.settings.send_queue])
    now = int(time.time() * 1000)
    entries = {
        "w/1": "zzz",
        "w/2": f"{'9' * 400} {{}}",
        "w/3": f"{now} []",
        # What can be read is shown.
        "w/4": f'{now} {{"queues": {queues}, "threads": "x", "memory": [], "slots": {{"a": 1}}}}',
        # Redis's clock was set back since.
        "w/5": f"{now + 3_600_000} {{}}",
    }
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:workers", mapping=entries)
    assert "w/4" in run("status").stdout
    names = [worker["name"] for worker in run_json("status")["workers"]]
    assert names == ["celery@host/1", "w/4"]


# --- rates, slots, builds --------------------------------------------------------------------


def test_rates_and_the_errors_of_the_last_quarter_of_an_hour(
    run, run_json, live, make, gateway: Gateway
) -> None:
    live()  # takes a sample of nothing
    _age(gateway, "samples", seconds=40 * 60)
    make("failed", error="RequestError")
    assert re.search("1 RequestError +1 RequestError", run("status").stdout)
    live()
    _age(gateway, "samples", seconds=15.5 * 60)
    for _ in range(3):
        make("sent")
    make("failed", error="CreditError")
    document = run_json("status")
    [provider] = document["providers"]
    assert provider["errors"] == {"RequestError": 1, "CreditError": 1}
    assert provider["recent"] == {"attempts": 4, "sent": 3, "errors": {"CreditError": 1}}
    text = run("status").stdout
    assert "errors in 15 min" in text
    assert "1 CreditError" in text
    # No worker has taken a sample since: the rate is that of all the time since.
    assert document["rates"]["seconds"] >= 15.5 * 60
    assert document["rates"]["sent"] == round(3 / document["rates"]["seconds"], 3)


@pytest.mark.parametrize(
    ("before", "now", "sent", "text", "direction"),
    [
        (0, 0, 1, "none waits to be sent", "empty"),
        (40, 10, 0, "10 messages wait: gone in about 20 s", "shrinking"),
        (10, 40, 0, "40 messages wait: growing by 0.5/s", "growing"),
        (10, 12, 6, "12 messages wait: steady, as many come as go", "steady"),
        (10, 10, 0, "10 messages wait: none has left in the last 60 s", "stuck"),
    ],
)
def test_where_the_backlog_is_heading(
    run, run_json, live, make, gateway: Gateway, before, now, sent, text, direction
) -> None:
    live()
    for _ in range(sent):
        make("sent")
    for _ in range(now):
        make("queued")
    samples = f"{gateway.settings.namespace}:samples"
    gateway.ledger.redis.delete(samples)
    sample = json.dumps({"waiting": before, "counts": {}})
    gateway.ledger.redis.zadd(samples, {f"1 {sample}": time.time() * 1000 - 60_000})
    result = run("status")
    assert text in result.stdout
    trend = {"shrinking": " (gone in about 20 s)", "growing": " (growing by 0.5/s)"}
    waits = "message waits" if now == 1 else "messages wait"
    assert _first(result) == f"OK: {now} {waits}{trend.get(direction, '')}, 1 worker"
    waiting = run_json("status")["waiting"]
    assert (waiting["messages"], waiting["direction"]) == (now, direction)
    assert (waiting["seconds_left"] is None) == (direction in ("growing", "steady", "stuck"))


@pytest.mark.parametrize("sample", ["zzz", "1 []", '1 {"counts": {"accepted": []}}', "1 {}"])
def test_a_damaged_sample(run, live, make, gateway: Gateway, sample: str) -> None:
    live()
    make("queued")
    samples = f"{gateway.settings.namespace}:samples"
    gateway.ledger.redis.zadd(samples, {sample: time.time() * 1000 - 60_000})
    assert "1 message waits: how long is not known yet" in run("status").stdout


def test_an_account_that_may_not_read_samples(run, live, redis_server, settings: Settings) -> None:
    """The ACL file is that of an older version."""
    server = redis_server()
    with Gateway(replace(settings, redis_url=server.url)) as gateway:
        queues = [settings.send_queue, settings.hook_queue]
        gateway.ledger.record_heartbeat("w", {"queues": queues, "concurrency": 1, "version": "1"})
        [monitor] = [role for role in ROLES if role.name == "monitor"]
        line = user_line(monitor, settings.namespace, 0, sha256(b"pw").hexdigest())
        _, name, *rules = line.replace(f" ~{settings.namespace}:samples", "").split()
        gateway.ledger.redis.execute_command("ACL", "SETUSER", name, *rules)
        url = server.url.replace("redis://", f"redis://{name}:pw@")
        text = run("status", SMSQUEUE_REDIS_URL=url).stdout
        assert "rates are not known: this account may not read them, see smsqueue acl" in text


def test_errors_of_the_router(run, run_json, live, make, gateway: Gateway) -> None:
    live()
    _age(gateway, "samples", seconds=16 * 60)
    id = make("queued")
    gateway.ledger.claim(id, "token", lease=60, worker="w")
    outcome = AttemptOutcome("retry", error="ValueError", why="at shop.py:1", delay_ms=60_000)
    gateway.ledger.settle(id, "token", 0, outcome)
    assert re.search(r"\(router\) +1 ValueError +1 ValueError", run("status", code=1).stdout)
    router = run_json("status", code=1)["router"]
    assert router == {"errors": {"ValueError": 1}, "recent": {"ValueError": 1}}


def test_slots_memory_and_builds(run, run_json, gateway: Gateway, settings: Settings) -> None:
    report = {
        "queues": [settings.send_queue, settings.hook_queue],
        **{"concurrency": 8, "version": "1.0", "python": "3.12.1", "uptime": 7260},
    }
    for number in range(3):
        more = {
            "build": "0badcafe" if number else "5eed5eed",
            "memory": (number + 1) << 20,
            "slots": {"main": [10, 40, 250], "idle": [0, 32, 32]},
            "handlers": [number, 8, 8],
        }
        gateway.ledger.record_heartbeat(f"w/{number}", report | more)
    text = run("status").stdout
    assert "slots     30 of 216 (at most 846)" in re.sub(r"  +", "     ", text)
    assert "30 of 120 (at most 750)" in text  # of the provider
    assert text.count(" 10 of 72 ") == 3  # of each worker
    assert "2 of 8" in text  # handlers
    assert "1 worker of 1.0 5eed5eed Python 3.12.1, 2 workers of 1.0 0badcafe Python 3.12.1" in text
    assert "3.0 MB" in text
    assert "2 h" in text
    document = run_json("status")
    assert document["slots"] == {"in_use": 30, "limit": 216, "most": 846}
    names = {provider["name"]: provider["slots"] for provider in document["providers"]}
    assert names["main"] == {"in_use": 30, "limit": 120, "most": 750}
    assert re.search(r"^idle +0 +0 +\? +0 of 96", text, re.M)  # it was never called
    worker = document["workers"][2]
    assert worker["slots_in_use"]["main"] == {"in_use": 10, "limit": 40, "most": 250}
    assert (worker["memory"], worker["build"], worker["python"]) == (3 << 20, "0badcafe", "3.12.1")
    assert worker["handlers"] == {"in_use": 2, "limit": 8, "most": 8}


def test_times_have_a_zone_and_milliseconds(run, run_json, live) -> None:
    live()
    assert re.search(
        r"^time +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d *$", run("status").stdout, re.M
    )
    assert re.fullmatch(r"[-\dT:]{19}\.\d{3}\+00:00", run_json("status")["time"])


def test_the_clock_of_redis_is_wrong(run, run_json, live, monkeypatch) -> None:
    live()
    assert abs(run_json("status")["redis"]["clock_ahead"]) < 30
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 150)
    text = run("status", code=1).stdout
    assert "the clock of Redis is 2 min ahead of this machine's: synchronize both" in text
    assert " 0 s ago" in text  # ages do not depend on this machine's clock


def test_redis_does_not_answer(run) -> None:
    url = "redis://:hidden@127.0.0.1:1/0"
    result = run("status", code=2, SMSQUEUE_REDIS_URL=url)
    assert result.stdout == "CRITICAL: Redis does not answer\n"
    assert result.stderr.startswith(
        "CRITICAL: Redis at redis://***@127.0.0.1:1/0 cannot be reached"
    )
    assert len(result.stderr.splitlines()) == 1
    result = run("status", "--json", code=2, SMSQUEUE_REDIS_URL=url)
    document = json.loads(result.stdout)
    assert (document["status"], document["exit_code"], document["workers"]) == ("CRITICAL", 2, None)
    assert "start it" in document["problems"][0]["do"]
    assert "hidden" not in result.output


def test_an_invalid_setting(run) -> None:
    result = run("status", code=3, SMSQUEUE_NAMESPACE="a b")
    assert _first(result).startswith("UNKNOWN: ")
    assert "SMSQUEUE_NAMESPACE" in result.stderr
    run("status", "--since", "tomorrow", code=2)


def test_redis_would_lose_messages(run, redis_server, settings: Settings) -> None:
    url = redis_server("--appendonly", "no", "--maxmemory-policy", "allkeys-lru").url
    text = run("status", code=1, SMSQUEUE_REDIS_URL=url).stdout
    assert "has no AOF: accepted messages are lost when it stops" in text
    assert "Set noeviction" in text


@pytest.mark.parametrize(
    ("part", "code", "refused"),
    [
        (0.5, 0, ""),
        (0.75, 1, ""),
        (0.85, 2, "webhooks are refused, except reports of accepted messages: "),
        (0.95, 2, "new messages are refused, "),
    ],
)
def test_redis_is_filling_up(run, redis_server: Callable, settings, part, code, refused) -> None:
    url = redis_server().url
    with Gateway(replace(settings, redis_url=url)) as gateway:
        queues = [settings.send_queue, settings.hook_queue]
        # SETRANGE, as the buffer of a long SET would count as used memory and be freed at any time.
        gateway.ledger.redis.setrange("much", 50_000_000, "x")
        gateway.ledger.record_heartbeat(
            "w", {"queues": queues, "concurrency": 8, "version": "0.1.0"}
        )
        gateway.ledger.redis.config_set("maxmemory", int(gateway.ledger.server().used / part))
        text = run("status", code=code, SMSQUEUE_REDIS_URL=url).stdout
        assert ("accepted messages still need" in text) == bool(code)
        assert (f"CRITICAL: {refused}Redis uses" in text) == (code == 2)
        assert ("raise its maxmemory" in text) == bool(code)


def test_status_check_and_send_agree_on_what_is_refused(
    run, live, redis_server: Callable, settings: Settings
) -> None:
    """Half of the memory is in use, waiting messages need the other half."""
    url = redis_server().url
    there = {"SMSQUEUE_REDIS_URL": url}
    with Gateway(replace(settings, redis_url=url)) as gateway:
        queues = [settings.send_queue, settings.hook_queue]
        gateway.ledger.record_heartbeat(
            "w", {"queues": queues, "concurrency": 8, "version": "0.1.0"}
        )
        for n in range(64):
            gateway.send(OutgoingMessage(f"1555{n:07}", "hello").options(status_report=True))
        gateway.ledger.redis.config_set("maxmemory", 1_000_000_000)
        room = gateway.ledger.room()
        gateway.ledger.redis.config_set("maxmemory", room.used + room.reserved)
        assert room.used < 0.6 * (room.used + room.reserved)
        with pytest.raises(exc.QueueUnavailable, match="new messages are refused"):
            gateway.send(OutgoingMessage("15550001", "no"))
        text = run("status", code=2, **there).stdout
        assert _first(run("status", code=2, **there)).startswith(
            "CRITICAL: new messages are refused, Redis uses "
        )
        assert "raise its maxmemory, or wait until messages are final" in text
        assert (
            "problem  redis      new messages are refused" in run("check", code=1, **there).stdout
        )
        gateway.ledger.redis.config_set("maxmemory", 100_000_000)
        gateway.send(OutgoingMessage("15550001", "yes"))
        assert "left for new messages" in run("status", **there).stdout


@pytest.mark.parametrize("parameter", ["foo=hush", "socket_timeout=hush"])
def test_a_redis_url_with_an_invalid_parameter(run, parameter: str) -> None:
    for command, code in (("status", 3), ("check", 1)):
        result = run(command, code=code, SMSQUEUE_REDIS_URL=f"redis://127.0.0.1:1/0?{parameter}")
        assert "SMSQUEUE_REDIS_URL" in result.stderr
        assert "hush" not in result.output
