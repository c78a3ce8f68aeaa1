"""Event hooks, the names of their handlers, and the keys of what they send."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue.events import EventHook, derived_key, hook_scope


def named(hook: EventHook) -> list[str]:
    return [handler.name for handler in hook]


def plain(*args: Any) -> None:
    """A handler of this module."""


class Shop:
    def notify(self, *args: Any) -> None:
        """A bound method as a handler."""

    def __call__(self, *args: Any) -> None:
        """An instance as a handler."""


def test_handlers_are_called_in_order_with_what_the_hook_was_called_with() -> None:
    calls: list[Any] = []
    hook = EventHook(lambda *a, **k: calls.append((1, a, k)))
    hook += lambda *a, **k: calls.append((2, a, k))
    assert hook("x", y=1) is None  # type: ignore[func-returns-value]
    assert calls == [(1, ("x",), {"y": 1}), (2, ("x",), {"y": 1})]


def test_a_handler_that_was_added_twice_is_called_twice_and_removed_once() -> None:
    calls: list[int] = []
    hook = EventHook()
    hook += calls.append
    hook += calls.append
    hook(1)
    hook -= calls.append
    hook(2)
    assert calls == [1, 1, 2]


def test_an_exception_ends_the_call() -> None:
    calls: list[int] = []

    def fail(value: int) -> None:
        raise LookupError

    hook = EventHook(calls.append, fail, calls.append)
    with pytest.raises(LookupError):
        hook(1)
    assert calls == [1]


def test_a_hook_is_true_if_anybody_listens() -> None:
    hook = EventHook()
    assert (bool(hook), len(hook)) == (False, 0)
    hook += plain
    assert (bool(hook), len(hook)) == (True, 1)


def test_removing_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="not connected"):
        EventHook(plain).disconnect(print)


@pytest.mark.parametrize("value", [None, 5, "name"])
def test_a_handler_must_be_callable(value: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        EventHook(value)


# --- Names -----------------------------------------------------------------------------------


def test_a_function_is_called_by_its_module_and_name() -> None:
    assert named(EventHook(plain)) == [f"{__name__}:plain"]


def test_methods_instances_classes_and_partials() -> None:
    shop = Shop()
    hook = EventHook(shop.notify, shop, Shop, functools.partial(plain, 1), functools.partial(shop))
    assert named(hook) == [
        f"{__name__}:Shop.notify",
        f"{__name__}:Shop",
        f"{__name__}:Shop#2",
        f"{__name__}:plain",
        f"{__name__}:Shop#3",
    ]


def test_builtins_have_names_too() -> None:
    calls: list[int] = []
    assert named(EventHook(print, calls.append)) == ["builtins:print", "?:list.append"]


def test_lambdas_of_one_place_are_told_apart_by_their_order() -> None:
    def make() -> Callable[..., None]:
        return lambda *args: None

    hook = EventHook(make(), make(), make())
    base = f"{__name__}:{make.__qualname__}.<locals>.<lambda>"
    assert named(hook) == [base, f"{base}#2", f"{base}#3"]


def test_the_names_are_the_same_in_each_process() -> None:
    assert named(EventHook(plain, plain)) == named(EventHook(plain, plain))


def test_a_name_of_ones_own() -> None:
    hook = EventHook()
    assert hook.connect(plain, name="stock") is plain
    hook.connect(plain)
    assert named(hook) == ["stock", f"{__name__}:plain"]
    with pytest.raises(ValueError, match="'stock'"):
        hook.connect(print, name="stock")
    hook.disconnect(plain)
    hook.connect(print, name="stock")
    assert named(hook) == [f"{__name__}:plain", "stock"]


def test_connect_is_a_decorator() -> None:
    hook = EventHook()

    @hook.connect
    def handler(value: object) -> None:
        """Stays what it is."""

    assert callable(handler)
    assert [h.call for h in hook] == [handler]


# --- Changes while it is being called --------------------------------------------------------


def test_a_handler_may_remove_itself_without_the_next_one_being_skipped() -> None:
    calls: list[str] = []
    hook = EventHook()

    def once() -> None:
        calls.append("once")
        hook.disconnect(once)

    hook += once
    hook += lambda: calls.append("always")
    hook()
    hook()
    assert calls == ["once", "always", "always"]


def test_a_handler_that_is_added_meanwhile_is_called_the_next_time() -> None:
    calls: list[str] = []
    hook = EventHook()

    def grow() -> None:
        hook.connect(lambda: calls.append("new"))

    hook += grow
    hook()
    assert calls == []
    hook()
    assert calls == ["new"]


# --- Keys ------------------------------------------------------------------------------------


def test_there_is_no_key_outside_of_hooks() -> None:
    assert derived_key() is None


def test_a_retry_derives_the_same_keys_in_the_same_order() -> None:
    def run(event: str, handler: str) -> list[str | None]:
        with hook_scope(event, handler):
            return [derived_key(), derived_key()]

    first = run("e1", "shop:reply")
    assert first == ["hook:e1/shop:reply/1", "hook:e1/shop:reply/2"]
    assert run("e1", "shop:reply") == first
    others = run("e2", "shop:reply") + run("e1", "shop:other")
    assert len({*first, *others}) == 6
    assert derived_key() is None


def test_a_scope_ends_with_an_error_and_gives_way_to_an_inner_one() -> None:
    with hook_scope("e", "outer"):
        with pytest.raises(LookupError, match="hook:e/inner/1"), hook_scope("e", "inner"):
            raise LookupError(derived_key())
        assert derived_key() == "hook:e/outer/1"
    assert derived_key() is None


def test_a_scope_belongs_to_its_thread() -> None:
    keys: list[str | None] = []
    with hook_scope("e", "h"):
        thread = threading.Thread(target=lambda: keys.append(derived_key()))
        thread.start()
        thread.join()
    assert keys == [None]
