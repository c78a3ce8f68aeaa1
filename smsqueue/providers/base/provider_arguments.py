"""The arguments of provider classes: their names, and values converted to their types.

A value of a wrong type is an error when the provider is added, not in the worker for each message.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from inspect import Parameter, isfunction, signature
from typing import Any, get_args

__all__ = [
    "COMMON_ARGUMENTS",
    "accepted_arguments",
    "convert_arguments",
    "describe_unknown_argument",
]

#: Arguments of add_provider() itself, with their annotations.
COMMON_ARGUMENTS = {
    "webhook_prefix": "Sequence[str]",
    "webhook_sources": "Sequence[str]",
    "max_in_flight": "int",
    "sender_pool": "Sequence[str]",
}

_LISTS = ("Secrets", "Sequence[str]", "Collection[str]", "Iterable[str]", "list[str]")


def accepted_arguments(kind: type[Any]) -> dict[str, str]:
    """Names and annotations of the arguments of a class and its bases, without gateway and name."""
    annotations: dict[str, str] = {}
    for init in (vars(base).get("__init__") for base in kind.__mro__):
        for argument in [*signature(init).parameters.values()][3:] if isfunction(init) else []:
            if argument.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
                annotations.setdefault(argument.name, _annotation_text(argument.annotation))
    return annotations


def describe_unknown_argument(kind: type[Any], name: str, *, reveal: bool = True) -> str:
    """The error text for an argument that a class does not accept, with "did you mean".

    Args:
        reveal: Show the name even if it resembles no accepted one. From a URL that was not escaped
            it may be a piece of a secret.
    """
    accepted = sorted({**accepted_arguments(kind), **COMMON_ARGUMENTS})
    similar = difflib.get_close_matches(name, accepted, n=1, cutoff=0.8)
    shown = repr(name) if similar or reveal else "one of these arguments"
    hint = f" (did you mean {similar[0]}?)" if similar else ""
    return f"{kind.__name__} does not take {shown}{hint}; it takes: {', '.join(accepted)}"


def _annotation_text(annotation: Any) -> str:
    """The source text of an annotation."""
    if annotation is Parameter.empty:
        return "Any"
    plain = isinstance(annotation, type) and not get_args(annotation)
    text = annotation.__name__ if plain else str(annotation)
    text = re.sub(r"['\"]|\b(typing|collections\.abc)\.", "", text)
    return re.sub(r"Optional\[(.*)\]", r"\1 | None", text)


def convert_arguments(kind: type[Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert arguments to the types in the annotations of a provider's class.

    An integer becomes a string where one is expected; a single string becomes a list of one where
    several are accepted. Unsupported annotations and unknown arguments are not converted.

    Raises:
        TypeError, ValueError: a value has another type. The text names the argument, and does not
            show its value, which may be a secret.
    """
    annotations = accepted_arguments(kind)
    return {
        name: _convert(
            f"{kind.__name__}: {name}", value, _union_members(annotations.get(name, "Any"))
        )
        for name, value in config.items()
    }


def _union_members(annotation: str) -> list[str]:
    """The types of a union; unions within brackets are not split."""
    members, depth = [""], 0
    for part in re.split(r"([\[\]|])", annotation):
        depth += (part == "[") - (part == "]")
        if part == "|" and not depth:
            members.append("")
        else:
            members[-1] += part
    return [member.strip() for member in members]


def _convert(where: str, value: Any, kinds: list[str]) -> Any:
    expected: list[str] = []
    for kind in kinds:
        if kind in ("None", "Secrets") and value is None:
            return None
        if kind == "bool":
            expected.append("True or False")
            if isinstance(value, int) and value in (0, 1):
                return bool(value)
        elif kind in ("int", "float"):
            expected.append("a whole number" if kind == "int" else "a number")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not math.isfinite(value):
                raise ValueError(f"{where} must be a finite number")
            if number and (kind == "float" or value == int(value)):
                return int(value) if kind == "int" else value
        elif kind == "str":
            expected.append("a string")
            if isinstance(value, str):
                return value
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
        elif kind in _LISTS:
            expected.append("a string or several" if kind == "Secrets" else "a list of strings")
            if isinstance(value, str | int) and not isinstance(value, bool):
                return str(value) if kind == "Secrets" else [str(value)]
            if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
                return [_convert(f"each of {where}", item, ["str"]) for item in value]
        elif kind == "tuple[str, str]":
            expected.append("two strings")
            if isinstance(value, tuple | list) and len(value) == 2:
                return tuple(_convert(f"each of {where}", item, ["str"]) for item in value)
        elif kind.startswith("Mapping["):
            expected.append("a mapping")
            if isinstance(value, Mapping):
                return value
        elif kind.startswith("os.PathLike"):
            expected.append("a path")
            if isinstance(value, os.PathLike):
                return value
        elif kind != "None":
            return value
    raise TypeError(f"{where} must be {' or '.join(expected)}, not {type(value).__name__}")
