"""A TCP proxy before Redis, under the test's control."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Proxy", "Rule"]

_KEEP = 64


@dataclass
class Rule:
    """Which exchange is cut, and where.

    ``request``: the command never arrives. ``reply``: it is done, and its answer never arrives.
    ``half``: half of the answer does.
    """

    request: bytes
    where: Literal["request", "reply", "half"] = "reply"
    #: What the answer must hold; a BRPOP that found nothing is none to cut.
    reply: bytes = b""
    left: int = 1
    fired: int = 0

    def fire(self) -> bool:
        if self.left < 1:
            return False
        self.left -= 1
        self.fired += 1
        return True


@dataclass(eq=False)
class _Link:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    rule: Rule | None = None
    #: Swallows everything from now on.
    dead: bool = False
    tail: bytes = field(default=b"", repr=False)

    def cut(self) -> None:
        for side in (self.client, self.server):
            if side is not None:
                side.transport.abort()


class Proxy:
    """Listens on a port of its own for one server on loopback."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self._rules: list[Rule] = []
        self._links: set[_Link] = set()
        self._hole = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, request: bytes, **options: Any) -> Rule:
        """Cut the next such exchanges."""
        rule = Rule(request, **options)
        self._rules = [r for r in self._rules if r.left > 0] + [rule]
        return rule

    def cut_all(self) -> None:
        """Cut every connection."""
        self._do(self._cut_all())

    def blackhole(self, on: bool) -> None:
        """Swallow what comes. Connections of that time stay half open for ever."""
        self._hole = on
        for link in self._links if on else ():
            link.dead = True

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _cut_all(self) -> None:
        for link in list(self._links):
            link.cut()

    async def _close(self) -> None:
        self._server.close()
        await self._cut_all()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:
            await asyncio.wait(rest, timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer, dead=self._hole)
        self._links.add(link)
        try:
            answers, link.server = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(self._up(link, reader), self._down(link, answers))
        except OSError:
            pass
        finally:
            link.cut()
            self._links.discard(link)
            for side in (link.client, link.server):
                if side is not None:
                    with contextlib.suppress(OSError):
                        await side.wait_closed()

    async def _up(self, link: _Link, reader: asyncio.StreamReader) -> None:
        assert link.server is not None
        while data := await reader.read(65536):
            if link.dead:
                continue
            text = link.tail + data
            link.tail = text[-_KEEP:]
            rule = next((r for r in self._rules if r.left > 0 and r.request in text), None)
            if rule is not None:
                link.tail = b""
                if rule.where == "request" and rule.fire():
                    break
            link.rule = rule or link.rule
            link.server.write(data)
            await link.server.drain()
        link.cut()

    async def _down(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            rule = link.rule
            if link.dead:
                continue
            if rule is not None and rule.where != "request" and rule.reply in data and rule.fire():
                if rule.where == "half":
                    link.client.write(data[: len(data) // 2])
                    await link.client.drain()
                    link.client.close()
                break
            link.client.write(data)
            await link.client.drain()
        link.cut()
