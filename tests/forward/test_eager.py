"""Eager gateways on one side or both: results and errors are returned at once."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from smsqueue import MessageDelivered, OutgoingMessage, exc
from smsqueue.providers.forward.dedup import RecentResults
from tests.forward.actions import state
from tests.forward.side import Side, connect

ERRORS = [
    exc.RequestError("no", code="bad-number"),
    exc.UnsupportedError("no"),
    exc.CreditError("no money", code=7),
    exc.AuthError("locked out"),
    exc.LimitsError("slow down", retry_after=12.5),
    exc.ServerError("broken"),
    exc.ServerError("who knows", ambiguous=True),
    exc.ConnectionError("no carrier"),
    exc.ConnectionError("answer lost", ambiguous=True),
    exc.MessageSendError("said no"),
    exc.ProviderError("something"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__}-{e.ambiguous}")
def test_an_eager_server_answers_with_its_providers_error(
    eager_client: Side, eager_server: Side, error: exc.ProviderError
) -> None:
    _, carrier = connect(eager_client, eager_server)
    carrier.then(error)
    with pytest.raises(type(error), match=str(error)) as caught:
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    raised = caught.value
    assert type(raised) is type(error)
    assert (raised.code, raised.retry_after, raised.ambiguous, raised.provider) == (
        *(error.code, error.retry_after, error.ambiguous),
        "remote",
    )


def test_an_unknown_error_of_the_servers_provider_is_ambiguous(
    eager_client: Side, eager_server: Side
) -> None:
    _, carrier = connect(eager_client, eager_server)
    carrier.then(KeyError("15550001"))
    with pytest.raises(exc.ServerError) as caught:
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert caught.value.ambiguous
    assert "15550001" not in str(caught.value)


def test_the_http_status_matches_the_error(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect(eager_client, eager_server)
    for error, status in ((exc.ServerError("x", ambiguous=True), 502), (exc.LimitsError("x"), 429)):
        carrier.then(error)
        with pytest.raises(type(error)) as caught:
            eager_client.gateway.send(OutgoingMessage("1555", "hi"))
        assert caught.value.http_status == status


def test_an_eager_server_answers_with_the_result(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect(eager_client, eager_server)
    sent = eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert sent.msgid.startswith("carrier-")
    assert sent.provider == "remote"
    assert sent.meta["forwarded"]["provider"] == "carrier"
    assert eager_server.repeat().status_code == 200
    assert len(carrier.calls) == 1
    carrier._receive_status(MessageDelivered(sent.msgid))
    [report] = eager_client.reports
    assert (report.msgid, report.provider) == (sent.msgid, "remote")


def test_an_eager_server_sends_a_refused_attempt_again(client: Side, eager_server: Side) -> None:
    _, carrier = connect(client, eager_server)
    carrier.then(exc.ServerError("broken"))
    id = client.send()
    client.deliver()
    client.deliver()
    assert state(client, id) == "sent"
    assert len(carrier.calls) == 2


def test_an_eager_server_repeats_an_ambiguous_error_and_does_not_send_again(
    eager_client: Side, eager_server: Side
) -> None:
    _, carrier = connect(eager_client, eager_server)
    carrier.then(exc.ServerError("who knows", ambiguous=True))
    with pytest.raises(exc.ServerError):
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert eager_server.repeat().json()["error"]["ambiguous"]
    assert len(carrier.calls) == 1


def test_results_are_kept_for_an_hour_and_the_oldest_are_dropped_first() -> None:
    now = [0.0]
    recent: RecentResults[int] = RecentResults(limit=3, clock=lambda: now[0])
    runs: list[str] = []

    def ask(key: str) -> int:
        return recent.run_once(key, lambda: runs.append(key) or len(runs))

    for seconds, key, known in (
        *((0, "a", False), (1000, "b", False), (3599, "a", True)),
        *((3601, "a", False), (3602, "b", True)),
        # More than the limit: the oldest is dropped.
        *((3603, "c", False), (3604, "d", False), (3605, "e", False), (3606, "b", False)),
    ):
        now[0], before = float(seconds), len(runs)
        ask(key)
        assert (len(runs) == before) is known, (seconds, key)


def test_an_empty_answer_is_ambiguous(eager_client: Side, eager_server: Side) -> None:
    def proxy(environ: Any, start: Any, app: Any) -> Any:
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", "2")])
        return [b"{}"]

    connect(eager_client, eager_server)
    eager_server.proxy = proxy
    with pytest.raises(exc.ServerError) as caught:
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert caught.value.ambiguous


def test_an_eager_gateway_loads_neither_redis_nor_flask() -> None:
    program = (
        "import sys, smsqueue.providers.forward; from smsqueue import Gateway; "
        "gateway = Gateway(eager=True); "
        "gateway.add_provider('far', smsqueue.providers.forward.ForwardClientProvider, "
        "server_url='http://127.0.0.1:9/'); "
        "sys.exit(str({'redis', 'celery', 'flask', 'werkzeug'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
