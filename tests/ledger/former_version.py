"""Processes of a former version beside those of this one, as in every rolling upgrade."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Any

from smsqueue.ledger.scripts import Scripts
from tests.ledger.bench import Bench

#: Fields of records and pauses that were renamed, with the name in the former version.
FORMER_NAMES = {
    "published_at": "out",
    "waiting_for": "behind",
    "wait_queue": "line",
    "checked_at": "looked",
    "validity_left_ms": "left",
    "first_attempt": "first",
    "awaited_attempt": "gathers",
    "lost_workers": "lapses",
    "times_asked": "asks",
    "ask_after_ms": "ask",
    "next_check_at": "looks",
}

_NEW = "|".join(FORMER_NAMES)
_FIELD = re.compile(rf"(?<=')({_NEW})(?=')|(?<=\b[mfp]\.)({_NEW})\b")


class FormerScripts(Scripts):
    """The scripts of a version that reads, sets and removes the former names only."""

    def text_of(self, name: str) -> str:
        text = re.sub(r"(local FORMER_NAMES = \{)[^}]*\}", r"\1}", super().text_of(name))
        text = _FIELD.sub(lambda match: FORMER_NAMES[match[0]], text)
        return re.sub(r"\bcomplete\b", "told", text)


class MixedScripts(Scripts):
    """Runs each script in the version that a test chooses."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.ledger.redis, bench.settings)
        self._former = FormerScripts(bench.ledger.redis, bench.settings)
        self.former = False
        #: Chooses the version of each call; None: :attr:`former` does.
        self.random: Random | None = None

    def run(self, name: str, *args: str | int | float, **options: Any) -> Any:
        scripts = self._former if self._runs_former() else super()
        return scripts.run(name, *args, **options)

    def run_group(
        self, name: str, items: Sequence[Sequence[str | int | float]], **options: Any
    ) -> list[Any]:
        scripts = self._former if self._runs_former() else super()
        return scripts.run_group(name, items, **options)

    def _runs_former(self) -> bool:
        return self.random.random() < 0.5 if self.random else self.former


def mix_versions(bench: Bench) -> MixedScripts:
    """Let the bench's worker, sender and receiver run scripts of both versions."""
    scripts = MixedScripts(bench)
    for ledger in (bench.ledger, bench.gateway.ledger):
        ledger._scripts = scripts
    return scripts
