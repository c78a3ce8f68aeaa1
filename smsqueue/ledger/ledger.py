"""The ledger's operations. Each is one script.

Callers make the ids and tokens, so that repeating a call whose answer was lost returns the first
answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import redis

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import sleep
from smsqueue.ledger.audit_log import Action
from smsqueue.ledger.client import translated
from smsqueue.ledger.limits import GROUP_LIMIT
from smsqueue.ledger.pauses import OperatorPause
from smsqueue.ledger.queries import LedgerReader
from smsqueue.ledger.script_values import (
    Accepted,
    AttemptBegun,
    AttemptOutcome,
    BeginAnswer,
    Beginning,
    BulkChange,
    BulkFailure,
    BulkOperation,
    BulkRequest,
    BulkStep,
    Cancelled,
    ClaimAnswer,
    Claiming,
    ClaimLost,
    EventClaimAnswer,
    EventSettlement,
    EventTransition,
    Failure,
    Lapse,
    OptedOut,
    ProviderPaused,
    Purged,
    Received,
    Remedies,
    Repaired,
    Replayed,
    Reported,
    Requeued,
    Room,
    Settlement,
    Swept,
    Taken,
    Transition,
    Unclaimed,
    Webhooks,
    claim_answer,
    event_claim_answer,
)
from smsqueue.ledger.selection import Selection
from smsqueue.lib import digits_only
from smsqueue.message import serialization
from smsqueue.message.ids import new_id, time_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.opt_outs import OptOutChange
from smsqueue.message.segments import segments_of
from smsqueue.message.states import REQUEUED_FROM, EventState, State
from smsqueue.message.statuses import MessageStatus

__all__ = ["Ledger", "unless_error"]

#: Bytes that a webhook usually takes in Redis.
_USUAL_WEBHOOK = 2048

#: JSON for scripts. Unpaired surrogates are left to clean(): Lua cannot parse their escapes.
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)

T = TypeVar("T")

#: Entries of an index that one step of a bulk operation examines at most, so that it takes a few
#: milliseconds.
_BULK_PAGE = 200
#: Pause after each step, as a fraction of the time that it took, so that others find Redis free;
#: and the longest one, in seconds.
_BULK_PAUSE, _LONGEST_BULK_PAUSE = 0.25, 0.02
#: Messages of a bulk operation whose tasks end at once, as monitors see it.
_CLOSINGS = 20

#: ``Retry-After``, in seconds, of a webhook that was refused for lack of memory.
_RETRY_AFTER = 60.0


def _spaced(names: Collection[str]) -> str:
    """Names for Lua to search in, with a space around each."""
    return f" {' '.join(names)} " if names else ""


class Ledger(LedgerReader):
    """Reads and changes the ledger of one namespace.

    Args:
        timeout: Seconds that a command may take; short in web processes, longer in workers.

    Every operation raises QueueUnavailable if Redis did not confirm it.
    """

    # --- accepting -----------------------------------------------------------------------------

    def accept(self, message: OutgoingMessage, id: str, *, bulk: bool = False) -> Accepted:
        """Accept a message; it is kept once this has returned ``accepted``."""
        (answer,) = self._accept([self._accept_arguments(message, id, bulk)])
        return _accepted(unless_error(answer))

    def accept_many(self, batch: list[tuple[OutgoingMessage, str]]) -> list[Accepted]:
        """Accept up to ``GROUP_LIMIT`` messages of a campaign in one round trip.

        If it raises an error, any of them may have been accepted. Repeating the call with the same
        ids is safe.
        """
        answers = self._accept([self._accept_arguments(message, id, True) for message, id in batch])
        return [_accepted(unless_error(answer)) for answer in answers]

    def _accept(self, items: Sequence[tuple[str | int, ...]]) -> list[Any]:
        has_tags = any(item[15] for item in items)
        return self._scripts.run_group("accept", items, writes=("tag",) if has_tags else ())

    def _accept_arguments(
        self, message: OutgoingMessage, id: str, bulk: bool
    ) -> tuple[str | int, ...]:
        """The arguments of accept.lua."""
        options = message.provider_options
        dumped = serialization.dump_outgoing(message)
        data = serialization.to_json(dumped | ({"bulk": True} if bulk else {}))
        key = options.idempotency_key or message.derived_key
        older = serialization.older_content_of(message)
        return (
            id,
            data,
            int(options.send_at.timestamp() * 1000) if options.send_at else "",
            int(options.expires * 60_000) if options.expires else "",
            self.hash_of(message.dst),
            self.hash_of(key) if key else "",
            self.hash_of(serialization.content_of(message)),
            1 if options.status_report else "",
            1 if options.on_unknown == "resend" else "",
            1 if bulk else "",
            self.hash_of(older) if older else "",
            self.former_hash_of(key) if key else "",
            self.former_hash_of(serialization.content_of(message)),
            self.former_hash_of(older) if older else "",
            1 if "provider" in dumped or "route" in dumped else "",
            " ".join(options.tag),
            self.former_hash_of(message.dst),
        )

    def receive(
        self,
        message: IncomingMessage,
        *,
        repeats: bool,
        opt_out: tuple[str, OptOutChange] | None = None,
    ) -> Received:
        """Record an incoming message, or a part of one.

        Args:
            repeats: Equal message ids mean that the provider repeated the webhook.
            opt_out: Number and change that the message asks for, in the same step.

        Raises:
            QueueUnavailable: also if Redis is nearly full, or the provider's quota is used up.
        """
        data = serialization.dump_incoming(message)
        # The sender's digits only, as in the hashes of older versions.
        sender = digits_only(message.src)
        same: tuple[Any, ...] = (message.provider, str(message.msgid), sender, message.body)
        known = message.msgid not in (None, "")
        if not known and message.signed_by:
            same = (message.provider, "signature", message.signed_by)
        repeats = (repeats and known) or bool(not known and message.signed_by)
        repetition = self.hash_of(serialization.to_json(same)) if repeats else ""
        former = self.former_hash_of(serialization.to_json(same)) if repeats else ""
        rest = (self.hash_of(message.src), message.provider or "")
        if message.part is None:
            answer = self._scripts.run(
                *("receive", new_id(), repetition, serialization.to_json(data), *rest, former),
                *(self._opt_out_arguments(*opt_out) if opt_out else ()),
            )
            return self._received(answer, message.provider)
        part = message.part
        body, media = (
            serialization.to_json(data.pop("body")),
            serialization.to_json(data.pop("media", [])),
        )
        # The last field, so that the script can append to it.
        data["meta"] = (data.pop("meta") or {}) | {"parts": part.total}
        group = serialization.to_json(
            (message.provider, message.src, message.dst, part.ref, part.total)
        )
        # One key for all processes, including those without SMSQUEUE_HASH_KEY yet.
        joined = self.former_hash_of(group) or self.hash_of(group)
        answer = self._scripts.run(
            *(
                "receive_part",
                new_id(),
                repetition,
                serialization.to_json(data)[:-2],
                body[1:-1],
                *rest,
            ),
            *(joined, part.number, part.total, int(part.wait * 1000)),
            *(media[1:-1], former),
        )
        return self._received(answer, message.provider)

    def change_opt_out(
        self, number: str, change: OptOutChange, *, action: Action | None = None
    ) -> bool:
        """Add or end an opt-out of a number.

        Args:
            number: Its digits, with the country code.

        Returns:
            Whether anything changed.
        """
        arguments = self._opt_out_arguments(number, change)
        return bool(self._scripts.run("opt_out", *arguments, action=action))

    def change_opt_outs(
        self, changes: Sequence[tuple[str, OptOutChange]], *, action: Action | None = None
    ) -> int:
        """Change up to ``GROUP_LIMIT`` opt-outs in one round trip; returns how many changed."""
        rows = [self._opt_out_arguments(*change) for change in changes]
        answers = self._scripts.run_group("opt_out", rows, action=action)
        return sum(bool(unless_error(answer)) for answer in answers)

    def _opt_out_arguments(self, number: str, change: OptOutChange) -> tuple[str, ...]:
        hashes = (self.hash_of(number), self.former_hash_of(number))
        why = (serialization.clean(change.scope), serialization.clean(change.why), change.by)
        return (*hashes, number, *why, "end" if change.ends else "add")

    def note(self, provider: str, signature: str, request: str, seconds: float | None) -> str:
        """Remember for which request a webhook's signature was used.

        Args:
            seconds: For how long; None: forget it.

        Returns:
            "new", "same" (it was used for this request) or "other" (for another request).
        """
        kept_ms = "" if seconds is None else max(1, int(seconds * 1000))
        names = (
            self.hash_of(serialization.to_json(["signature", provider, signature])),
            self.hash_of(request),
        )
        answer: str = self._scripts.run("remember_signature", *names, kept_ms)
        return answer

    def _received(self, answer: Any, provider: str | None) -> Received:
        verdict, event, publish = answer
        if verdict == "full":
            raise self._full_of_webhooks(event, provider)
        return Received(bool(publish), event)

    def _full_of_webhooks(self, why: str, provider: str | None) -> exc.QueueUnavailable:
        text = self.full_text("webhooks")
        no_room = "Redis is nearly full: what was accepted needs the rest of its maxmemory"
        if why == "quota":
            no_room = (
                "those that are there hold as much of Redis as they may (SMSQUEUE_WEBHOOK_QUOTA, "
                "or a part of its maxmemory)"
            )
            text = (
                f"the webhooks of {provider!r} hold as much of Redis at "
                f"{self.settings.safe_redis_url} as those of one provider may "
                "(SMSQUEUE_WEBHOOK_QUOTA, or a part of its maxmemory): more are refused until "
                f"they were handled. 'smsqueue purge --provider {provider}' deletes what is not "
                "wanted"
            )
        error = exc.QueueUnavailable(text, retry_after=_RETRY_AFTER)
        error.no_room = no_room
        return error

    def full_text(self, refused: str) -> str:
        """Text of the error that Redis has no memory for more, with the remedy."""
        return (
            f"Redis at {self.settings.safe_redis_url} is nearly full, {refused} are refused: what "
            "is left of its maxmemory is needed for those that were accepted. Raise maxmemory "
            "(CONFIG SET maxmemory, and its configuration), or wait until messages are final; "
            "'smsqueue status' shows how much is left"
        )

    def room(self) -> Room:
        """The memory that is left for new messages and webhooks, and what webhooks take."""
        answer = self._scripts.run("memory_left")
        numbers: Any = [int(number) for number in answer[:8]]
        room, rest = Room(*numbers), answer[8:]
        webhooks = []
        for i in range(0, len(rest), 4):
            waiting, held, kept = (int(number) for number in rest[i + 1 : i + 4])
            # The next webhook takes memory, too.
            refused = held >= min(0.99 * room.quota, room.quota - _USUAL_WEBHOOK) or (
                bool(room.max) and held + kept > room.heavy and room.heavy_left < 0
            )
            webhooks.append(Webhooks(rest[i], waiting, held, kept, refused))
        return room._replace(webhooks=tuple(sorted(webhooks)))

    def report(self, status: MessageStatus, *, pids: list[str]) -> Reported:
        """Record a delivery report.

        Raises:
            QueueUnavailable: also as in :meth:`receive`, but not if it changes an accepted message.
        """
        id, _, attempt = serialization.clean(status.reference or "").rpartition(".")
        data = serialization.dump_status(status)
        same = {k: data[k] for k in ("provider", "msgid", "status_code", "status", "reference")}
        if status.event_id:
            same = {"provider": status.provider, "event": status.event_id}
        repetition = serialization.to_json([same, sorted(status.states)])
        verdict, close, *rest = self._scripts.run(
            "report",
            new_id(),
            status.provider or "",
            _for_lua(pids),
            id,
            attempt if attempt.isdigit() and len(attempt) < 9 else "",
            status.state or "",
            "" if status.status_code is None else serialization.clean(str(status.status_code))[:64],
            self.hash_of(repetition),
            serialization.to_json(data),
            self._parts_of(id) if status.of_part else "",
            self.former_hash_of(repetition),
        )
        if verdict == "full":
            raise self._full_of_webhooks(close, status.provider)
        message, moved, bulk, *events = rest
        return Reported(
            close or None, message or None, bool(moved), events, moved or None, bool(bulk)
        )

    def _parts_of(self, id: str) -> int:
        """Parts of a message's text by our count, which may differ from the provider's.

        1 if the message cannot be read: the report is recorded anyway.
        """
        with translated(self.settings):
            try:
                data: Any = self.redis.hget(self._key("msg", id), "data")
            except redis.exceptions.ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                return 1
        try:
            return max(1, segments_of(json.loads(data)["body"]).parts) if data else 1
        except Exception:  # a damaged record may hold anything
            return 1

    # --- sending -------------------------------------------------------------------------------

    def claim(
        self,
        id: str,
        token: str,
        *,
        lease: float,
        worker: str,
        default: tuple[str, float] | None = None,
        if_single: bool = False,
        exempt: Collection[str] = (),
    ) -> ClaimAnswer:
        """Claim a message for one worker.

        Args:
            lease: Seconds until the router has answered.
            default: Provider of messages that need no router, whose attempt begins in the same
                step; and the seconds of a lease of a call there.
            if_single: Begin that attempt only if the message was not sent by ``send_many``.
            exempt: Categories that go out in spite of an opt-out.
        """
        provider, call_lease = default or ("", 0.0)
        item = Claiming(id, token, lease, worker, provider, call_lease, if_single, exempt)
        (answer,) = self.claim_many([item])
        if isinstance(answer, exc.QueueUnavailable):
            raise answer
        return answer

    def claim_many(self, items: Sequence[Claiming]) -> list[ClaimAnswer | exc.QueueUnavailable]:
        """Claim several messages in one call, each as :meth:`claim`.

        All ``..._many`` return for each item its answer, or the error that concerns it alone. The
        methods for one item call them with a group of one.

        Args:
            items: At most :data:`GROUP_LIMIT`.

        Raises:
            QueueUnavailable: Redis did not confirm all of them. Repeating the whole group returns
                the first answers and counts nothing twice.
        """
        rows = [
            (
                *(i.id, i.token, int(i.lease * 1000), i.worker, new_id()),
                *(i.default, int(i.default_lease * 1000), 1 if i.if_single else ""),
                _spaced(i.exempt),
            )
            for i in items
        ]
        return _parsed(claim_answer, self._scripts.run_group("claim", rows))

    def unclaim(self, id: str, token: str) -> Unclaimed | None:
        """Take back a claim whose answer was lost; None if it has had no effect, nor will have."""
        (answer,) = self.unclaim_many([(id, token)])
        return unless_error(answer)

    def unclaim_many(
        self, items: Sequence[tuple[str, str]]
    ) -> list[Unclaimed | exc.QueueUnavailable | None]:
        """Take several claims back, each as :meth:`unclaim`; items: id and token."""

        def parse(answer: Any) -> Unclaimed | None:
            effect, attempts, provider = answer
            return Unclaimed(int(attempts), provider or None) if effect else None

        return _parsed(parse, self._scripts.run_group("revoke_claim", items))

    def put_back(self, kind: str, ids: Sequence[str]) -> None:
        """Give back ids of triggers that were not claimed: they are published again at once.

        Args:
            kind: "msg" or "event".
        """
        for start in range(0, len(ids), GROUP_LIMIT):
            some = ids[start : start + GROUP_LIMIT]
            self._scripts.run_group("return_trigger", [(id, kind) for id in some])

    def begin(
        self,
        id: str,
        token: str,
        provider: str,
        *,
        lease: float,
        attempt: int,
        exempt: Collection[str] = (),
    ) -> BeginAnswer:
        """Begin an attempt under a claim.

        Args:
            lease: Seconds of the lease of the call.
            attempt: The number that it would have.
            exempt: Categories that go out in spite of an opt-out.
        """
        (answer,) = self.begin_many([Beginning(id, token, provider, lease, attempt, exempt)])
        if isinstance(answer, exc.QueueUnavailable):
            raise answer
        return answer

    def begin_many(self, items: Sequence[Beginning]) -> list[BeginAnswer | exc.QueueUnavailable]:
        """Begin several attempts, each as :meth:`begin`."""

        def parse(answer: Any) -> BeginAnswer:
            match answer:
                case ["go", number]:
                    return AttemptBegun(int(number))
                case ["paused", left_ms]:
                    return ProviderPaused(int(left_ms))
                case ["opted_out", event]:
                    return OptedOut(event)
            return ClaimLost()

        rows = [
            (i.id, i.token, i.provider, int(i.lease * 1000), i.attempt, new_id(), _spaced(i.exempt))
            for i in items
        ]
        return _parsed(parse, self._scripts.run_group("begin", rows))

    def settle(self, id: str, token: str, attempt: int, outcome: AttemptOutcome) -> Transition:
        """Record how an attempt ended."""
        (answer,) = self.settle_many([Settlement(id, token, attempt, outcome)])
        return unless_error(answer)

    def settle_many(self, items: Sequence[Settlement]) -> list[Transition | exc.QueueUnavailable]:
        """Record how several attempts ended, each as :meth:`settle`."""

        def parse(answer: Any) -> Transition:
            state, look, go, number, *events = answer
            begun = int(number) if go == "go" else None
            return Transition(state, int(float(look)) if look else None, begun, events)

        rows = [(i.id, i.token, i.attempt, _for_lua(i.outcome.to_json())) for i in items]
        return _parsed(parse, self._scripts.run_group("settle", rows))

    def asked(self, id: str, again: float) -> None:
        """Record that a provider knows nothing of a message (yet).

        Args:
            again: Seconds until it is asked again.
        """
        self._scripts.run("ask_later", id, int(again * 1000))

    # Of each operation of an operator, ``action`` is what it is a part of, for the audit; None: it
    # is not recorded.

    def begin_action(self, action: Action, matched: int | None = None) -> None:
        """Record that an operator begins an action on many records.

        Args:
            matched: How many records it is about; None: they were not counted.
        """
        self._scripts.run("action_begin", "" if matched is None else matched, action=action)

    def end_action(self, action: Action, *, interrupted: bool = False) -> None:
        """Record how an action on many records ended."""
        result = "interrupted" if interrupted else "done"
        self._scripts.run("action_end", result, action=action)

    def pause(
        self,
        scope: str,
        *,
        by: str,
        reason: str = "",
        until: datetime | None = None,
        seconds: float | None = None,
        action: Action | None = None,
    ) -> OperatorPause:
        """Pause a provider, a tag or everything; a second pause of it replaces the first.

        Args:
            scope: As :func:`smsqueue.ledger.pauses.pause_scope` returns it.
            until, seconds: When it ends, or after how long; neither: when it is resumed.

        Raises:
            ValueError: its end is over, or too many tags are paused.
        """
        ends: str | int = ""
        if until is not None:
            ends = int(until.timestamp() * 1000)
        length = "" if seconds is None else int(seconds * 1000)
        answer = self._scripts.run("pause", scope, ends, length, reason, by, action=action)
        match answer:
            case ["past"]:
                raise ValueError("the end of the pause is in the past: give a time to come")
            case ["many"]:
                raise ValueError(
                    "100 tags are paused already: resume some, or pause everything instead"
                )
        _, ends, waiting = answer
        end = datetime.fromtimestamp(int(ends) / 1000, UTC) if ends != "" else None
        return OperatorPause(scope, by, reason, datetime.now(UTC), end, int(waiting))

    def resume(self, scope: str, *, action: Action | None = None) -> int | None:
        """End a pause at once, also one that a provider asked for.

        Returns:
            How many messages waited because of it, of a provider about how many; None: it was not
            paused.
        """
        paused, waiting = self._scripts.run("resume", scope, action=action)
        return int(waiting) if paused else None

    def cancel(self, id: str, *, action: Action | None = None) -> Cancelled:
        """Cancel a message that waits; in any other state it stays as it is."""
        before, event, publish = self._scripts.run("cancel", id, new_id(), action=action)
        return Cancelled(before, event, bool(publish))

    def requeue(
        self,
        id: str,
        expires: float | None,
        *,
        bulk: bool = False,
        states: Iterable[str] = REQUEUED_FROM,
        action: Action | None = None,
    ) -> Requeued:
        """Send a message again.

        Args:
            expires: Minutes for which it is valid; None: for as long as before.
            states: States in which it may be.
        """
        validity = int(expires * 60_000) if expires else ""
        before, publish, state = self._scripts.run(
            "requeue", id, validity, 1 if bulk else "", " ".join(states), action=action
        )
        return Requeued(before, bool(publish), state or before)

    def decide(self, id: str, state: State, *, action: Action | None = None) -> Requeued:
        """Settle an unknown message by hand; in any other state it stays as it is."""
        before, publish = self._scripts.run("settle_unknown", id, state, action=action)
        return Requeued(before, bool(publish), state if before == State.UNKNOWN else before)

    # --- many at once --------------------------------------------------------------------------

    def bulk(
        self,
        operation: BulkOperation,
        selection: Selection,
        *,
        dry: bool = False,
        bulk: bool = True,
        action: Action | None = None,
    ) -> Iterator[BulkStep]:
        """Do an operation to all messages or events that match, in steps of a few milliseconds.

        The caller may stop after any step. Records that enter a state after the first step are not
        selected there, so a record is changed once or not at all.

        Args:
            dry: Change nothing: the steps say what would be done.
            bulk: Single messages and their events come before these.
            action: Whose entry in the audit counts them.
        """
        request = self._bulk_request(operation, dry, bulk)
        times = [self.now(), *([selection.before.timestamp()] if selection.before else [])]
        request = replace(
            request,
            since=_ms(selection.since.timestamp()) if selection.since else None,
            before=_ms(min(times)),
            provider=selection.provider,
            error=selection.error,
            tags=list(selection.tags) or None,
            numbers=self._number_hashes(selection.number),
            limit=selection.limit,
        )
        for index, states, least in self._walks(selection, request):
            request = replace(
                request, index=index, states=states, least=least, score=str(request.before), id=""
            )
            at_end = False
            while not at_end:
                if request.limit == 0:
                    return
                (_, score, id, ended, *_), step = self._bulk_step(request, action)
                limit = request.limit
                request = replace(
                    request,
                    score=score,
                    id=id,
                    limit=None if limit is None else limit - len(step.changes),
                    closings=max(0, request.closings - len(step.messages)),
                )
                at_end = bool(ended) or not id
                yield step

    def _walks(
        self, selection: Selection, request: BulkRequest
    ) -> list[tuple[str, list[str], int | None]]:
        """The shortest indexes that have all matching records: name, states, lowest score."""
        states = list(dict.fromkeys(selection.states))
        tags = [[f"tag:{tag}"] for tag in selection.tags]
        numbers = [[f"number:{hash}" for hash in request.numbers]] if request.numbers else []
        others = [*tags, *numbers]
        by_state = [(f"state:{state}", [state], request.since) for state in states]
        if not others:
            return by_state
        since = "-inf" if request.since is None else request.since
        before = "+inf" if request.before is None else request.before
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for state in states:
                pipe.zcount(self._key("state", state), since, before)
            for names in others:
                for name in names:
                    pipe.zcard(self._key(name))
            sizes = iter(pipe.execute())
        in_states = sum(next(sizes) for _ in states)
        lengths = [sum(next(sizes) for _ in names) for names in others]
        if in_states <= min(lengths):
            return by_state
        shortest = others[lengths.index(min(lengths))]
        return [(name, states, None) for name in shortest]

    def _number_hashes(self, number: str | None) -> list[str] | None:
        if number is None:
            return None
        return [hash for hash in (self.hash_of(number), self.former_hash_of(number)) if hash]

    def bulk_by_ids(
        self,
        operation: BulkOperation,
        ids: Iterable[str],
        *,
        dry: bool = False,
        bulk: bool = True,
        action: Action | None = None,
    ) -> Iterator[BulkStep]:
        """Do an operation to the messages or events that an operator named, as :meth:`bulk`."""
        request = self._bulk_request(operation, dry, bulk)
        rest = iter(ids)
        while group := list(islice(rest, GROUP_LIMIT)):
            while group:
                (examined, *_), step = self._bulk_step(request, action, *group)
                group = group[int(examined) :]
                closings = max(0, request.closings - len(step.messages))
                request = replace(request, closings=closings)
                yield step

    def _bulk_step(
        self, request: BulkRequest, action: Action | None, *ids: str
    ) -> tuple[list[Any], BulkStep]:
        """The answer of bulk_step.lua, and what of it concerns the caller."""
        request = replace(request, events=new_id())
        began = time.monotonic()
        answer = self._scripts.run("bulk_step", _for_lua(request.to_json()), *ids, action=action)
        sleep(min(_LONGEST_BULK_PAUSE, _BULK_PAUSE * (time.monotonic() - began)))
        changes, failures, messages, events = answer[4:]
        step = BulkStep(
            [
                BulkChange(changes[i], changes[i + 1], changes[i + 2] or None)
                for i in range(0, len(changes), 3)
            ],
            [
                BulkFailure(failures[i], failures[i + 1], bool(failures[i + 2]))
                for i in range(0, len(failures), 3)
            ],
            messages,
            events,
        )
        return answer, step

    @staticmethod
    def _bulk_request(operation: BulkOperation, dry: bool, bulk: bool) -> BulkRequest:
        possible = sorted(operation.possible)
        return BulkRequest(
            operation=operation.name,
            possible=possible,
            states=possible,
            dry=dry,
            bulk=bulk,
            closings=_CLOSINGS,
            events="",
            size=_BULK_PAGE,
            validity_ms=operation.validity_ms,
            to=operation.to,
        )

    # --- events --------------------------------------------------------------------------------

    def claim_event(self, event: str, token: str, worker: str) -> EventClaimAnswer:
        """Claim an event for one worker."""
        (answer,) = self.claim_events([(event, token)], worker)
        if isinstance(answer, exc.QueueUnavailable):
            raise answer
        return answer

    def claim_events(
        self, items: Sequence[tuple[str, str]], worker: str
    ) -> list[EventClaimAnswer | exc.QueueUnavailable]:
        """Claim several events, each as :meth:`claim_event`; items: event and token."""
        rows = [(*item, worker) for item in items]
        return _parsed(event_claim_answer, self._scripts.run_group("claim_event", rows))

    def settle_event(
        self,
        event: str,
        token: str,
        verdict: str,
        *,
        delay: float,
        why: str,
        succeeded: Sequence[str] = (),
    ) -> EventTransition:
        """Record what became of an event's handlers.

        Args:
            delay: Seconds until a retry.
            succeeded: Names of handlers that succeeded and were not recorded by
                :meth:`handler_done`: a retry does not call them again.
        """
        item = EventSettlement(event, token, verdict, delay, why, tuple(succeeded))
        (answer,) = self.settle_events([item])
        return unless_error(answer)

    def settle_events(
        self, items: Sequence[EventSettlement]
    ) -> list[EventTransition | exc.QueueUnavailable]:
        """Record what became of the handlers of several events, each as :meth:`settle_event`."""

        def parse(answer: Any) -> EventTransition:
            state, look = answer
            return EventTransition(state, int(float(look)) if look else None)

        rows = [
            (
                *(i.event, i.token, i.verdict, int(i.delay * 1000), serialization.clean(i.why)),
                _for_lua(i.succeeded),
            )
            for i in items
        ]
        return _parsed(parse, self._scripts.run_group("settle_event", rows))

    def renew_event(self, event: str, token: str) -> bool:
        """Renew the lease of a running event; False: it is no longer this worker's."""
        return bool(self._scripts.run("renew_event", event, token))

    def postpone_event(self, event: str, seconds: float) -> None:
        """Make a waiting event due in ``seconds``."""
        self._scripts.run("postpone_event", event, int(seconds * 1000))

    def handler_done(self, event: str, handler: str) -> None:
        """Record that a handler succeeded, so that a retry does not call it again.

        For an event whose other handlers are still to run. The last one is recorded by
        :meth:`settle_event`.
        """
        self._scripts.run("handler_done", event, handler)

    def replay(
        self, event: str, *, everything: bool = False, action: Action | None = None
    ) -> Replayed:
        """Run the handlers of an event that is over again.

        Args:
            everything: Also those that have succeeded.
        """
        before, publish = self._scripts.run(
            "replay_event", event, 1 if everything else "", action=action
        )
        return Replayed(before, publish)

    def purge(
        self,
        *,
        provider: str | None = None,
        kind: str | None = None,
        since: float | None = None,
        until: float | None = None,
        states: Iterable[EventState] = EventState,
        dry: bool = False,
        action: Action | None = None,
    ) -> Iterator[Purged]:
        """Delete events of webhooks, page by page: each script takes a few milliseconds.

        Sent messages and their states stay as they are, as do webhooks that arrive meanwhile.

        Args:
            provider: Only its events.
            kind: Only "received" or only "status".
            since, until: Only events made in this interval, in seconds since 1970.
            states: Only events in these states.
            dry: Count them and delete nothing.

        Yields:
            The number that each script deleted.
        """
        now = self.now()
        first, last = since or 0.0, min(until or now, now)
        for state in states:
            for page in self._pages("state", state, until=now * 1000):
                ids = [id for id in page if first <= time_of(id[:20]) <= last]
                while ids:
                    examined, *counts = self._scripts.run(
                        "purge_webhooks",
                        *(1 if dry else "", provider or "", kind or "", *ids),
                        action=None if dry else action,
                    )
                    ids = ids[int(examined) :]
                    yield Purged(*(int(count) for count in counts))

    # --- upkeep --------------------------------------------------------------------------------

    def take_due(
        self,
        lane: str,
        quota: int,
        *,
        per_trigger: int = 1,
        most_bulk: int | None = None,
        few: int = 0,
    ) -> Taken:
        """Take ids that are due in a lane ("send", "hook", "ask"), as far as the broker has room.

        Single messages come first; bulk (from ``send_many``) gets at least an eighth.

        Args:
            quota: Ids at most.
            per_trigger: Ids that a trigger will carry.
            most_bulk: Bulk ids at most; None: ``quota``.
            few: Up to this number, single ids get a trigger each.
        """
        bulk = quota if most_bulk is None else most_bulk
        answer = self._scripts.run("take_due", lane, quota, per_trigger, bulk, few)
        due, failures, more, single, routed, alone = answer
        taken = [(due[i], int(due[i + 1] or 0)) for i in range(0, len(due), 2)]
        return Taken(
            taken, _failures(failures), bool(more), int(single), frozenset(routed), bool(alone)
        )

    def sweep(
        self,
        quota: int,
        max_lapses: int,
        remedies: Mapping[str, Remedies] | None = None,
        sweeper: str = "",
    ) -> Swept:
        """End leases whose worker is gone and waits for reports, and delete what has expired.

        Args:
            quota: Records of each kind at most.
            max_lapses: Lost workers after which a message whose provider was never called fails.
            remedies: By provider, what can be done about a message that it may have accepted.
            sweeper: Name of this process: nothing is done if another one has swept in the last
                three seconds. "": sweep in any case.
        """
        by_provider = {
            name: {k: v for k, v in vars(remedy).items() if v is not None}
            for name, remedy in (remedies or {}).items()
        }
        lapsed, failures, more = self._scripts.run(
            "sweep", quota, max_lapses, new_id(), _for_lua(by_provider), sweeper
        )
        lapses = [
            Lapse(lapsed[i], lapsed[i + 1], lapsed[i + 2] or None) for i in range(0, len(lapsed), 3)
        ]
        return Swept(lapses, _failures(failures), bool(more))

    def set_aside(self, kind: str, id: str, token: str, cause: str, *, called: bool) -> str | None:
        """Set a record that its worker cannot read aside as damaged.

        Args:
            kind: "msg" or "event".
            called: Its provider may have been called under this claim.

        Returns:
            The cause; None: the claim is no longer valid.
        """
        recorded = self._scripts.run("set_aside", id, kind, cause, token, "" if called else 1)
        return recorded or None

    def repair(
        self,
        id: str,
        kind: str,
        *,
        readable: bool,
        drop: list[str],
        action: Action | None = None,
    ) -> Repaired:
        """Repair a damaged record as far as possible; see repair_record.lua.

        Args:
            kind: "msg" or "event".
            readable: Can the message, or the event's data, be read?
            drop: Names of fields whose JSON cannot be read.
        """
        accepted = int(time_of(id[:20]) * 1000)
        state, event, done = self._scripts.run(
            "repair_record",
            *(id, kind, 1 if readable else "", accepted or "", new_id(), *drop),
            action=action,
        )
        return Repaired(state, event or None, done)

    def remove(self, id: str, *, action: Action | None = None) -> bool:
        """Remove a record, or what was set aside of an index, for good; False if there is none."""
        return bool(self._scripts.run("remove_damaged", id, action=action))

    def record_heartbeat(self, worker: str, about: dict[str, Any] | None) -> None:
        """Record a worker's heartbeat.

        Args:
            about: The fields of :class:`Worker`; None: the worker ends.
        """
        self._scripts.run("heartbeat", worker, serialization.to_json(about) if about else "")


def _parsed(parse: Callable[[Any], T], answers: list[Any]) -> list[T | exc.QueueUnavailable]:
    """The parsed answers of a group, with the errors of single items."""
    return [a if isinstance(a, exc.QueueUnavailable) else parse(a) for a in answers]


def unless_error(answer: T | exc.QueueUnavailable) -> T:
    """The answer of a group of one, or its error raised."""
    if isinstance(answer, exc.QueueUnavailable):
        raise answer
    return answer


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _for_lua(value: Any) -> str:
    return serialization.clean(_ENCODER.encode(value))


def _failures(answer: list[Any]) -> list[Failure]:
    return [
        Failure(answer[i], answer[i + 1], bool(answer[i + 2])) for i in range(0, len(answer), 3)
    ]


def _accepted(answer: Any) -> Accepted:
    return Accepted(answer[0], answer[1], bool(int(answer[2])))
