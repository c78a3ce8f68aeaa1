"""No regular expression of ours takes more than a time that grows with the length of its input.

Every expression in the source is found, and is given texts that are made of its own parts: the
character of each repetition, and each of its words, again and again, with an end that it does not
take. Times are those of this thread, compared with each other.
"""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

import pytest

from smsqueue.message import masking, numbers
from smsqueue.message.media import media_of

ROOT = Path(__file__).parents[2]
PACKAGES = ("smsqueue", "workers", "receivers")
METHODS = ("fullmatch", "match", "search", "sub", "split", "finditer", "findall")
#: What stands for a variable in an expression that is made where it is used.
VARIABLES = {
    "smsqueue/providers/aws_sns.py": {"name": "MessageId"},
    "smsqueue/providers/reading.py": {"name": "MediaUrl"},
}
#: Expressions that may take a time that grows faster, and why: their input is bounded before.
BOUNDED = {
    "smsqueue/message/numbers.py:_EXTENSION": "200 characters, see test_addresses_of_250_kb",
    "smsqueue/providers/aws_messaging.py:_CONFIRM": "4096 characters, which SNS has signed",
    r"smsqueue/providers/base/provider_arguments.py:Optional\[(.*)\]": "annotations of classes",
}


class Expression(NamedTuple):
    name: str
    compiled: Any
    method: str


