"""Event hooks: ``gateway.onReceive += handler``.

A handler has a name, under which its success is recorded, so that a retry does not call it again:
the argument of :meth:`EventHook.connect`, else ``module:qualname``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

__all__ = ["EventHook", "Handler", "HookAttribute", "current_event", "derived_key", "hook_scope"]


class Handler(NamedTuple):
    """A handler and its name."""

    name: str
    call: Callable[..., Any]


class EventHook:
    """An ordered list of handlers. Calling it calls them all; an exception propagates.

    Handlers that are connected or disconnected during a call take effect at the next one.
    """

    def __init__(self, *handlers: Callable[..., Any]) -> None:
        self._handlers: tuple[Handler, ...] = ()
        for handler in handlers:
            self.connect(handler)

    def connect(self, handler: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
        """Add a handler. With an explicit name the handler may be renamed or moved later.

        Raises:
            TypeError: it is not callable.
            ValueError: another handler has that name.
        """
        if not callable(handler):
            raise TypeError(f"a hook must be callable, not {type(handler).__name__}")
        taken = {known.name for known in self._handlers}
        if name is not None and name in taken:
            raise ValueError(f"another handler is connected as {name!r}")
        self._handlers += (Handler(name or _name_of(handler, taken), handler),)
        return handler

    def disconnect(self, handler: Callable[..., Any]) -> None:
        """Remove a handler; ValueError if it is not connected."""
        for known in self._handlers:
            if known.call == handler:
                self._handlers = tuple(h for h in self._handlers if h is not known)
                return
        raise ValueError(f"{handler!r} is not connected")

    def __iadd__(self, handler: Callable[..., Any]) -> Self:
        self.connect(handler)
        return self

    def __isub__(self, handler: Callable[..., Any]) -> Self:
        self.disconnect(handler)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        for handler in self._handlers:
            handler.call(*args, **kwargs)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    def __bool__(self) -> bool:
        return bool(self._handlers)


def _name_of(handler: Callable[..., Any], taken: set[str]) -> str:
    inner = getattr(handler, "func", handler)  # functools.partial
    qualname = getattr(inner, "__qualname__", type(inner).__qualname__)
    name = f"{getattr(inner, '__module__', None) or '?'}:{qualname}"
    if name not in taken:
        return name
    # Two lambdas of one module share a name: number them in their order.
    return next(f"{name}#{n}" for n in range(2, len(taken) + 3) if f"{name}#{n}" not in taken)


class HookAttribute:
    """An attribute that is an EventHook of its object. It supports ``+=``, ``-=``, and ``=`` with a
    single handler."""

    def __set_name__(self, kind: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, owner: Any | None, kind: type) -> EventHook:
        if owner is None:  # accessed on the class, as documentation tools do
            return self  # type: ignore[return-value]
        hook: EventHook = owner.__dict__.setdefault(self._name, EventHook())
        return hook

    # mypy accepts ``+=`` only if __set__ takes the type that __get__ returns.
    def __set__(self, owner: Any, value: EventHook) -> None:
        owner.__dict__[self._name] = value if isinstance(value, EventHook) else EventHook(value)


class _Scope:
    """Counts the sends of one handler for one event."""

    def __init__(self, event_id: str, handler: str) -> None:
        self.event_id = event_id
        self.prefix = f"{event_id}/{handler}"
        self.sends = 0


_scope: ContextVar[_Scope | None] = ContextVar("smsqueue_hook_scope", default=None)


@contextmanager
def hook_scope(event_id: str, handler: str) -> Iterator[None]:
    """Give sends in a running handler idempotency keys that a retry of it derives again."""
    token = _scope.set(_Scope(event_id, handler))
    try:
        yield
    finally:
        _scope.reset(token)


def current_event() -> str | None:
    """Id of the event whose handler is running; None outside of a worker's handlers."""
    scope = _scope.get()
    return None if scope is None else scope.event_id


def derived_key() -> str | None:
    """The idempotency key for the next send of the running handler; None outside of handlers."""
    scope = _scope.get()
    if scope is None:
        return None
    scope.sends += 1
    return f"hook:{scope.prefix}/{scope.sends}"
