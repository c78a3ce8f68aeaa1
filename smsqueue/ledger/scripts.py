"""The Lua scripts: each is put together out of its own text and those shared definitions that it
uses, and runs for one item or for a group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.resources import files
from typing import Any, NamedTuple

import redis
from redis.commands.core import Script

from smsqueue import exc
from smsqueue.ledger.audit_log import Action
from smsqueue.ledger.client import error_of_answer, may_not_write, translated
from smsqueue.ledger.limits import GROUP_LIMIT
from smsqueue.settings import Settings

__all__ = ["Definition", "Scripts", "definitions_of", "needed", "nested"]

#: Scripts that Redis may refuse above maxmemory. All others finish accepted messages and may go on.
_REFUSED_WHEN_FULL = {"accept", "receive", "receive_part", "memory_left"}

#: Scripts that write nothing.
_READ_ONLY = {"index_page", "matching_page", "tag_progress", "waiting_tags"}

#: Scripts whose caller relies on what they have recorded: with SMSQUEUE_WAIT_REPLICAS, replicas
#: must have it. Replication keeps the order, so they have what was written before, too.
_CONFIRMED_BY_REPLICAS = {
    *("accept", "claim", "begin", "settle", "receive", "receive_part", "report"),
    *("bulk_step", "cancel", "requeue", "settle_unknown", "pause", "resume", "opt_out"),
}

#: Longest wait for replicas, in ms; less if a command may take less than twice as long.
_MOST_WAIT_MS = 2000

#: Scripts that write no events. All others declare a key of events, so that Redis refuses them
#: before they change anything if the account may not write events (see acl.py): a script that was
#: refused halfway would leave half of a transition.
_WITHOUT_EVENTS = _READ_ONLY | {"accept", "hash_secret", "memory_left"}

#: Files that all scripts share; each may use those before it.
_SHARED = (
    *("base", "deferred_writes", "damage", "memory", "webhook_memory", "tag_indexes"),
    *("messages", "trigger_room", "events", "opt_outs", "reports", "pauses", "provider_health"),
    *("audit_log", "operators", "pages"),
)

#: Scripts for operators, who look messages up or change their state.
_OF_OPERATORS = {
    "action_begin",
    "action_end",
    "bulk_step",
    "cancel",
    "settle_unknown",
    "replay_event",
    "index_page",
    "matching_page",
    "opt_out",
    "pause",
    "purge_webhooks",
    "remove_damaged",
    "repair_record",
    "requeue",
    "resume",
    "tag_progress",
}

#: Scripts that record an action in the audit: see shared/audit_log.lua.
_AUDITED = _OF_OPERATORS - _READ_ONLY

#: Scripts about one record, whose id is the first argument; and the kind of the record.
_SUBJECTS = dict.fromkeys(
    (
        "claim",
        "revoke_claim",
        "begin",
        "settle",
        "ask_later",
        "cancel",
        "requeue",
        "settle_unknown",
    ),
    "msg",
) | dict.fromkeys(
    (
        "claim_event",
        "handler_done",
        "postpone_event",
        "settle_event",
        "replay_event",
        "renew_event",
    ),
    "event",
)

#: Scripts that run for a group of items in one call; a single call is a group of one.
_GROUPED = {
    "accept", "claim", "revoke_claim", "return_trigger", "begin", "settle", "opt_out",
    "claim_event", "settle_event",
}  # fmt: skip

#: Other scripts that defer their writes, as those of groups do: see shared/deferred_writes.lua.
_DEFERRED_WRITES = {
    "bulk_step", "cancel", "replay_event", "receive", "report", "requeue", "settle_unknown",
}  # fmt: skip

#: First write of every script that may go on above maxmemory.
_FIRST_WRITE = """
local may_write, why = pcall(redis.call, 'ZREM', due_key('watch'), '')
if not may_write then
  return redis.error_reply(string.match(why, '^%u+ ') and why or 'ERR ' .. why)
