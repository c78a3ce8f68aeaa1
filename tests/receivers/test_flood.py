"""A flood of unsigned webhooks does not affect other providers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.cli import main
from tests.receivers.server import SERVERS, Start, address_of

OWN, GENERAL = "t6c8kq0w-of-the-unsigned-one", "p3cret-prefix-of-all-others"
APP = f"""
from smsqueue import Gateway
from smsqueue.providers.simulator import SimulatorProvider
from smsqueue.providers.africastalking import AfricasTalkingProvider
gateway = Gateway()
gateway.add_provider("signed", SimulatorProvider, url="http://127.0.0.1:9", token="simulator")
gateway.add_provider(
    "unsigned", AfricasTalkingProvider, username="sandbox", api_key="k", webhook_prefix="{OWN}"
)
gateway.onReceive.connect(lambda message: None, name="heard")
"""


def test_a_flood_of_unsigned_webhooks_stops_neither_send_nor_others(
    start: Start, redis_server: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from smsqueue.providers.simulator import SIGNATURE_HEADER, sign

    redis_url = redis_server("--maxmemory", "16mb").url
    (tmp_path / "flooded_sms.py").write_text(APP)
    server = start(
        SERVERS["receivers"],
        SMSQUEUE_GATEWAY="flooded_sms:gateway",
        SMSQUEUE_RECEIVER_PREFIX=GENERAL,
        SMSQUEUE_REDIS_URL=redis_url,
        SMSQUEUE_EAGER="0",
    )
    address, session = address_of(server), requests.Session()
    session.trust_env = False

    def unsigned(n: int, path: str = "im") -> requests.Response:
        fields = {"from": "+15551234567", "to": "1234", "text": "x" * 7000, "id": f"id-{n}"}
        if path == "status":
            fields = {"id": f"ATXid_{n}", "status": "Success", "phoneNumber": "+15551234567"}
        return session.post(f"{address}/{OWN}/unsigned/{path}", data=fields, timeout=60)

    def signed(n: int) -> requests.Response:
        body = json.dumps({"from": "15557654321", "text": "hi", "id": f"m{n}"}).encode()
        headers = {SIGNATURE_HEADER: sign("simulator", body)}
        url = f"{address}/{GENERAL}/signed/im"
        return session.post(url, data=body, headers=headers, timeout=60)

    assert session.get(f"{address}/readyz", timeout=60).text == "ready\n"
    for path, most in (("im", 2000), ("status", 2000)):
        for n in range(most):
            refused = unsigned(n, path)
            if refused.status_code != 200:
                break
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 10
    # Its address is of no use for others, and theirs none for it.
    for prefix, name in ((OWN, "signed"), (GENERAL, "unsigned")):
        url = f"{address}/{prefix}/{name}/im"
        assert session.post(url, data={"from": "1"}, timeout=60).status_code == 404
    assert [signed(n).status_code for n in range(20)] == [204] * 20
    with Gateway(Settings(redis_url=redis_url)) as gateway:
        assert len(gateway.send_many(OutgoingMessage("15550001", "hi") for _ in range(50))) == 50
        before = gateway.ledger.counts()
        monkeypatch.setenv("SMSQUEUE_REDIS_URL", redis_url)
        for n in range(200):  # the flood goes on: Redis may have some memory again
            unsigned(3000 + n)
            ready = session.get(f"{address}/readyz", timeout=60)
            told = json.loads(CliRunner().invoke(main, ["status", "--json"]).stdout)
            if "refused" in ready.text and any(each["refused"] for each in told["webhooks"]):
                break
        assert (ready.status_code, "webhooks of 1 provider are refused" in ready.text) == (
            200,
            True,
        )
        assert [each["provider"] for each in told["webhooks"] if each["refused"]] == ["unsigned"]
        assert any("webhooks of unsigned are refused" in each["what"] for each in told["problems"])
        purge = ["purge", "--provider", "unsigned", "--yes", "--json"]
        purged = CliRunner().invoke(main, purge)
        assert purged.exit_code == 0, purged.output
        assert json.loads(purged.stdout)["number"] > 100
        after = gateway.ledger.counts()
        assert after["waiting"] == 20
        assert after["queued"] == before["queued"] == 50
    assert unsigned(5000).status_code == 200
    printed = server.end()
    for secret in (OWN, GENERAL, "15551234567"):
        assert secret not in printed
