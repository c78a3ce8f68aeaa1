"""A signature is valid for one request; the provider's repetition is the same request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from smsqueue import Settings, exc
from smsqueue.testing.contract import PREFIX, PUBLIC_URL
from smsqueue.testing.webhook_checks import client_of, receiver
from tests.ledger.bench import Bench
from tests.providers import test_plivo as plivo
from tests.providers import test_twilio as twilio

STATUS = f"{PUBLIC_URL}/{PREFIX}/main/status"
PATH = f"/{PREFIX}/main/status"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    made = Bench(replace(settings, public_url=PUBLIC_URL, receiver_prefix=(PREFIX,)))
    made.gateway.add_provider("main", plivo.EXAMPLES.provider, **dict(plivo.EXAMPLES.config))
    yield made
    made.close()


def report(n: int) -> dict[str, str]:
    return {"MessageUUID": f"0000000{n}-0000-0000-0000-000000000000", "Status": "delivered"}


def recorded(bench: Bench) -> int:
    return len(bench.events())


def test_a_nonce_of_plivos_version_2_is_good_for_one_webhook(bench: Bench) -> None:
    client, headers = client_of(bench.gateway), plivo.signed_v2(STATUS)
    assert client.post(PATH, data=report(1), headers=headers).status_code == 200
    for n in range(2, 6):
        assert client.post(PATH, data=report(n), headers=headers).status_code == 403
    # Plivo's own repetition of what it had no answer to.
    assert client.post(PATH, data=report(1), headers=headers).status_code == 200
    assert recorded(bench) == 1


def test_a_nonce_is_used_also_if_the_better_signature_is_taken_away(bench: Bench) -> None:
    client = client_of(bench.gateway)
    second = plivo.signed_v2(STATUS)
    third = plivo.signed("POST", STATUS, {}, urlencode(report(1)).encode())
    assert client.post(PATH, data=report(1), headers=second | third).status_code == 200
    assert client.post(PATH, data=report(2), headers=second).status_code == 403
    assert recorded(bench) == 1


def test_many_at_once_are_one(bench: Bench) -> None:
    headers = plivo.signed_v2(STATUS)
    clients = [client_of(bench.gateway) for _ in range(8)]

    def post(n: int) -> int:
        code: int = clients[n].post(PATH, data=report(n), headers=headers).status_code
        return code

    with ThreadPoolExecutor(8) as threads:
        answers = Counter(threads.map(post, range(8)))
    assert answers == {200: 1, 403: 7}
    assert recorded(bench) == 1


def test_what_was_not_recorded_has_not_used_its_nonce(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, headers = client_of(bench.gateway), plivo.signed_v2(STATUS)
    with monkeypatch.context() as patch:

        def full(*_: Any, **__: Any) -> None:
            raise exc.QueueUnavailable("full")

        patch.setattr(bench.gateway, "receive_status", full)
        assert client.post(PATH, data=report(1), headers=headers).status_code == 503
    assert client.post(PATH, data=report(2), headers=headers).status_code == 200
    assert client.post(PATH, data=report(1), headers=headers).status_code == 403
    assert recorded(bench) == 1


def test_without_a_ledger_the_process_remembers() -> None:
    client, heard = receiver(plivo.EXAMPLES)
    headers = plivo.signed_v2(STATUS)
    codes = [client.post(PATH, data=report(n), headers=headers).status_code for n in (1, 2, 1)]
    assert codes == [200, 403, 200]
    assert [each.msgid for each in heard] == [report(1)["MessageUUID"]]


def test_fields_with_shifted_boundaries_are_one_event(settings: Settings) -> None:
    """31 of them became 13 events."""
    bench = Bench(replace(settings, public_url=PUBLIC_URL, receiver_prefix=(PREFIX,)))
    try:
        bench.gateway.add_provider("main", twilio.TwilioProvider, **dict(twilio.EXAMPLES.config))
        client = client_of(bench.gateway)
        headers = {
            "X-Twilio-Signature": twilio.signed(twilio.URL, urlencode(twilio.GENUINE).encode())
        }
        forms = [twilio.GENUINE, *twilio.divided(twilio.GENUINE), twilio.GENUINE]
        answers = Counter(
            client.post(f"/{PREFIX}/main/im", data=form, headers=headers).status_code
            for form in forms
        )
        assert answers[200] == 2
        assert answers.keys() == {200, 400, 403}
        assert recorded(bench) == 1
    finally:
        bench.close()
