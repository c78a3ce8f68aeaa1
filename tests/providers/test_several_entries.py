"""Webhooks with several entries: a malformed one does not affect the others."""

from __future__ import annotations

from typing import Any

import pytest

from smsqueue import Gateway, Settings
from smsqueue.providers.clickatell import ClickatellProvider
from smsqueue.providers.sinch import SinchProvider
from smsqueue.testing.contract import PREFIX
from smsqueue.testing.webhook_checks import client_of


def recorded(settings: Settings, provider: type, config: dict[str, Any], told: Any) -> list[int]:
    """The answers to the webhook and its repetition, and how many events were recorded of both."""
    with Gateway(settings) as gateway:
        gateway.add_provider("main", provider, **config)
        client = client_of(gateway)
        codes = [client.post(f"/{PREFIX}/main/im", json=told).status_code for _ in range(2)]
        redis, namespace = gateway.ledger.redis, settings.namespace
        # Reports on what nobody sent are parked.
        parked = len(redis.keys(f"{namespace}:parked:main:*"))
        return [*codes, redis.zcard(f"{namespace}:state:waiting") + parked]


MESSAGE = {"from": "15551234567", "to": "15550009999", "text": "hi", "timestamp": 1506607698000}
REPORT = {"statusCode": 2, "status": "DEVICE_ACK", "timestamp": 1506607698000}
BAD: list[Any] = ["rubbish", None, 7, [], {}, {"messageId": "x"}, MESSAGE | {"messageId": "<b>"}]


@pytest.mark.parametrize("kind", ["moText", "messageStatusUpdate"])
def test_only_the_malformed_entry_of_clickatell_is_refused(settings: Settings, kind: str) -> None:
    entry = MESSAGE if kind == "moText" else REPORT
    config: dict[str, Any] = {"api_key": "k", "insecure": True}
    for bad in BAD:
        good = [entry | {"messageId": f"{BAD.index(bad)}-{n}"} for n in range(3)]
        told = {"integrationId": "i", "event": {kind: [good[0], bad, *good[1:]]}}
        first, second, events = recorded(settings, ClickatellProvider, config, told)
        assert (first, second) == (400, 400), bad
        assert events == 3 * (BAD.index(bad) + 1), bad


def test_of_several_statuses_of_sinch_only_the_malformed_is_refused(settings: Settings) -> None:
    config: dict[str, Any] = {"service_plan_id": "p", "api_token": "t", "insecure": True}
    told = {
        "type": "delivery_report_sms",
        "batch_id": "01FC",
        "statuses": [{"code": "x"}, None, {"code": 0, "status": "Delivered", "count": 1}],
    }
    with Gateway(settings) as gateway:
        gateway.add_provider("main", SinchProvider, **config)
        client = client_of(gateway)
        assert client.post(f"/{PREFIX}/main/status", json=told).status_code == 400
        assert gateway.ledger.redis.exists(f"{settings.namespace}:parked:main:01FC")
