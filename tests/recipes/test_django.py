"""Django: what is sent on commit, and handlers that use the ORM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smsqueue import Gateway, State

PLACE = """
import django
django.setup()
from django.test import Client
for card, number in ("stolen", "+1 555 0002"), ("good", "+1 555 0001"):
    print(Client().post("/orders/", {"number": number, "card": card}).status_code)
"""

SHOW = """
import django
django.setup()
from orders.models import Order
print([(order.number, order.sms) for order in Order.objects.all()])
"""


def test_a_committed_order_is_told_and_a_rolled_back_one_is_not(
    gateway: Gateway, recipe: Callable[..., Any], until: Callable[..., None]
) -> None:
    django = recipe("Django")
    django.environment |= {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SMSQUEUE_GATEWAY": "orders.sms:gateway",
    }
    django.run("-m", "django", "makemigrations", "orders")
    django.run("-m", "django", "migrate")
    assert django.run("-c", PLACE).split() == ["402", "201"]
    assert gateway.find("15550002") == []
    [record] = gateway.find("15550001")
    assert record.message.body == "Thank you for order 1."
    worker = django.start("worker", " ready.", "celery", "-A", "workers", "worker", "-l", "INFO")
    until(lambda: gateway.lookup(record.id).state == State.ACCEPTED)
    until(lambda: "accepted" in django.run("-c", SHOW))
    assert django.run("-c", SHOW).strip() == "[('+1 555 0001', 'accepted')]"
    assert worker.alive


def test_an_order_stands_without_redis(recipe: Callable[..., Any]) -> None:
    django = recipe("Django")
    django.environment["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    django.run("-m", "django", "makemigrations", "orders")
    django.run("-m", "django", "migrate")
    nowhere = {"SMSQUEUE_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert django.run("-c", PLACE, **nowhere).split() == ["402", "201"]
    assert django.run("-c", SHOW).strip() == "[('+1 555 0001', 'not sent')]"


def test_the_receivers_set_django_up_before_they_import_the_gateway(
    recipe: Callable[..., Any],
) -> None:
    django = recipe("Django")
    django.environment |= {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SMSQUEUE_GATEWAY": "orders.sms:gateway",
        "SMSQUEUE_RECEIVER_PREFIX": "hidden",
    }
    ask = (
        "from receivers import create_app; "
        "print(create_app().test_client().get('/readyz').status_code)"
    )
    assert django.run("-c", ask).strip() == "200"


def test_settings_of_django_are_the_gateways(recipe: Callable[..., Any]) -> None:
    django = recipe("Django")
    show = (
        "import django; django.setup(); from orders.sms import gateway; "
        "print(gateway.settings.max_body, gateway.settings.namespace)"
    )
    told = django.run("-c", show, DJANGO_SETTINGS_MODULE="shop.settings").split()
    assert told == ["160", django.environment["SMSQUEUE_NAMESPACE"]]


def test_the_tests_that_the_page_shows_pass_without_redis(recipe: Callable[..., Any]) -> None:
    django = recipe("Django")
    nowhere = {"SMSQUEUE_REDIS_URL": "redis://127.0.0.1:1/0"}
    told = django.run("-m", "django", "test", DJANGO_SETTINGS_MODULE="shop.settings", **nowhere)
    assert "Found 2 test(s)" in told
