"""Which providers a message may go to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from smsqueue import OutgoingMessage
from smsqueue.policy.router import resolve

NAMES = dict.fromkeys("abc")


def routed(answer: Any, default: str | None = "a") -> list[str]:
    return resolve(OutgoingMessage("1", "x").route(), lambda message: answer, NAMES, default)


def never(message: OutgoingMessage, *values: Any) -> Any:
    raise LookupError("the router must not be asked")


def generate() -> Iterator[str]:
    yield from "ca"


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (None, ["a"]),
        ("b", ["b"]),
        ("", ["a"]),
        ([], ["a"]),
        (["c", "a"], ["c", "a"]),
        (("c", "a"), ["c", "a"]),
        (generate(), ["c", "a"]),
    ],
    ids=["none", "name", "empty", "empty list", "list", "tuple", "generator"],
)
def test_what_a_router_may_answer(answer: Any, names: list[str]) -> None:
    assert routed(answer) == names


def test_the_router_gets_the_message_and_its_values() -> None:
    message = OutgoingMessage("1", "x").route("users", 2)
    asked: list[Any] = []
    resolve(message, lambda *given: asked.append(given), NAMES, "a")
    assert asked == [(message, "users", 2)]


def test_without_values_the_router_is_not_asked() -> None:
    assert resolve(OutgoingMessage("1", "x"), never, NAMES, "b") == ["b"]


def test_the_senders_own_choice_comes_first() -> None:
    message = OutgoingMessage("1", "x", provider="c").route("users")
    assert resolve(message, never, NAMES, "a") == ["c"]


def test_a_choice_of_the_gateway_does_not_bind() -> None:
    message = OutgoingMessage("1", "x")
    message.provider = message.routed_to = "c"
    assert resolve(message, never, NAMES, "a") == ["a"]


@pytest.mark.parametrize("answer", ["nobody", ["a", "nobody"], [None], [7], ["a", ["b"]]])
def test_a_name_that_no_provider_has(answer: Any) -> None:
    with pytest.raises(AssertionError, match=r"The router named an unknown .*known: a, b, c"):
        routed(answer)


def test_a_number_in_the_place_of_a_name_is_not_shown() -> None:
    for answer in ("15550001234", "call Bob on 0001234", [("a", "15550001234")]):
        with pytest.raises(AssertionError, match="unknown provider") as caught:
            routed(answer)
        assert "0001234" not in str(caught.value)


def test_a_message_that_names_nobody() -> None:
    message = OutgoingMessage("1", "x", provider="nobody")
    with pytest.raises(AssertionError, match=r"The message names an unknown .*'nobody'"):
        resolve(message, never, NAMES, "a")
    with pytest.raises(AssertionError, match="known: none"):
        resolve(message, never, (), None)


def test_no_provider_at_all() -> None:
    with pytest.raises(AssertionError, match="add_provider"):
        resolve(OutgoingMessage("1", "x"), never, (), None)
    with pytest.raises(AssertionError, match="add_provider"):
        resolve(OutgoingMessage("1", "x").route(), lambda message: None, (), None)


def test_an_answer_that_is_no_answer() -> None:
    with pytest.raises(TypeError):
        routed(7)