def _expressions(path: Path) -> Iterator[Expression]:
    """The calls of ``re`` in a file, and how what they compile is used."""
    short = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [each for each in calls if _receiver(each) == "re" and each.args]
    if not any(_method(each) in (*METHODS, "compile") for each in made):
        return
    module = importlib.import_module(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    )
    names = {
        id(node.value): node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    uses: dict[str, set[str]] = {}
    for each in calls:
        if _receiver(each) != "re" and _method(each) in set(METHODS) - {"split"}:  # of texts
            uses.setdefault(_receiver(each), set()).add(_method(each))
    compiled = {names.get(id(each)) for each in made}
    others = {m for name, ms in uses.items() if name not in compiled for m in ms}
    for each in made:
        method, scope = _method(each), {**vars(module), **VARIABLES.get(short, {})}
        if method not in (*METHODS, "compile"):
            continue
        text = eval(compile(ast.Expression(each.args[0]), short, "eval"), scope)
        flags = re.IGNORECASE if "IGNORECASE" in ast.unparse(each) else 0
        name = names.get(id(each), str(text))
        used = {method} if method != "compile" else uses.get(name) or others
        assert used, f"{short}:{name} is compiled, and nothing shows by which method it is used"
        for one in sorted(used):
            yield Expression(f"{short}:{name}", re.compile(text, flags), one)


def _receiver(call: ast.Call) -> str:
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


ALL = [e for p in PACKAGES for path in sorted((ROOT / p).rglob("*.py")) for e in _expressions(path)]

# --- Texts that an expression is given -------------------------------------------------------

_REPEATS = {codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT}
_CATEGORIES = {codes.CATEGORY_DIGIT: "1", codes.CATEGORY_SPACE: " ", codes.CATEGORY_WORD: "a"}


def _characters(items: list[Any]) -> list[str]:
    """Some characters of a class."""
    if items[0][0] is codes.NEGATE:
        taken = "".join(_characters(items[1:]))
        return [each for each in "a1 -" if each not in taken][:2]
    found = []
    for code, value in items:
        if code is codes.LITERAL:
            found.append(chr(value))
        elif code is codes.RANGE:
            found.append(chr(value[0]))
        elif code is codes.CATEGORY:
            found.append(_CATEGORIES.get(value, "a"))
    return found[:3] + found[-1:]


def _samples(parsed: Any) -> list[str]:
    """Texts that match a sequence, the first one being the shortest that is easily made."""
    found = [""]
    for code, value in parsed:
        if code is codes.LITERAL:
            parts = [chr(value)]
        elif code in (codes.ANY, codes.NOT_LITERAL):
            parts = ["a" if value is None or chr(value) != "a" else "b"]
        elif code is codes.IN:
            parts = _characters(value)
        elif code is codes.SUBPATTERN:
            parts = _samples(value[-1])
        elif code is codes.BRANCH:
            parts = [each for branch in value[1] for each in _samples(branch)[:1]]
        elif code in _REPEATS:
            parts = [each * max(value[0], 1) for each in _samples(value[2])]
        else:
            parts = [""]
        found = [found[0] + each for each in parts] if parts else found
    return found


def _attacks(parsed: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Beginnings, and what is to be repeated behind them."""
    word = ""
    for i, (code, value) in enumerate(parsed):
        here = before + _samples(parsed[:i])[0]
        word = word + chr(value) if code is codes.LITERAL else ""
        if len(word) > 1:
            yield here, word
        if code in _REPEATS:
            for each in _samples(value[2]):
                yield here, each
            yield from _attacks(value[2], here)
        elif code is codes.SUBPATTERN:
            yield from _attacks(value[-1], here)
        elif code is codes.BRANCH:
            for branch in value[1]:
                yield from _attacks(branch, here)
        elif code in (codes.ASSERT, codes.ASSERT_NOT):
            yield from _attacks(value[1], here)
    yield before, _samples(parsed)[0]
    yield before, " "


def _cpu(run: Callable[[], object]) -> float:
    began = time.thread_time()
    run()
    return time.thread_time() - began


def _runner(expression: Expression, text: str) -> Callable[[], object]:
    subject: Any = text if isinstance(expression.compiled.pattern, str) else text.encode()
    call = getattr(expression.compiled, expression.method)
    if expression.method == "sub":
        return lambda: call(subject[:0], subject)
    return lambda: list(call(subject)) if expression.method == "finditer" else call(subject)


def slow_input(expression: Expression) -> str | None:
    """What an expression takes too long for, in words; None: nothing was found."""
    pattern = expression.compiled.pattern
    text = pattern if isinstance(pattern, str) else pattern.decode()
    attacks = sorted({each for each in _attacks(list(parser.parse(text))) if each[1]})
    # Few characters first: what doubles its time with each of them would never end.
    for small, large in ((12, 18), (500, 4_000)):
        for before, again in attacks:
            for end in ("\0", ""):
                one, other = (
                    _runner(expression, before + again * (size // len(again) + 1) + end)
                    for size in (small, large)
                )
                if _cpu(other) < 0.002:
                    continue
                # Of a time that grows with the length: 3 times what it would be.
                most = 3 * large / small
                if all(_cpu(other) > most * max(_cpu(one), 1e-6) for _ in range(3)):
                    return f"{before[:40]!r} and {again[:40]!r} again and again"
    return None


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r"(a+)+b", "match"),
        (r"\s*([A-Z]{3})?\s*(-?[\d,]+(?:\.\d+)?)\s*$", "match"),
        (r"x\?[!-~]*Action=Confirm[!-~]*", "fullmatch"),
        (r"[\s;,]*(?:ext|#)\s*\d{1,7}\s*$", "search"),
    ],
)
def test_slow_expressions_are_found(pattern: str, method: str) -> None:
    assert slow_input(Expression("", re.compile(pattern), method)) is not None


def test_no_regular_expression_is_slow() -> None:
    assert len(ALL) > 80
    found = {each.name: slow_input(each) for each in ALL if each.name not in BOUNDED}
    assert {name: text for name, text in found.items() if text} == {}
    assert BOUNDED.keys() <= {each.name for each in ALL}


@pytest.mark.parametrize("again", [" ", "1", "+1", "00", "(", ",", "x1", "\u200b", "\uff11", "A"])
def test_addresses_of_250_kb_are_read_in_no_time(again: str) -> None:
    def read(length: int) -> float:
        text = (again * length)[:length] + "x"
        return _cpu(
            lambda: (
                numbers.incoming_address(text),
                numbers.destination(text, "GB"),
                numbers.replyable(text, "GB"),
                numbers.digits(text, "GB"),
                numbers.number_problem(text, "GB"),
                numbers.sender_kind(text),
                masking.mask(text),
                masking.word(text),
                masking.shown_id(text),
                media_of([(text, text), ("https://h/" + text, text)]),
            )
        )

    read(100)  # imports what it needs
    assert any(read(250_000) < 3 * 25 * max(read(10_000), 1e-3) for _ in range(3))
