"""Allow lists of destinations."""

from __future__ import annotations

from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage, exc
from smsqueue.policy.destinations import Destinations
from smsqueue.providers import NullProvider


def _sent(number: str, **arguments: Any) -> OutgoingMessage:
    gateway = Gateway(eager=True, destinations=Destinations(**arguments))
    gateway.add_provider("null", NullProvider)
    return gateway.send(OutgoingMessage(number, "hi"))


@pytest.mark.parametrize("number", ["+447400123456", "+1 212 555 2368", "00447400123456"])
def test_numbers_of_these_countries_are_sent_to(number: str) -> None:
    assert _sent(number, countries=["GB", "US"]).provider == "null"


@pytest.mark.parametrize("number", ["+18765550100", "+33612345678", "40404", "+999123456789"])
def test_other_numbers_are_refused_and_masked(number: str) -> None:
    with pytest.raises(exc.Refused, match="does not send to") as refused:
        _sent(number, countries=["GB", "US"])
    assert number.removeprefix("+") not in str(refused.value) or len(number) < 7


def test_numbers_that_are_listed_are_sent_to_beside_the_countries() -> None:
    assert _sent("40404", countries=["GB"], numbers=["40404"]).dst == "40404"


def test_without_countries_only_the_list_counts() -> None:
    assert _sent("+447400123456", numbers=["+44 7400 123456"]).redirected_from is None
    with pytest.raises(exc.Refused):
        _sent("+447400123457", numbers=["+44 7400 123456"])


def test_others_may_be_redirected() -> None:
    message = _sent("+33612345678", numbers=[], redirect_to="+447400123456")
    assert (message.dst, message.redirected_from) == ("447400123456", "33612345678")
    assert _sent("+447400123456", numbers=[], redirect_to="+447400123456").redirected_from is None


def test_sending_a_redirected_object_again_keeps_where_it_came_from() -> None:
    gateway = Gateway(
        eager=True, destinations=Destinations(numbers=[], redirect_to="+447400123456")
    )
    gateway.add_provider("null", NullProvider)
    message = gateway.send(OutgoingMessage("+33612345678", "hi"))
    assert gateway.send(message).redirected_from == "33612345678"


def test_an_object_with_another_destination_is_not_redirected_any_more() -> None:
    destinations = Destinations(countries=["GB"], redirect_to="+447400123456")
    gateway = Gateway(eager=True, destinations=destinations)
    gateway.add_provider("null", NullProvider)
    message = gateway.send(OutgoingMessage("+33612345678", "hi"))
    message.dst = "+447400123457"
    assert gateway.send(message).redirected_from is None
    assert message.dst == "447400123457"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"countries": "GB"},
        {"countries": ["UK"]},
        {"countries": None},
        {"numbers": ["07400 123456"]},
        {"numbers": "+447400123456"},
        {"numbers": ["INFO"]},
        {"numbers": [], "redirect_to": "INFO"},
    ],
    ids=str,
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="Destinations: "):
        Destinations(**arguments)


def test_the_gateway_takes_no_other_object() -> None:
    wrong: Any = ["GB"]
    with pytest.raises(TypeError, match="destinations must be Destinations"):
        Gateway(eager=True, destinations=wrong)
