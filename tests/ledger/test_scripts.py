"""A script contains the shared definitions that it uses, and no others."""

from __future__ import annotations

from smsqueue.ledger.scripts import definitions_of, needed

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
    chosen = needed(definitions_of(SHARED), script).splitlines()
    return [line for line in chosen if line.startswith(("local", "function"))]


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
