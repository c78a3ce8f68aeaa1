"""Flask: a factory that makes the gateway, with the receivers in the same application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import requests

from smsqueue import Gateway, State
from smsqueue.simulator import Simulator
from tests.conftest import free_port


def test_an_order_is_delivered_and_its_report_comes_to_the_own_application(
    gateway: Gateway, recipe: Callable[..., Any], until: Callable[..., None]
) -> None:
    flask = recipe("Flask")
    shop = f"127.0.0.1:{free_port()}"
    with Simulator({"main": f"http://{shop}/24fb0d6963f/main"}) as simulator:
        flask.environment |= {
            "SMSQUEUE_GATEWAY": "shop:gateway",
            "SHOP_SIMULATOR": simulator.url,
        }
        flask.start("shop", "Listening at", "gunicorn", "-b", shop, "shop:create_app()")
        worker = flask.start("worker", " ready.", "celery", "-A", "workers", "worker", "-l", "INFO")

        def place(number: str) -> requests.Response:
            with requests.Session() as session:
                session.trust_env = False
                data = {"number": number, "order": "A7"}
                return session.post(f"http://{shop}/orders", data=data, timeout=30)

        answers = [place("+1 555 000 0101") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        [id] = {answer.json()["id"] for answer in answers}
        until(lambda: gateway.lookup(id).state == State.DELIVERED)
        until(lambda: "order A7 is delivered" in worker.tail(1000))
        refused = place("none")
        assert (refused.status_code, "phone number" in refused.json()["problem"]) == (400, True)


def test_without_redis_the_customer_is_asked_to_come_back(recipe: Callable[..., Any]) -> None:
    flask = recipe("Flask")
    place = (
        "from shop import create_app; client = create_app("
        "{'SMSQUEUE_REDIS_URL': 'redis://127.0.0.1:1/0'}).test_client(); "
        "answer = client.post('/orders', data={'number': '15550001', 'order': 'A7'}); "
        "print(answer.status_code, answer.headers['Retry-After'])"
    )
    assert flask.run("-c", place).split()[-2:] == ["503", "5"]