end
"""


#: A definition begins at the start of a line; its contents are indented.
_BEGINS = re.compile(r"^(?:local function|function|local) (\w+(?:, \w+)*)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)

#: Definitions after which a level of nested functions may begin, and the largest number of
#: variables that it may capture: Lua allows 60.
_LEVEL, _MOST_CAPTURED = 10, 55


class _Unconfirmed(exc.QueueUnavailable):
    """The primary has recorded it, but not enough replicas."""


class Definition(NamedTuple):
    """A top-level statement of a shared file."""

    #: The variables that it declares, or whose value ``function name`` sets.
    names: frozenset[str]
    #: All words in it, including the names that it uses.
    words: frozenset[str]
    text: str


def definitions_of(text: str) -> list[Definition]:
    """The definitions of a shared file, in order."""
    code = _COMMENT.sub("", text)
    begins = list(_BEGINS.finditer(code))
    ends = [match.start() for match in begins[1:]] + [len(code)]
    definitions = []
    for match, end in zip(begins, ends, strict=True):
        part = code[match.start() : end]
        names = match.group(1).split(", ")
        definitions.append(
            Definition(frozenset(names), frozenset(_WORD.findall(part)), part.strip())
        )
    return definitions


def needed(definitions: Iterable[Definition], script: str) -> list[Definition]:
    """The definitions that a script uses, directly or through others, in order.

    Redis runs the whole text of a script at each call. Defining everything that scripts share takes
    longer than most scripts themselves.
    """
    everything = list(definitions)
    words, chosen = set(_WORD.findall(_COMMENT.sub("", script))), set[int]()
    while True:
        new = {
            n for n, definition in enumerate(everything)
            if n not in chosen and not words.isdisjoint(definition.names)
        }  # fmt: skip
        if not new:
            return [everything[n] for n in sorted(chosen)]
        chosen |= new
        words.update(*(everything[n].words for n in new))


def nested(definitions: Sequence[Definition], script: str) -> str:
    """The text of a script after its definitions, in nested functions.

    When Lua creates a function, it searches each variable of the surrounding function among all
    that other functions use, but finds those of the outer functions at once. So on one level the
    time grows with the square of the number of definitions.
    """
    parts, declared, on_level, levels = list[str](), set[str](), 0, 0
    for n, definition in enumerate(definitions):
        if on_level >= _LEVEL:
            rest = set(_WORD.findall(script)).union(*(each.words for each in definitions[n:]))
            # Each of these becomes a variable that the function captures.
            if len(declared & rest) <= _MOST_CAPTURED:
                parts.append("return (function()")
                on_level, levels = 0, levels + 1
        parts.append(definition.text)
        declared |= definition.names
        on_level += 1
    return "\n".join([*parts, script, "end)()" * levels])


class Scripts:
    """The Lua scripts of one ledger, by name."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._keys = [settings.namespace, settings.send_key, settings.hook_key]
        self._scripts: dict[str, Script] = {}
        timeout: float = client.connection_pool.connection_kwargs["socket_timeout"]
        self._wait_ms = int(min(_MOST_WAIT_MS, 500 * timeout))

    @cached_property
    def _shared(self) -> list[Definition]:
        """Definitions for all scripts: times and limits of the settings, and the shared files."""
        s = self._settings
        times = {
            "GRACE": s.grace,
            "RETENTION": s.retention,
            "REPORT_WAIT": s.report_wait,
            "PARK_WAIT": s.park_wait,
            "HOOK_LEASE": s.hook_lease,
        }
        numbers = {name: int(seconds * 1000) for name, seconds in times.items()}
        numbers |= {"WATERMARK": s.watermark, "BULK_WATERMARK": s.bulk_watermark}
        numbers["WEBHOOK_QUOTA"] = s.webhook_quota
        lines = [f"local {name} = {number}" for name, number in numbers.items()]
        texts = ["\n".join(lines), *(self.text_of(f"shared/{name}") for name in _SHARED)]
        return [definition for text in texts for definition in definitions_of(text)]

    def text_of(self, name: str) -> str:
        """The text of a script, or of a file that scripts share."""
        return files(__package__).joinpath(f"{name}.lua").read_text("utf-8")

    def _script(self, name: str) -> Script:
        if name not in self._scripts:
            how = "run_and_write" if name in _DEFERRED_WRITES else "run_alone"
            how = "run_group" if name in _GROUPED else how
            # Above maxmemory Redis forbids a script's first write unless that frees memory, and
            # allows all later ones.
            text = "" if name in _REFUSED_WHEN_FULL | _READ_ONLY else _FIRST_WRITE
            # Its ARGV are those of one item of the group.
            run = f"('{_SUBJECTS.get(name, '')}', function(ARGV)\n{self.text_of(name)}\nend"
            text += (
                f"return run_audited{run}, {how})" if name in _AUDITED else f"return {how}{run})"
            )
            definitions = needed(self._shared, text)
            self._scripts[name] = self._client.register_script(nested(definitions, text))
        return self._scripts[name]

    def run(
        self,
        name: str,
        *args: str | int | float,
        action: Action | None = None,
        client: Any = None,
    ) -> Any:
        """Run a script. With a pipeline as ``client`` the pipeline returns the answer.

        Args:
            action: Of which the script of an operator is a part; None: it is not recorded.
        """
        if name in _GROUPED:
            (answer,) = self.run_group(name, [args], action=action)
            if isinstance(answer, exc.QueueUnavailable):
                raise answer
            return answer
        try:
            return self._call(name, args, client, action=action)
        except exc.DamagedRecord as error:
            if name not in _SUBJECTS:
                raise
            # The error of the script does not name the record.
            raise exc.DamagedRecord(error.cause, str(args[0])) from None

    def _call(
        self,
        name: str,
        args: Sequence[Any],
        client: Any = None,
        *,
        writes: Sequence[str] = (),
        action: Action | None = None,
    ) -> Any:
        if name in _AUDITED:
            args = (*args, action.to_json() if action else "")
        kinds = writes if name in _WITHOUT_EVENTS else ("event", *writes)
        keys = [*self._keys, *(f"{self._settings.namespace}:{kind}:" for kind in kinds)]
        script = self._script(name)
        try:
            with translated(self._settings, for_operators=name in _OF_OPERATORS):
                waits = client is None and self._settings.wait_replicas > 0
                if waits and name in _CONFIRMED_BY_REPLICAS:
                    return self._on_replicas(script, keys, args)
                return script(keys=keys, args=args, client=client)
        except exc.QueueUnavailable as error:
            if isinstance(error, _Unconfirmed) or may_not_write(error.__cause__ or error):
                # It is no longer the primary, or cut off: the next command asks which one is.
                self._client.connection_pool.disconnect(inuse_connections=False)
            raise

    def _on_replicas(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script, and wait until replicas have what it wrote; in one round trip.

        WAIT counts for what its own connection has written, so both are sent together.
        """
        run: tuple[Any, ...] = ("EVALSHA", script.sha)
        needed, wait_ms = self._settings.wait_replicas, self._wait_ms
        while True:
            pipe: Any = self._client.pipeline(transaction=False)
            pipe.execute_command(*run, len(keys), *keys, *args)
            pipe.execute_command("WAIT", needed, wait_ms)
            answer, confirmed = pipe.execute(raise_on_error=False)
            if not isinstance(answer, redis.exceptions.NoScriptError):
                break
            run = ("EVAL", script.script)  # another server than before
        for each in (answer, confirmed):
            if isinstance(each, Exception):
                raise each
        if confirmed < needed:
            raise _Unconfirmed(
                f"Redis at {self._settings.safe_redis_url} has recorded this, but {confirmed} of "
                f"{needed} replicas confirmed it within {wait_ms} ms (SMSQUEUE_WAIT_REPLICAS), so "
                "a failover may undo it: check the replicas (redis-cli INFO replication)"
            )
        return answer

    def run_group(
        self,
        name: str,
        items: Sequence[Sequence[str | int | float]],
        *,
        writes: Sequence[str] = (),
        action: Action | None = None,
    ) -> list[Any]:
        """Run a script for each item of a group, in few calls, each of a few milliseconds.

        Args:
            items: The arguments of each item, the same number for all; first the id of its record.
            writes: Kinds of keys that the script writes for these items, and that the account may
                lack: then Redis refuses it before it changes anything.
            action: As in :meth:`run`.

        Returns:
            For each item its answer, or the error that concerns it alone.

        Raises:
            QueueUnavailable: Redis did not confirm all of them. Repeating the whole group returns
                the first answers.
        """
        if len(items) > GROUP_LIMIT:
            raise ValueError(f"a group has {GROUP_LIMIT} items at most, not {len(items)}")
        answers: list[Any] = []
        while len(answers) < len(items):
            rest = items[len(answers) :]
            args = [len(rest[0]), *(argument for item in rest for argument in item)]
            answered = self._call(name, args, writes=writes, action=action)
            for item, answer in zip(rest, answered, strict=False):
                answers.append(answer[0] if len(answer) == 1 else self._error(answer[1], item[0]))
        return answers

    def _error(self, text: str, id: str | int | float) -> exc.QueueUnavailable:
        """The error of one item of a group."""
        if text.startswith("DAMAGED "):
            return exc.DamagedRecord(text.partition(" ")[2], str(id))
        return error_of_answer(self._settings, text)
