"""Classes that combine two: a plugin's objects are instances of its own class and of ours."""

from __future__ import annotations

import types
from functools import cache
from typing import Any

__all__ = ["add_class", "combined_class", "copy_with_class"]


@cache
def combined_class(first: Any, second: Any) -> Any:
    """A subclass of both; attributes of the first take precedence.

    It has the first one's name. It is cached: the same arguments give the same class.
    """
    if issubclass(first, second):
        return first
    fields = {
        "__module__": first.__module__,
        "__qualname__": first.__qualname__,
        "__doc__": first.__doc__,
        # Pickle looks a class up by its name, which leads to the first class.
        "__reduce__": lambda self: (_new_instance, (first, second, _args(self)), vars(self)),
    }
    return types.new_class(first.__name__, (first, second), {}, lambda ns: ns.update(fields))


def add_class(obj: Any, cls: type) -> Any:
    """Make an existing object an instance of another class too; returns the same object."""
    obj_class: Any = type(obj)
    obj.__class__ = combined_class(obj_class, cls)
    return obj


def copy_with_class(error: BaseException, cls: type) -> BaseException:
    """A copy of an error, with all its attributes, that is an instance of another class too.

    A copy, because Python does not let us assign ``__class__`` of built-in exceptions.
    """
    copy: BaseException = _new_instance(type(error), cls, error.args)
    vars(copy).update(vars(error))
    # OSError keeps these in neither args nor __dict__.
    for name in ("errno", "strerror", "filename"):
        if getattr(error, name, None) is not None:
            setattr(copy, name, getattr(error, name))
    return copy


def _args(obj: object) -> tuple[Any, ...]:
    return obj.args if isinstance(obj, BaseException) else ()


def _new_instance(first: type, second: type, args: tuple[Any, ...]) -> Any:
    """An instance whose constructor is not called, because its signature is not known."""
    cls = combined_class(first, second)
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    if not issubclass(cls, BaseException):
        return builtin.__new__(cls)
    instance = builtin.__new__(cls, *args)
    instance.args = args
    return instance
