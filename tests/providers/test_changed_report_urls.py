"""Reports to a changed URL never count for another message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask

from smsqueue import Settings
from smsqueue.providers.plivo import PlivoProvider
from smsqueue.providers.telnyx import TelnyxProvider
from smsqueue.testing.stub import Answer, Stub
from tests.ledger.bench import Bench
from tests.providers.test_plivo import signed_v2
from tests.providers.test_telnyx import PUBLIC, event, outbound, signed


class Account:
    """One provider against a stub of its API, with ledger and receivers."""

    def __init__(self, bench: Bench, stub: Stub, kind: str) -> None:
        self.bench, self.stub, self.kind = bench, stub, kind
        config: dict[str, Any] = {"api_key": "KEY", "public_key": PUBLIC}
        if kind == "plivo":
            config = {"auth_id": "MA1", "auth_token": "plivo-token"}
        cls = TelnyxProvider if kind == "telnyx" else PlivoProvider
        bench.gateway.add_provider("main", cls, url=stub.url, sender="15550009999", **config)
        app = bench.gateway.receiver_blueprints_register(Flask("moved"), "a-prefix-for-tests")
        self.client = app.test_client()

    def sends(self, msgid: str | None) -> tuple[str, str]:
        """A message that the provider takes under this id; None: its answer is lost.

        Returns:
            Our id, and the address for reports that the provider was given.
        """
        taken = {"data": {"id": msgid}, "message_uuid": [msgid]}
        self.stub.answers.append(Answer(202, taken) if msgid else Answer(cut=True))
        self.stub.answers.popleft()
        id = self.bench.send(status_report=True)
        self.bench.deliver(id)
        body = self.stub.seen[-1].json
        return id, body.get("webhook_url") or body["url"]

    def reports(self, msgid: str, url: str) -> int:
        """The provider reports the delivery of a message to an address."""
        path = urlsplit(url)._replace(scheme="", netloc="").geturl()
        if self.kind == "telnyx":
            told = event("message.finalized", outbound("delivered") | {"id": msgid})
            told["data"]["id"] = f"event of {msgid}"
            body = json.dumps(told).encode()
            answer = self.client.post(path, data=body, headers=signed({}, body))
        else:
            form = {"MessageUUID": msgid, "Status": "delivered"}
            headers = signed_v2(url, "plivo-token", nonce=token_hex(8))
            answer = self.client.post(path, data=form, headers=headers)
        return answer.status_code


@pytest.fixture(params=["telnyx", "plivo"])
def account(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Account]:
    public = replace(
        settings, public_url="https://sms.example.org", receiver_prefix=("a-prefix-for-tests",)
    )
    bench = Bench(public)
    with Stub() as stub:
        yield Account(bench, stub, request.param)
    bench.close()


def test_a_report_counts_for_the_message_that_it_is_of(account: Account) -> None:
    bench = account.bench
    one, first = account.sends("m1")
    two, second = account.sends("m2")
    bare = first.partition("?")[0]
    moved = f"{bare}?ref={two}.1"
    seal = first.rpartition(".")[2]
    for url in (moved, f"{moved}.{seal}", f"{moved}&ref={urlsplit(first).query}", bare):
        assert account.reports("m1", url) in (200, 204)
        assert (bench.state(one), bench.state(two)) == ("delivered", "sent")
    assert account.reports("m2", second) in (200, 204)
    assert bench.state(two) == "delivered"


def test_a_message_without_a_response_is_matched_by_its_url_only(account: Account) -> None:
    bench = account.bench
    id, url = account.sends(None)
    assert bench.state(id) == "unknown"
    assert account.reports("m1", f"{url.partition('?')[0]}?ref={id}.1") in (200, 204)
    assert bench.state(id) == "unknown"
    assert account.reports("m2", url) in (200, 204)
    assert bench.state(id) == "delivered"


# Plivo's version 2 signs neither a time nor an id.
@pytest.mark.parametrize("account", ["telnyx"], indirect=True)
def test_a_replay_with_another_address_is_heard_once(account: Account) -> None:
    bench = account.bench
    heard = bench.listen()
    _, url = account.sends("m1")
    for each in (url, url.partition("?")[0], url.replace("/status", "/im")):
        assert account.reports("m1", each) == 204
    bench.run_hooks()
    assert len(heard) == 1
