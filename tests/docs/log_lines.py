"""The log lines that the source code writes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class LogLine(NamedTuple):
    """A call of a logger."""

    logger: str
    #: The logger's method: ``warning``.
    method: str
    #: The text, with ``%s`` for what varies.
    text: str


def log_lines() -> set[LogLine]:
    """All of them, but those of a module's own loggers and of transitions, which share a text."""
    paths = [
        path
        for name in ("smsqueue", "workers", "receivers")
        for path in ROOT.glob(f"{name}/**/*.py")
    ]
    return {line for path in paths for line in _lines_of(path)}


def _lines_of(path: Path) -> Iterator[LogLine]:
    tree = ast.parse(path.read_text("utf-8"))
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    loggers: dict[str, str] = {}
    texts: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id="get_logger"), args=[argument]),
            ):
                own = isinstance(argument, ast.Constant)
                loggers[name] = str(argument.value) if own else module  # type: ignore[attr-defined]
            case (
                ast.Assign(targets=[ast.Name(id="text")], value=ast.Constant(value=str(value)))
                | ast.Assign(
                    targets=[ast.Tuple(elts=[ast.Name(id="text"), *_])],
                    value=ast.Tuple(elts=[ast.Constant(value=str(value)), *_]),
                )
            ) if "%" in value:
                texts[str(node.lineno)] = value
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr=method), args=[*arguments]
            ) if name in loggers:
                text = next(filter(None, map(_text, _flat(arguments))), None)
                if text is None:
                    line = max((int(at) for at in texts if int(at) < node.lineno), default=0)
                    text = texts.get(str(line), "")
                if text:
                    yield LogLine(loggers[name], method, text)


def _flat(arguments: list[ast.expr]) -> Iterator[ast.expr]:
    for argument in arguments:
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple):
            yield from argument.value.elts
        else:
            yield argument


def _text(argument: ast.expr) -> str | None:
    is_text = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    return str(argument.value) if is_text else None  # type: ignore[attr-defined]
