"""Classes that are two at once: what plugins give out is theirs and ours."""

from __future__ import annotations

import types
from functools import cache
from typing import Any

__all__ = ["both", "join", "remade"]


@cache
def both(first: Any, second: Any) -> Any:
    """A class that is the first, and the second where the first says nothing.

    It carries the first one's name. Cached, so that the same two are always the same class.
    """
    if issubclass(first, second):
        return first
    fields = {
        "__module__": first.__module__,
        "__qualname__": first.__qualname__,
        "__doc__": first.__doc__,
        # Pickle looks a class up by its name, and would find the first one there.
        "__reduce__": lambda self: (_again, (first, second, _args(self)), vars(self)),
    }
    return types.new_class(first.__name__, (first, second), {}, lambda ns: ns.update(fields))


def join(thing: Any, other: type) -> Any:
    """Make an object an instance of another class, too. It stays the same object."""
    kind: Any = type(thing)
    thing.__class__ = both(kind, other)
    return thing


def remade(error: BaseException, other: type) -> BaseException:
    """An error that is an instance of another class, too: a new object, with all that it holds.

    New, because the classes that C code defines do not let go of their instances.
    """
    made: BaseException = _again(type(error), other, error.args)
    vars(made).update(vars(error))
    # What an OSError holds beside its arguments and its dict.
    for name in ("errno", "strerror", "filename"):
        if getattr(error, name, None) is not None:
            setattr(made, name, getattr(error, name))
    return made


def _args(thing: object) -> tuple[Any, ...]:
    return thing.args if isinstance(thing, BaseException) else ()


def _again(first: type, second: type, args: tuple[Any, ...]) -> Any:
    """An instance whose constructor was not called: constructors take what they like."""
    kind = both(first, second)
    built_in: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    if not issubclass(kind, BaseException):
        return built_in.__new__(kind)
    made = built_in.__new__(kind, *args)
    made.args = args
    return made
