"""Mutated webhooks: nothing is taken that the provider did not sign, and no event is altered."""

from __future__ import annotations

import os
import time
import zlib
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from smsqueue import Settings
from smsqueue.testing.webhook_checks import Request
from tests.fuzz.budget import MUTATIONS, SECONDS, Budget, Tally
from tests.fuzz.mutations import Mutator
from tests.fuzz.sdks import SECRETS, Sdks
from tests.fuzz.targets import ADDRESS, TARGETS, Target, facts
from tests.ledger.bench import Bench

#: Mutations of one genuine webhook.
EACH = 40
SEED = os.environ.get("FUZZ_SEED") or (str(time.time_ns()) if SECONDS else "")
_AMBIGUOUS = str.maketrans("&=", "__")


def seed(name: str, n: int) -> int:
    """Of the n-th genuine webhook. With FUZZ_SECONDS each run has its own, or FUZZ_SEED's."""
    return zlib.crc32(f"{SEED}/{name}/{n}".encode())


def sent(client: Any, request: Request) -> int:
    """The status that a request is answered with."""
    path, method, headers, body = request
    code: int = client.open(path, method=method, headers=headers, data=body).status_code
    return code


def told(target: Target, events: list[Any]) -> list[tuple[Any, ...]]:
    """What of the events nobody may change."""
    found = [facts(event) for event in events]
    if target.name == "vonage":  # these characters are signed as one
        found = [tuple(v.translate(_AMBIGUOUS) if isinstance(v, str) else v for v in f)
                 for f in found]  # fmt: skip
    return found


def unchanged(genuine: list[tuple[Any, ...]], found: list[tuple[Any, ...]]) -> bool:
    """Are these the genuine webhook's events? Our reference may be lost with the query."""
    if len(genuine) != len(found):
        return False
    return all(
        one == other or (one[0] not in ("in", "out") and one[:-1] == other[:-1] and not other[-1])
        for one, other in zip(genuine, found, strict=True)
    )


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutated_webhook_alters_an_event(
    name: str, tally: Tally, budget: Budget, sdks: Sdks | None, settings: Settings
) -> None:
    target = TARGETS[name]
    sdk = sdks if name in SECRETS else None
    if sdk is not None:
        tally.wrongly = tally.stricter = 0
    answers: Counter[int] = Counter()
    for n in budget.rounds(MUTATIONS // EACH):
        random = Random(seed(name, n))
        genuine = target.genuine(random)
        client, heard = target.receiver()
        assert sent(client, genuine) < 300
        wanted = told(target, heard)
        if sdk is not None:
            assert sdk.genuine(name, genuine), "its SDK does not take what we sign"
        mutate = Mutator(random, genuine, [target.genuine(random) for _ in range(2)])
        requests = [mutate() for _ in range(EACH)]
        for request in requests:
            client, heard = target.receiver()  # nothing is remembered of the genuine one
            code = sent(client, request)
            answers[code] += 1
            judge(target, tally, request, wanted, told(target, heard), code, sdk)
        if target.signed:
            once(target, settings, n, genuine, requests, len(wanted))
    # SNS's certificate may be one that cannot be fetched.
    assert not [code for code in answers if code >= 500 and code != 503], answers
    assert name == "aws-messaging" or not answers[503], answers
    assert tally.altered == 0, tally.examples
    assert not tally.wrongly, tally.examples
    assert tally.mutations


def judge(
    target: Target,
    tally: Tally,
    request: Request,
    wanted: list[tuple[Any, ...]],
    found: list[tuple[Any, ...]],
    code: int,
    sdk: Sdks | None,
) -> None:
    """Count what came of a request."""
    tally.mutations += 1
    accepted = code < 300 and bool(found)
    tally.accepted += accepted
    if accepted and target.signed and not unchanged(wanted, found):
        tally.altered += 1
        tally.examples.append(f"altered: {request} became {found}, not {wanted}")
    if sdk is None or tally.wrongly is None or tally.stricter is None:
        return
    genuine = sdk.genuine(target.name, request)
    tally.stricter += genuine and not accepted
    if accepted and not genuine:
        tally.wrongly += 1
        tally.examples.append(f"its SDK refuses: {request}")
    del tally.examples[5:]


def once(
    target: Target,
    settings: Settings,
    n: int,
    genuine: Request,
    requests: list[Request],
    events: int,
) -> None:
    """Against a ledger: whatever follows a genuine webhook, there are no more events than its."""
    namespace = f"{settings.namespace}-{target.name.replace(' ', '-')}-{n}"
    bench = Bench(replace(settings, namespace=namespace, **ADDRESS))
    try:
        client = target.add_to(bench.gateway)
        assert sent(client, genuine) < 300
        before = recorded(bench)
        assert before <= events
        for request in requests:
            assert sent(client, request) in (*range(500), 503)
        assert recorded(bench) == before, f"more than one event of one webhook: {genuine}"
    finally:
        bench.close()


def recorded(bench: Bench) -> int:
    """Events, and messages that were taken to be sent."""
    keys = bench.keys()
    return len([key for key in keys if key.startswith(("event:", "msg:"))])


def test_the_mutations_are_many_and_none_is_the_genuine_webhook() -> None:
    random, target = Random(1), TARGETS["twilio"]
    genuine = target.genuine(random)
    mutate = Mutator(random, genuine, [])
    requests = [mutate() for _ in range(200)]
    assert genuine not in requests
    assert len({repr(each) for each in requests}) > 150


def test_an_altered_event_is_seen() -> None:
    """What the assertions rest on."""
    genuine = [("in", "1555", "hi", "777", "m1", None, ())]
    report = [("MessageDelivered", "m1", "delivered", None, "a.1")]
    assert unchanged(genuine, genuine)
    assert not unchanged(genuine, [("in", "1556", *genuine[0][2:])])
    assert not unchanged(genuine, genuine * 2)
    assert unchanged(report, [(*report[0][:-1], None)])
    assert not unchanged(report, [(*report[0][:-1], "b.1")])
    assert not unchanged(report, [("MessageError", *report[0][1:])])
