"""What is read of the ledger comes in pages: bounded commands, nothing twice, nothing left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from smsqueue import Gateway, Settings, exc
from smsqueue.cli import main
from smsqueue.ledger import Ledger
from smsqueue.message.states import State
from smsqueue.operation.metrics import scrape
from tests.conftest import RedisServer
from tests.ledger.bench import Bench

MANY = 300_000
#: Fills records n..m, all to one number; a hundred of them in each millisecond.
FILL = """
local space, data, timeline, number = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
for n = tonumber(ARGV[4]), tonumber(ARGV[5]) do
  local id = string.format('m%019d', n)
  local state = n % 300 == 0 and 'failed' or 'delivered'
  local at = 1700000000000 + math.floor(n / 100)
  redis.call('HSET', space .. ':msg:' .. id, 'data', data, 'state', state, 'timeline', timeline,
             'attempt', 1, 'provider', n % 1000 == 0 and 'rare' or 'main', 'number', number)
  redis.call('ZADD', space .. ':state:' .. state, at, id)
  redis.call('ZADD', space .. ':ends', at + 9e12, id)
  redis.call('ZADD', space .. ':number:' .. number, at, id)
end
"""


@pytest.fixture
def large(redis_server: Callable[..., RedisServer], settings: Settings) -> tuple[Settings, Ledger]:
    """A ledger of 300,000 records."""
    server = redis_server("--appendonly", "no")
    found = Settings(redis_url=server.url, namespace=settings.namespace)
    ledger = Ledger(found, timeout=60)
    fill(ledger, MANY)
    return found, ledger


def fill(ledger: Ledger, many: int) -> None:
    line = {"state": "delivered", "at": 1_700_000_000_000, "why": "report", "code": "0"}
    data = {"dst": "15551234567", "body": "the secret text", "options": {}}
    script, number = ledger.redis.register_script(FILL), ledger.hash_of("15551234567")
    for n in range(0, many, 1000):
        arguments = [json.dumps(data), json.dumps([line]), number, n, n + 999]
        script(keys=[ledger.settings.namespace], args=arguments)


def slow(ledger: Ledger) -> list[str]:
    """Commands that kept Redis busy for more than 5 ms since the last reset."""
    entries: Any = ledger.redis.slowlog_get(128)
    return [f"{entry['duration']} us: {entry['command'][:80]!r}" for entry in entries]


def calls(ledger: Ledger, command: str) -> int:
    stats: Any = ledger.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


def test_no_command_keeps_redis_busy_with_300000_records(
    large: tuple[Settings, Ledger],
) -> None:
    settings, ledger = large
    environment = {"SMSQUEUE_REDIS_URL": settings.redis_url}
    environment |= {"SMSQUEUE_NAMESPACE": settings.namespace}
    number = "15551234567"

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(main, [*arguments, "--json"], env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), arguments
        return json.loads(result.stdout)

    with Gateway(settings) as gateway:
        some = ledger.ids_in(State.DELIVERED, 1)[0]
        work: dict[str, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
            "a state": (
                lambda: run("list", "--state", "delivered"),
                lambda told: len(told["items"]) == 100 and told["total"] == MANY - MANY // 300,
            ),
            "a provider": (
                lambda: run("list", "--provider", "main", "--limit", "5"),
                lambda told: len(told["items"]) == 5 and told["more"],
            ),
            "a time": (
                lambda: run("list", "--state", "delivered", "--since", "2023-11-14T22:13:20Z"),
                lambda told: len(told["items"]) == 100,
            ),
            "a number": (
                lambda: run("find", number),
                lambda told: len(told["items"]) == 100 and told["more"],
            ),
            "find()": (lambda: gateway.find(number, limit=3), lambda found: len(found) == 3),
            "counts": (lambda: run("list"), lambda told: told["messages"]["failed"] > 0),
            "status": (lambda: run("status"), lambda told: told["messages"]["failed"] > 0),
            "metrics": (lambda: scrape(ledger), lambda page: b"smsqueue_messages" in page),
            "a message": (lambda: run("show", some), lambda told: told["id"] == some),
            "what would be done": (
                lambda: run("requeue", "--state", "failed", "--limit", "50", "--dry-run"),
                lambda told: told["done"] == 50,
            ),
            "sending again": (
                lambda: run("requeue", "--state", "failed", "--limit", "5", "--yes"),
                lambda told: told["done"] == 5,
            ),
            "cancelling": (
                lambda: run("cancel", "--state", "queued", "--limit", "1", "--yes"),
                lambda told: told["done"] == 1,
            ),
        }
        ledger.redis.config_set("slowlog-log-slower-than", 5000)
        for name, (command, fits) in work.items():
            # Redis's figure includes the time for which the machine ran something else. A command
            # that does take so long does so each time.
            seen: list[list[str]] = []
            while (not seen or seen[-1]) and len(seen) < 8:
                ledger.redis.slowlog_reset()
                before = calls(ledger, "hgetall")
                answer = command()
                assert fits(answer), name
                seen.append(slow(ledger))
                assert calls(ledger, "hgetall") - before < 1000, name  # records that were read
            assert seen[-1] == [], (name, seen)


def test_a_whole_state_is_read_in_pages(bench: Bench) -> None:
    fill(bench.ledger, 3000)
    pages = list(bench.ledger._pages("state", State.DELIVERED))
    assert {len(page) for page in pages[:-1]} == {200}
    found = [id for page in pages for id in page]
    assert len(set(found)) == len(found) == 2990
    assert len(list(bench.ledger.select([State.FAILED]))) == 10
    assert len(list(bench.ledger.select([State.FAILED, State.DELIVERED], provider="rare"))) == 3
    assert len(bench.gateway.find("15551234567")) == 3000


SCORES = st.lists(st.integers(1, 4), min_size=0, max_size=40)


@given(
    scores=SCORES,
    size=st.integers(1, 5),
    since=st.one_of(st.none(), st.integers(0, 5)),
    until=st.one_of(st.none(), st.integers(0, 5)),
    seed=st.integers(0, 999),
)
@examples(
    max_examples=200, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_what_stays_in_an_index_is_in_one_page(
    bench: Bench, scores: list[int], size: int, since: int | None, until: int | None, seed: int
) -> None:
    """Ids as they are, in order; others leave, move and come between two pages."""
    random, index = Random(seed), bench.key("state", "x")
    bench.redis.delete(index)
    placed = {f"{random.choice('aBé-_z0')}{n:02}": score for n, score in enumerate(scores)}
    stay = {id for id in placed if random.random() < 0.6}
    if placed:
        bench.redis.zadd(index, placed)
    found: list[str] = []
    for page in bench.ledger._pages("state", "x", since=since, until=until, size=size):
        assert len(page) <= size
        found += page
        gone = [id for id in placed if id not in stay and random.random() < 0.5]
        for id in gone:
            bench.redis.zrem(index, id)
            if random.random() < 0.5:
                bench.redis.zadd(index, {id: random.choice([9, placed[id]])})
        bench.redis.zadd(index, {f"new{random.random()}": 9})
    assert len(set(found)) == len(found)
    least, most = since or 0, 9 if until is None else until
    wanted = {id for id in stay if least <= placed[id] <= most}
    assert wanted <= set(found)
    assert all(least <= placed[id] <= most for id in found if id in placed)
    kept = [id for id in found if id in stay]
    assert kept == sorted(kept, key=lambda id: (placed[id], id.encode()), reverse=True)


def test_a_selection_that_is_acted_on_comes_once(bench: Bench) -> None:
    """What is sent again and fails at once is at the front of its state: it is not picked again."""
    bench.add("a", *[exc.RequestError()] * 5)
    ids = [bench.send() for _ in range(5)]
    for id in ids:
        bench.deliver(id)
    picked = []
    for record in bench.ledger.select([State.FAILED, State.UNDELIVERED]):
        picked.append(record.id)
        bench.ledger.requeue(record.id, None)
        bench.redis.zrem(bench.key("state", "queued"), record.id)
        bench.redis.hset(bench.key("msg", record.id), "state", "undelivered")
        bench.redis.zadd(bench.key("state", "undelivered"), {record.id: bench.now() + 1000})
    assert picked == ids[::-1]
