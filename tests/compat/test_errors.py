"""Errors of a plugin: which classes catch them, and how the retry policy classifies them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import smsframework

from smsqueue import Gateway, OutgoingMessage, exc
from tests.compat.plugin import NoMoney, PluginError, add_plugin
from tests.ledger.bench import Bench


def test_an_error_is_caught_by_its_own_class_and_by_ours(eager: Gateway) -> None:
    def on_send(message: Any) -> Any:
        raise PluginError(7, "pay first")

    add_plugin(eager, on_send)
    kinds = (NoMoney, smsframework.exc.CreditError, exc.CreditError, exc.ProviderError)
    for kind in kinds:
        with pytest.raises(kind, match="#7: pay first") as caught:
            eager.send(OutgoingMessage("1", "x"))
        error: Any = caught.value
        assert (error.code, error.provider, error.ambiguous) == (7, "main", False)
        assert type(error).__name__ == "NoMoney"
    unpickled = pickle.loads(pickle.dumps(error))
    assert (unpickled.code, str(unpickled)) == (7, "#7: pay first")
    assert isinstance(unpickled, exc.CreditError)
    assert isinstance(PluginError(7), NoMoney)  # the plugin's own factory is unchanged
    assert type(PluginError(8)) is PluginError


def test_public_methods_raise_errors_of_both_kinds(eager: Gateway) -> None:
    provider = add_plugin(eager)
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
        # Nothing shows whether the request was written.
        (smsframework.exc.ConnectionError("no"), "unknown", "ConnectionError"),
        # These do not show whether the message was sent.
        (KeyError("15550001"), "unknown", "KeyError"),
        (TypeError("no"), "unknown", "TypeError"),
        (AttributeError("no"), "unknown", "AttributeError"),
        (RuntimeError("no"), "unknown", "RuntimeError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_retry_policy_classifies_errors(
    bench: Bench, error: Exception, state: str, label: str
) -> None:
    def on_send(message: Any) -> Any:
        raise error

    add_plugin(bench.gateway, on_send)
    id = bench.send()
    bench.deliver(id)
    assert (bench.state(id), bench.record(id).error) == (state, label)
    assert "15550001" not in str(bench.record(id).timeline)


def test_an_error_that_the_application_is_handling_is_ignored(
    eager: Gateway,
) -> None:
    def on_send(message: Any) -> Any:
        raise smsframework.exc.ServerError("busy")

    add_plugin(eager, on_send)
    try:
        raise TimeoutError("the application's own")
    except TimeoutError:
        with pytest.raises(exc.ServerError) as caught:
            eager.send(OutgoingMessage("1", "x"))
    assert caught.value.ambiguous is False


def test_an_error_whose_class_cannot_be_subclassed_is_replaced(eager: Gateway) -> None:
    class Final(smsframework.exc.CreditError):
        code = 7

        def __init_subclass__(cls) -> None:
            raise TypeError("this class is final")

    def on_send(message: Any) -> Any:
        raise Final("pay first")

    add_plugin(eager, on_send)
    with pytest.raises(exc.CreditError, match="pay first") as caught:
        eager.send(OutgoingMessage("1", "x"))
    assert caught.value.code == 7
    assert isinstance(caught.value.__cause__, Final)
