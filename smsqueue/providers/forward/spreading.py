"""Passing one event on to several clients: at once, each for itself, none twice.

The event is the ledger's: it is repeated until all clients took it. Each that did is remembered
with the event, as a handler that succeeded is, so a repetition calls the others only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from smsqueue import exc
from smsqueue.events import current_event
from smsqueue.logs import get_logger
from smsqueue.message.masking import word
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageAccepted
from smsqueue.policy.retry import error_label
from smsqueue.providers.forward.address import label, mark
from smsqueue.providers.forward.errors import known
from smsqueue.providers.forward.formats import format_named
from smsqueue.providers.forward.health import Health
from smsqueue.providers.forward.hops import LOOP, Hops
from smsqueue.providers.forward.link import Link
from smsqueue.providers.forward.outbound import outbound
from smsqueue.providers.forward.parts import Event, Thing
from smsqueue.providers.forward.signing import Signer

__all__ = ["Spreader"]

log = get_logger(__name__)

#: Clients that one event is passed to at the same time.
_MOST_THREADS = 32
#: The view that reports go to, and the field that they are in.
_STATUS = ("status", "status")


@dataclass(frozen=True)
class _Failure:
    """A client that did not take an event."""

    reason: str
    kind: type[exc.ProviderError]


def _class_of(error: Exception) -> type[exc.ProviderError]:
    """The class of smsframework's that an error of a client is of."""
    return known(error_label(error)) or exc.ProviderError


class Spreader:
    """Passes events on.

    Args:
        speak: The format of all clients, or of some by address.
        config: Of the calls, see :class:`~smsqueue.providers.http.HttpProvider`.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        hops: Hops,
        signer: Signer | None,
        speak: str | Mapping[str, str],
        config: Mapping[str, Any],
    ) -> None:
        self._gateway = gateway
        self._name = name
        self._hops = hops
        self._signer = signer
        # By what an address is known by: however it is written, whatever credentials it holds.
        self._speak = (
            speak if isinstance(speak, str) else {mark(url): name for url, name in speak.items()}
        )
        self._config = config
        self._links: dict[str, tuple[Link, Health]] = {}

    def link(self, client: str) -> tuple[Link, Health]:
        """How to call a client, and how it fared; ValueError for what is no address."""
        if client not in self._links:
            speak = self._speak
            link = Link(
                self._gateway,
                self._name,
                url=client,
                side="client",
                signer=self._signer,
                format=format_named(
                    speak if isinstance(speak, str) else speak.get(mark(client), "smsqueue")
                ),
                **self._config,
            )
            # Two threads may do this at once: the first one's is kept.
            self._links.setdefault(client, (link, Health(link.deadline)))
        return self._links[client]

    def spread(self, thing: Thing, clients: Iterable[str]) -> None:
        """Call the clients that do not have it yet, all at the same time.

        Raises:
            ProviderError: some did not take it; of the class of their errors, if all of these
                are of one class (:class:`~smsqueue.exc.ConnectionError`: nobody answered).
        """
        event = outbound(self._of_message(thing), self._hops.onward(thing.meta))
        recorded = current_event()
        done = self._done(recorded)
        todo = [each for each in dict.fromkeys(clients) if self._mark(each) not in done]
        if not todo:
            return
        with ThreadPoolExecutor(min(len(todo), _MOST_THREADS)) as pool:
            passed = list(pool.map(lambda client: self._pass(event, client, recorded), todo))
        failures = [failure for failure in passed if failure is not None]
        if failures:
            reasons = "; ".join(failure.reason for failure in failures)
            classes = {failure.kind for failure in failures}
            kind = classes.pop() if len(classes) == 1 else exc.ProviderError
            raise kind(
                f"{len(failures)} of {len(todo)} clients did not take it: {reasons}",
                provider=self._name,
            )

    def _pass(self, event: Event, client: str, recorded: str | None) -> _Failure | None:
        """Call one client; why it did not take the event, or None."""
        try:
            link, health = self.link(client)
            if not health.may_call():
                return _Failure(f"{label(client)} failed a moment ago", health.last_failure)
            well, failure = False, exc.ProviderError
            try:
                self._call(link, event, client)
                well = True
            except exc.RequestError:
                well = True  # it is there, and does not want this one
                raise
            except exc.ProviderError as error:
                failure = _class_of(error)
                raise
            finally:
                health.report(well=well, failure=failure)
            self._remember(recorded, client)
        except Exception as error:  # whatever it is, the other clients get theirs
            code = getattr(error, "code", None)
            said = f"{error_label(error)} {word(str(code)) if code else ''}".rstrip()
            log.warning("%s: %s did not take an event: %s", self._name, label(client), said)
            return _Failure(f"{label(client)}: {said}", _class_of(error))
        return None

    def _call(self, link: Link, event: Event, client: str) -> None:
        view, field = ("im", "message") if isinstance(event.thing, IncomingMessage) else _STATUS
        try:
            link.ask(
                view,
                link.format.dump_event(event),
                lambda told: link.format.load_heard(field, told),
            )
        except exc.RequestError as error:
            if error.code != LOOP:
                raise
            # It has been there, so nothing is lost, and no repetition would change it.
            log.error("%s: %s: an event goes round in a circle", self._name, label(client))

    def _mark(self, client: str) -> str:
        return f"forward:{self._name}:{mark(client)}"

    def _done(self, recorded: str | None) -> set[str]:
        """Marks of the clients that have an event."""
        if recorded is None:  # an eager gateway has no ledger
            return set()
        done: set[str] = self._gateway.ledger.handlers_done(recorded)
        return done

    def _of_message(self, thing: Thing) -> Thing:
        """Clients know one id of a message, not those of its parts: that a part was delivered is
        told as *accepted* until the message is.

        Raises:
            ServerError: nobody knows yet how many parts it has; to be repeated.
        """
        if isinstance(thing, IncomingMessage) or not thing.delivered or thing.id is None:
            return thing
        try:
            record = self._gateway.lookup(thing.id)
        except LookupError:
            return thing
        part = thing.of_part or isinstance(record.msgid, list)
        if not part or record.state == State.DELIVERED:
            return thing
        if record.state == State.SENDING:
            raise exc.ServerError("the message is being sent: its parts are not known yet")
        passed = MessageAccepted(thing.msgid)
        vars(passed).update(vars(thing))
        passed.accepted, passed.delivered = True, False
        return passed

    def _remember(self, recorded: str | None, client: str) -> None:
        if recorded is None:
            return
        for pause in (0.2, 1.0, 5.0, None):
            try:
                self._gateway.ledger.handler_done(recorded, self._mark(client))
                return
            except exc.QueueUnavailable:
                if pause is None:
                    raise
                time.sleep(pause)
