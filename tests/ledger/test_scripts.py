"""A script contains the shared definitions that it uses, and no others."""

from __future__ import annotations

from smsqueue.ledger.scripts import definitions_of, needed, nested

SHARED = """-- Words of comments, such as unused, count for nothing.
local NS, QUEUE = KEYS[1], KEYS[2]
local later = nil
local LIMITS = {
  most = 3,
}

-- unused
local function first(x)
  -- Nor those of comments inside: unused.
  return LIMITS.most + x
end

local function unused() return QUEUE end
function later(x)
  return first(x)
end
local function fourth(x) return later(x) end
"""


def names(script: str) -> list[str]:
    chosen = "\n".join(each.text for each in needed(definitions_of(SHARED), script))
    return [line for line in chosen.splitlines() if line.startswith(("local", "function"))]


def test_a_script_has_what_it_uses_and_what_that_uses() -> None:
    assert names("return first(1)") == ["local LIMITS = {", "local function first(x)"]
    assert names("return QUEUE") == ["local NS, QUEUE = KEYS[1], KEYS[2]"]
    assert names("-- unused\nreturn 1") == []


def test_a_variable_comes_with_the_function_that_it_is_set_to_later() -> None:
    assert names("return fourth(1)") == [
        "local later = nil",
        "local LIMITS = {",
        "local function first(x)",
        "function later(x)",
        "local function fourth(x) return later(x) end",
    ]


def test_levels_of_functions_keep_the_order_and_are_closed() -> None:
    many = "\n".join(f"local function f{n}(x) return x + {n} end" for n in range(25))
    text = nested(definitions_of(many), "return f0(1)")
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("local")] == many.splitlines()
    assert lines[-2:] == ["return f0(1)", "end)()end)()"]
    assert lines.count("return (function()") == 2


def test_a_level_captures_no_more_variables_than_lua_allows() -> None:
    many = "\n".join(f"local value{n} = {n}" for n in range(70))
    uses_all = "return " + " + ".join(f"value{n}" for n in range(70))
    # Beyond 55 captured variables no level begins.
    text = nested(definitions_of(many), uses_all)
    before_last_level = text[: text.rindex("return (function()")]
    assert before_last_level.count("local value") <= 55
