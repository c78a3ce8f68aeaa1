"""Errors of a plugin: what the application catches, and what the retry policy makes of them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import smsframework

from smsqueue import Gateway, OutgoingMessage, exc
from tests.compat.plugin import NoMoney, PluginError, add
from tests.ledger.bench import Bench


def test_both_ways_to_catch_an_error_work(eager: Gateway) -> None:
    def does(message: Any) -> Any:
        raise PluginError(7, "pay first")

    add(eager, does)
    kinds = (NoMoney, smsframework.exc.CreditError, exc.CreditError, exc.ProviderError)
    for kind in kinds:
        with pytest.raises(kind, match="#7: pay first") as caught:
            eager.send(OutgoingMessage("1", "x"))
        error: Any = caught.value
        assert (error.code, error.provider, error.ambiguous) == (7, "main", False)
        assert type(error).__name__ == "NoMoney"
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, str(again)) == (7, "#7: pay first")
    assert isinstance(again, exc.CreditError)
    assert isinstance(PluginError(7), NoMoney)  # the plugin's factory has not learnt new tricks
    assert type(PluginError(8)) is PluginError


def test_public_methods_raise_errors_of_both_kinds(eager: Gateway) -> None:
    provider = add(eager)
    with pytest.raises(exc.CreditError) as caught:
        provider.balance(7)
    assert isinstance(caught.value, NoMoney)


@pytest.mark.parametrize(
    ("error", "state", "label"),
    [
        (PluginError(7), "retrying", "CreditError"),
        (PluginError(8), "retrying", "ProviderError"),
        (smsframework.exc.RequestError("15550001 is no number"), "failed", "RequestError"),
        (smsframework.exc.UnsupportedError("no"), "failed", "UnsupportedError"),
        (smsframework.exc.AuthError("no"), "retrying", "AuthError"),
        (smsframework.exc.LimitsError("no"), "retrying", "LimitsError"),
        (smsframework.exc.ServerError("no"), "retrying", "ServerError"),
        # It failed, and nothing shows that it did so before the request was written.
        (smsframework.exc.ConnectionError("no"), "unknown", "ConnectionError"),
        # Nobody's word on the message.
        (KeyError("15550001"), "unknown", "KeyError"),
        (TypeError("no"), "unknown", "TypeError"),
        (AttributeError("no"), "unknown", "AttributeError"),
        (RuntimeError("no"), "unknown", "RuntimeError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_retry_policy_judges_them(
    bench: Bench, error: Exception, state: str, label: str
) -> None:
    def does(message: Any) -> Any:
        raise error

    add(bench.gateway, does)
    id = bench.send()
    bench.deliver(id)
    assert (bench.state(id), bench.record(id).error) == (state, label)
    assert "15550001" not in str(bench.record(id).timeline)


def test_an_error_that_the_application_was_handling_says_nothing_of_the_plugin(
    eager: Gateway,
) -> None:
    def does(message: Any) -> Any:
        raise smsframework.exc.ServerError("busy")

    add(eager, does)
    try:
        raise TimeoutError("the application's own")
    except TimeoutError:
        with pytest.raises(exc.ServerError) as caught:
            eager.send(OutgoingMessage("1", "x"))
    assert caught.value.ambiguous is False


def test_an_error_that_nobody_may_derive_from_is_only_ours(eager: Gateway) -> None:
    class Final(smsframework.exc.CreditError):
        code = 7

        def __init_subclass__(cls) -> None:
            raise TypeError("this class is final")

    def does(message: Any) -> Any:
        raise Final("pay first")

    add(eager, does)
    with pytest.raises(exc.CreditError, match="pay first") as caught:
        eager.send(OutgoingMessage("1", "x"))
    assert caught.value.code == 7
    assert isinstance(caught.value.__cause__, Final)
