"""An argument of the wrong type is converted or refused when the provider is added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from smsqueue import Gateway, MessageDelivered, OutgoingMessage, exc
from smsqueue.providers.base.installed_providers import load, provider_names
from smsqueue.providers.base.provider_arguments import accepted_arguments
from smsqueue.providers.http import HttpProvider
from smsqueue.testing.stub import Answer, Stub

URL = "http://127.0.0.1:9"
#: What each bundled provider needs to be made.
NEEDS: dict[str, dict[str, Any]] = {
    "africastalking": {"username": "shop", "api_key": "k"},
    "aws-messaging": {"region": "eu-west-1", "access_key": "a", "secret_key": "s"},
    "aws-sns": {"region": "eu-west-1", "access_key": "a", "secret_key": "s"},
    "bird": {"api_key": "k", "region": "eu"},
    "clickatell": {"api_key": "k"},
    "gatewayapi": {"token": "t"},
    "infobip": {"api_key": "k"},
    "messagebird": {"access_key": "k"},
    "plivo": {"auth_id": "MA", "auth_token": "t"},
    "sinch": {"service_plan_id": "p", "api_token": "t"},
    "telnyx": {"api_key": "k"},
    "twilio": {"account_sid": "AC", "auth_token": "t"},
    "vianett": {"user": "u", "password": "p"},
    "vonage": {"api_key": "k", "api_secret": "s"},
    "vonage-messages": {"api_key": "k", "api_secret": "s"},
    "simulator": {"url": URL},
    "log": {},
}

#: By annotation, values that are none of it; "secret" stands in some of them.
WRONG: dict[str, list[Any]] = {
    "str": [1.5, True, b"secret", ["secret"], {}],
    "str | None": [1.5, True, b"secret", ["secret"]],
    "bool": ["secret", "false", 2, 1.0, None],
    "int": ["5", 1.5, True, None, float("inf")],
    "float": ["5", True, None, float("nan"), [5]],
    "Secrets": [1.5, True, b"secret", [b"secret"], {"secret": 1}, [None]],
    "Collection[str]": [5.5, [5.5], {"secret": 1}],
    "tuple[str, str] | None": ["secret", ("a",), ("a", b"secret")],
}


def wrong() -> Iterator[tuple[str, str, Any]]:
    for name in NEEDS:
        for argument, annotation in accepted_arguments(load(name)).items():
            for value in WRONG.get(annotation, []):
                yield name, argument, value


def test_every_bundled_provider_is_tried() -> None:
    plain = {"null", "loopback", "forward-client", "forward-server"}  # below, and without any
    assert set(provider_names()) - plain - {"pigeon"} <= set(NEEDS)
    assert len({(name, argument) for name, argument, _ in wrong()}) > 100


@pytest.mark.parametrize("name", NEEDS)
def test_an_argument_of_the_wrong_type_is_refused_by_name(name: str) -> None:
    kind = load(name)
    Gateway(eager=True).add_provider("main", kind, **NEEDS[name])
    for _, argument, value in (each for each in wrong() if each[0] == name):
        with pytest.raises((TypeError, ValueError), match=f"{kind.__name__}: {argument}") as caught:
            Gateway(eager=True).add_provider("main", kind, **{**NEEDS[name], argument: value})
        assert "secret" not in str(caught.value).replace(argument, "")


def test_a_forwarding_provider_refuses_them_too() -> None:
    client, server = load("forward-client"), load("forward-server")
    for kind, needs in ((client, {"server_url": URL}), (server, {"clients": [URL]})):
        for argument, value in (("window", "5"), ("max_hops", 1.5), ("secret", b"secret")):
            with pytest.raises(TypeError, match=f"{kind.__name__}: {argument}"):
                Gateway(eager=True).add_provider("f", kind, **{**needs, argument: value})


def test_a_number_where_a_text_is_expected_is_its_digits() -> None:
    """In the request, not in the worker's log."""
    with Stub(Answer(201, {"sid": "SM1"})) as service:
        gateway = Gateway(eager=True)
        gateway.add_provider(
            "main", load("twilio"), account_sid=1, auth_token=2, sender=12345, url=service.url
        )
        gateway.send(OutgoingMessage("15557654321", "hi"))
        [call] = service.seen
    assert call.form["From"] == "12345"


def test_tables_of_codes_and_statuses_hold_classes_and_the_right_keys() -> None:
    twilio, needs = load("twilio"), NEEDS["twilio"]
    for wrong_table in ({"codes": {1: "RequestError"}}, {"statuses": {"done": exc.RequestError}}):
        with pytest.raises(TypeError, match=next(iter(wrong_table))):
            Gateway(eager=True).add_provider("main", twilio, **needs, **wrong_table)
    with pytest.raises(TypeError, match="TwilioProvider: codes must be a mapping"):
        Gateway(eager=True).add_provider("main", twilio, **needs, codes=["30007"])
    table = {"30007": exc.CreditError}
    added: Any = Gateway(eager=True).add_provider(
        "main", twilio, **needs, codes=table, statuses={"done": MessageDelivered}
    )
    assert added.codes[30007] is exc.CreditError
    telnyx: Any = load("telnyx")
    added = Gateway(eager=True).add_provider("t", telnyx, api_key="k", codes={40005: exc.AuthError})
    assert added.codes["40005"] is exc.AuthError


class Foreign(HttpProvider):
    """A provider in a package of its own."""

    def __init__(
        self, gateway: Any, name: str, *, flock: int = 3, loft: object = None, **config: Any
    ):
        super().__init__(gateway, name, url=URL, **config)
        self.flock = flock


def test_the_arguments_of_a_provider_of_ones_own_are_checked_by_its_annotations() -> None:
    gateway = Gateway(eager=True)
    added: Any = gateway.add_provider("a", Foreign, flock=4, loft=object(), connect_timeout=2)
    assert added.flock == 4
    with pytest.raises(TypeError, match="Foreign: flock must be a whole number, not str"):
        gateway.add_provider("b", Foreign, flock="4")
    with pytest.raises(TypeError, match="wings"):
        gateway.add_provider("b", Foreign, wings=2)
