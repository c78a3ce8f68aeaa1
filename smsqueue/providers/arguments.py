"""What a provider's class takes, and whether what it is given has the right types.

A wrong type is an error where the provider is added: the worker would meet it with each message.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from inspect import Parameter, isfunction, signature
from typing import Any, get_args

__all__ = ["OF_EVERY_PROVIDER", "check_arguments", "parameters", "unknown_argument"]

#: What add_provider() itself takes.
OF_EVERY_PROVIDER = {
    "webhook_prefix": "Sequence[str]",
    "webhook_sources": "Sequence[str]",
    "max_in_flight": "int",
}

_MANY = ("Secrets", "Sequence[str]", "Collection[str]", "Iterable[str]", "list[str]")


def parameters(kind: type[Any]) -> dict[str, str]:
    """What a class takes to be made, beside gateway and name, with the annotations."""
    found: dict[str, str] = {}
    for init in (vars(each).get("__init__") for each in kind.__mro__):
        for each in [*signature(init).parameters.values()][3:] if isfunction(init) else []:
            if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD):
                found.setdefault(each.name, _annotation_text(each.annotation))
    return found


def unknown_argument(kind: type[Any], name: str, *, reveal: bool = True) -> str:
    """What to say of an argument that a class does not take.

    Args:
        reveal: Name it even if it is like none that there is; it may be a piece of a secret where
            it comes from an address that was not escaped.
    """
    takes = sorted({**parameters(kind), **OF_EVERY_PROVIDER})
    near = difflib.get_close_matches(name, takes, n=1, cutoff=0.8)
    shown = repr(name) if near or reveal else "one of these arguments"
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{kind.__name__} does not take {shown}{hint}; it takes: {', '.join(takes)}"


def _annotation_text(annotation: Any) -> str:
    """An annotation as it is written where annotations are texts."""
    if annotation is Parameter.empty:
        return "Any"
    plain = isinstance(annotation, type) and not get_args(annotation)
    text = annotation.__name__ if plain else str(annotation)
    text = re.sub(r"['\"]|\b(typing|collections\.abc)\.", "", text)
    return re.sub(r"Optional\[(.*)\]", r"\1 | None", text)


def check_arguments(kind: type[Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as the annotations of a provider's class ask for them.

    A whole number where a text is expected becomes one, one text where several may be given
    becomes a list of one. An annotation that is not known here, and an argument that the class
    does not have, are left alone.

    Raises:
        TypeError, ValueError: a value has another type. The text names the argument, never its
            value, which may be a secret.
    """
    takes = parameters(kind)
    return {
        name: _value(f"{kind.__name__}: {name}", value, _alternatives(takes.get(name, "Any")))
        for name, value in config.items()
    }


def _alternatives(annotation: str) -> list[str]:
    """The types of a union; those within brackets stay together."""
    found, depth = [""], 0
    for part in re.split(r"([\[\]|])", annotation):
        depth += (part == "[") - (part == "]")
        if part == "|" and not depth:
            found.append("")
        else:
            found[-1] += part
    return [each.strip() for each in found]


def _value(where: str, value: Any, kinds: list[str]) -> Any:
    wanted: list[str] = []
    for kind in kinds:
        if kind in ("None", "Secrets") and value is None:
            return None
        if kind == "bool":
            wanted.append("True or False")
            if isinstance(value, int) and value in (0, 1):
                return bool(value)
        elif kind in ("int", "float"):
            wanted.append("a whole number" if kind == "int" else "a number")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not math.isfinite(value):
                raise ValueError(f"{where} must be a finite number")
            if number and (kind == "float" or value == int(value)):
                return int(value) if kind == "int" else value
        elif kind == "str":
            wanted.append("a text")
            if isinstance(value, str):
                return value
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
        elif kind in _MANY:
            wanted.append("a text or several" if kind == "Secrets" else "a list of texts")
            if isinstance(value, str | int) and not isinstance(value, bool):
                return str(value) if kind == "Secrets" else [str(value)]
            if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
                return [_value(f"each of {where}", each, ["str"]) for each in value]
        elif kind == "tuple[str, str]":
            wanted.append("two texts")
            if isinstance(value, tuple | list) and len(value) == 2:
                return tuple(_value(f"each of {where}", each, ["str"]) for each in value)
        elif kind.startswith("Mapping["):
            wanted.append("a mapping")
            if isinstance(value, Mapping):
                return value
        elif kind.startswith("os.PathLike"):
            wanted.append("a path")
            if isinstance(value, os.PathLike):
                return value
        elif kind != "None":
            return value
    raise TypeError(f"{where} must be {' or '.join(wanted)}, not {type(value).__name__}")
