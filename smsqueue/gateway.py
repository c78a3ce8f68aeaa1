"""The gateway: its providers, sending, receiving, and the handlers that applications connect."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from smsqueue import exc
from smsqueue.compat import adapted
from smsqueue.events import HookAttribute, derived_key
from smsqueue.logs import get_logger, transition
from smsqueue.message import serialization
from smsqueue.message.ids import new_id
from smsqueue.message.masking import mask
from smsqueue.message.messages import IncomingMessage, OutgoingMessage, check_tag
from smsqueue.message.numbers import destination_digits
from smsqueue.message.opt_outs import OptOutChange, opt_out_sender, scope_of
from smsqueue.message.price_quotes import Prices, Quote, price_for
from smsqueue.message.states import REQUEUED_FROM, EventState, State
from smsqueue.message.statuses import MessageStatus
from smsqueue.operator import BulkResult, BulkRun, Filters, OnStep, Operator
from smsqueue.policy.destinations import Destinations
from smsqueue.policy.opt_outs import ANSWERS, OptOuts
from smsqueue.policy.retry import GuardedPolicy, RetryPolicy
from smsqueue.policy.router import (
    Route,
    Router,
    default_router,
    refusal,
    resolve,
    unknown_provider,
)
from smsqueue.policy.senders import SenderPool
from smsqueue.providers.base import IProvider
from smsqueue.providers.base.event_validation import check_lengths
from smsqueue.providers.base.provider_arguments import (
    accepted_arguments,
    convert_arguments,
    describe_unknown_argument,
)
from smsqueue.providers.base.replay_protection import UsedSignatures
from smsqueue.providers.base.webhook_access import WebhookAccess
from smsqueue.providers.capabilities import Can
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from smsqueue.broker.queue import Queue
    from smsqueue.ledger import Action, AuditEntry, Ledger, OperatorPause, Progress, Record
    from smsqueue.ledger.script_values import Accepted
    from smsqueue.providers.base.webhook_blueprints import Blueprints

__all__ = ["Gateway"]

log = get_logger(__name__)


class Gateway:
    """Sends and receives messages through providers.

    Args:
        settings: None: read from the environment.
        eager: Deliver in the calling process, as smsframework does; None: ``settings.eager``.
        retry: Decides what each error means, see :class:`smsqueue.policy.retry.RetryPolicy`.
        smart_encoding: Replace characters that make a text Unicode by similar ones, unless the
            message's option of this name says otherwise; see
            :mod:`smsqueue.message.smart_encoding`.
        destinations: The numbers that it may send to; None: all.
        opt_outs: Obey STOP and similar words in incoming messages, and add numbers that opted out
            at a provider. None: only what :meth:`opt_out` and the command line add counts.

    Raises:
        TypeError: an argument has the wrong type.
    """

    #: Chooses the provider of a message with routing values. Called with the message and these
    #: values; returns None (the default provider), a name, a list of names in order of preference,
    #: Refuse or NotBefore. Assign a function of your own.
    router: Router = staticmethod(default_router)

    #: Called with each OutgoingMessage that a provider accepted.
    onSend = HookAttribute()
    #: Called with each IncomingMessage.
    onReceive = HookAttribute()
    #: Called with each MessageStatus: delivery reports, and messages that could not be sent.
    onStatus = HookAttribute()

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        eager: bool | None = None,
        retry: RetryPolicy | None = None,
        smart_encoding: bool = False,
        opt_outs: OptOuts | None = None,
        destinations: Destinations | None = None,
    ) -> None:
        if not isinstance(settings, Settings | None):
            raise TypeError(f"settings must be Settings, not {type(settings).__name__}")
        if eager not in (None, True, False):
            raise TypeError(f"eager must be True or False, not {type(eager).__name__}")
        if retry is not None and not callable(getattr(retry, "decide", None)):
            raise TypeError(f"retry must be a RetryPolicy, not {type(retry).__name__}")
        if smart_encoding not in (True, False):
            kind = type(smart_encoding).__name__
            raise TypeError(f"smart_encoding must be True or False, not {kind}")
        settings = settings or Settings()
        self.settings = settings
        self.eager = settings.eager if eager is None else bool(eager)
        self.retry = retry or RetryPolicy()
        self.smart_encoding = bool(smart_encoding)
        if not isinstance(destinations, Destinations | None):
            kind = type(destinations).__name__
            raise TypeError(f"destinations must be Destinations, not {kind}")
        self.destinations = destinations
        if not isinstance(opt_outs, OptOuts | None):
            raise TypeError(f"opt_outs must be OptOuts, not {type(opt_outs).__name__}")
        self.opt_outs = opt_outs
        #: Categories of messages that go out in spite of an opt-out.
        self.exempt_categories = (*(opt_outs.exempt if opt_outs else ()), ANSWERS)
        self._providers: dict[str, IProvider] = {}
        self._access: dict[str, WebhookAccess] = {}
        self._in_flight: dict[str, int] = {}
        self._sender_pools: dict[str, SenderPool] = {}
        self._default_provider: str | None = None
        #: Names of the providers that the environment added.
        self.from_environment: set[str] = set()
        self._used_signatures = UsedSignatures()
        self._operator = Operator(self)
        self._operator_name = ""

    # --- connections ---------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, which connects at its first command; LookupError in eager mode."""
        if self.eager:
            raise LookupError("this gateway is eager: it keeps no records of what it sent")
        from smsqueue.ledger import Ledger

        return Ledger(self.settings)

    @cached_property
    def queue(self) -> Queue:
        """The queue of triggers, which connects at its first publish."""
        from smsqueue.broker.queue import Queue

        return Queue(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next use opens them again.

        In a worker they belong to the worker, and this does nothing.
        """
        for name in ("ledger", "queue"):
            connection = self.__dict__.get(name)
            if connection is not None and not getattr(connection, "of_worker", False):
                del self.__dict__[name]
                connection.close()

    def ping(self) -> None:
        """Raise QueueUnavailable if Redis does not answer or cannot hold the ledger."""
        if not self.eager:
            self.ledger.verify_server()

    def check(self) -> list[str]:
        """What of Redis's configuration would lose accepted messages; empty: nothing."""
        return [] if self.eager else list(self.ledger.warnings())

    # --- providers -----------------------------------------------------------------------------

    def add_provider(
        self,
        name: str,
        Provider: type[IProvider],
        *,
        webhook_prefix: str | Sequence[str] | None = None,
        webhook_sources: str | Iterable[str] | None = None,
        max_in_flight: int | None = None,
        sender_pool: str | Iterable[str] | None = None,
        **config: Any,
    ) -> IProvider:
        """Register a provider; the first one becomes the default.

        Args:
            webhook_prefix: Secret URL prefix of this provider's webhooks alone, instead of
                SMSQUEUE_RECEIVER_PREFIX. A list while it is being changed: all are served, and
                the provider is given the first.
            webhook_sources: Addresses and networks (``192.0.2.0/24``, ``2001:db8::/32``) that may
                call its webhooks; None: all. Behind a proxy, see SMSQUEUE_TRUSTED_PROXIES.
            max_in_flight: Simultaneous calls in one worker process. None: SMSQUEUE_MAX_IN_FLIGHT
                or the provider's own limit, whichever is less; at most SMSQUEUE_CONCURRENCY if it
                is not called over :mod:`smsqueue.providers.http`.
            sender_pool: Numbers or sender ids for messages that name no sender. A recipient always
                has the same one.
            config: Arguments of the provider's class.

        Raises:
            AssertionError: not a provider class, or the name is invalid or in use.
            TypeError, ValueError: an argument has the wrong type or an invalid value.
        """
        Provider = adapted(Provider)  # of smsframework's plugins
        if not (isinstance(Provider, type) and issubclass(Provider, IProvider)):
            raise AssertionError("Provider does not implement IProvider")
        if not valid_name(name):
            raise AssertionError(
                f"Provider name is {name!r}: use 1 to 64 letters, digits, dots, dashes and "
                "underscores; it is a part of the webhooks' addresses"
            )
        if name in self._providers:
            raise AssertionError(f"Provider is already registered: {name!r}")
        if Provider.through_http_layer or Provider.__module__.startswith("smsqueue.providers."):
            config = convert_arguments(Provider, config)
        others = (prefix for access in self._access.values() for prefix in access.prefixes)
        taken = (*self.settings.receiver_prefix, *others) if webhook_prefix else ()
        if max_in_flight is not None:
            if type(max_in_flight) is not int or max_in_flight < 1:
                raise ValueError(f"max_in_flight of provider {name!r} must be a number from 1 on")
            self._in_flight[name] = max_in_flight
        pool = None
        if sender_pool is not None:
            pool = SenderPool(name, sender_pool)
        access = WebhookAccess.from_arguments(name, webhook_prefix, webhook_sources, taken)
        try:
            provider = Provider(self, name, **config)
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if not (unknown and unknown[1] in config.keys() - accepted_arguments(Provider).keys()):
                raise
            raise TypeError(describe_unknown_argument(Provider, unknown[1])) from None
        self._providers[name] = provider
        self._access[name] = access
        if pool is not None:
            self._sender_pools[name] = pool
        if self._default_provider is None:
            self._default_provider = name
        return provider

    @property
    def default_provider(self) -> str | None:
        """Name of the provider of messages that are not routed to another one."""
        return self._default_provider

    @default_provider.setter
    def default_provider(self, name: str) -> None:
        if name not in self._providers:
            raise AssertionError(f"Provider {name!r} is not registered")
        self._default_provider = name

    def get_provider(self, name: str) -> IProvider:
        """A provider by name; KeyError if there is none."""
        return self._providers[name]

    @property
    def providers(self) -> dict[str, IProvider]:
        """All providers by name, in the order of their registration."""
        return dict(self._providers)

    def max_in_flight(self, name: str) -> int:
        """Simultaneous calls of a provider in one worker process."""
        provider, usual = self._providers[name], self.settings.max_in_flight
        if not provider.through_http_layer:  # each call has a thread
            usual = min(usual, self.settings.concurrency)
        usual = min(usual, getattr(provider, "most_at_once", None) or usual)
        return self._in_flight.get(name, usual)

    def pooled_sender(self, name: str, message: OutgoingMessage) -> str | None:
        """The sender of a provider's pool for a message; None: there is no pool, or the message
        names a sender of its own."""
        pool = self._sender_pools.get(name)
        if pool is None or message.src or message.provider_options.senderId:
            return None
        return pool.sender_for(message.dst)

    def webhook_access(self, name: str) -> WebhookAccess:
        """Prefixes and source addresses of a provider's webhooks."""
        return self._access.get(name) or WebhookAccess()

    def webhook_prefixes(self, name: str) -> tuple[str, ...]:
        """URL prefixes of a provider's webhooks: its own, else SMSQUEUE_RECEIVER_PREFIX.

        Enter the first one at the provider.
        """
        return self.webhook_access(name).prefixes or self.settings.receiver_prefix

    def unreported(self) -> list[str]:
        """Names of providers that send no reports, because they need a callback URL with each
        message, and SMSQUEUE_PUBLIC_URL or their prefix is missing."""
        names = [
            name
            for name, provider in self._providers.items()
            if Can.CALLBACK in getattr(provider, "capabilities", ())
        ]
        if not self.settings.public_url:
            return names
        return [name for name in names if not self.webhook_prefixes(name)]

    def route(self, message: OutgoingMessage) -> Route:
        """Names of the providers for a message, or why none may be called.

        See :func:`smsqueue.policy.router.resolve`.
        """
        return resolve(message, self.router, self._providers, self._default_provider)

    # --- sending -------------------------------------------------------------------------------

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Accept a message for delivery and return it, with its ``id``.

        Once it is accepted, nothing is raised: a trigger that cannot be published is logged, and
        upkeep publishes it. In eager mode the message is delivered now.

        Raises:
            AssertionError: the message names a provider that this gateway does not have.
            RequestError: the message is invalid.
            Refused: it may not go to this number, see ``destinations``.
            IdempotencyConflict: its key was used for other content.
            QueueUnavailable: Redis did not confirm it. Sending the same object again is safe, as
                after any other error, KeyboardInterrupt included. ``refused`` is true if Redis
                was not reached or refused the message.
            ProviderError: in eager mode, what the provider raised.
        """
        if self.eager:
            return self.deliver(message)
        self._check(message)
        queue = self.queue  # made first: nothing may fail once the message is accepted
        _identify(message)
        publish = self._confirm(message, self.ledger.accept(message, message.unconfirmed_id or ""))
        if publish:
            queue.deliver([(publish, 0)])
        _forget_unconfirmed(message)
        return message

    def send_many(self, messages: Iterable[OutgoingMessage]) -> list[OutgoingMessage]:
        """Accept many messages; all are validated before the first one is accepted.

        An object that is in the list twice is one message. In eager mode they are delivered one
        after the other, once all are validated.

        Raises:
            As :meth:`send`, and what iterating over ``messages`` raises. TypeError: ``messages``
            is a single message.

        An error about one message has ``index``, its place in the list, and ``destination``, its
        masked number. QueueUnavailable and IdempotencyConflict have ``accepted``, the messages
        that Redis confirmed; the others may have been accepted or not. After any error the same
        objects may be sent again, in any combination: none is accepted twice. New objects are new
        messages, unless they have idempotency keys. In eager mode ``accepted`` lists the messages
        that were delivered: send only the others again.
        """
        if isinstance(messages, OutgoingMessage):
            raise TypeError("send_many() takes a list of messages: for one message, use send()")
        objects = list(messages)
        for index, message in enumerate(objects):
            try:
                self._check(message)
            except Exception as error:
                _name_message(error, index, message)
                raise
        places = {id(message): index for index, message in reversed([*enumerate(objects)])}
        batch = [message for index, message in enumerate(objects) if places[id(message)] == index]
        accepted: list[OutgoingMessage] = []
        if self.eager:
            for message in batch:
                try:
                    self.deliver(message)
                except Exception as error:
                    _name_message(error, places[id(message)], message, accepted, text=False)
                    raise
                accepted.append(message)
            return objects
        from smsqueue.ledger import GROUP_LIMIT  # an eager gateway works without Redis

        queue = self.queue if batch else None
        for message in batch:
            _identify(message)
        for start in range(0, len(batch), GROUP_LIMIT):
            chunk = batch[start : start + GROUP_LIMIT]
            triggers: list[tuple[str, int]] = []
            failure: exc.QueueUnavailable | exc.IdempotencyConflict | None = None
            try:
                answers = self.ledger.accept_many(
                    [(message, message.unconfirmed_id or "") for message in chunk]
                )
            except exc.QueueUnavailable as error:
                answers, failure = [], error
            for message, answer in zip(chunk, answers, strict=False):
                try:
                    publish = self._confirm(message, answer)
                except (exc.QueueUnavailable, exc.IdempotencyConflict) as error:
                    if failure is None:
                        failure = error
                        if isinstance(error, exc.IdempotencyConflict):
                            _name_message(error, places[id(message)], message)
                    continue  # the following ones may have been accepted
                accepted.append(message)
                if publish:
                    triggers.append((publish, 0))
            if queue is not None:
                queue.deliver(triggers)
            if failure is not None:
                failure.accepted = accepted
                if isinstance(failure, exc.QueueUnavailable):
                    failure.refused = False  # other messages may have been accepted
                raise failure
        for message in batch:
            _forget_unconfirmed(message)
        return objects

    def quote(self, message: OutgoingMessage, prices: Prices | None = None) -> Quote:
        """What a message will take: its parts, and their cost. Nothing is sent or changed.

        Args:
            prices: Price of one part by the prefix of the destination, as
                ``{"+44": "0.04", "+1": "0.0079", "": "0.10"}``; the longest prefix counts.

        Raises:
            RequestError, AssertionError: as :meth:`send`.
            TypeError, ValueError: a prefix or a price is invalid.
        """
        serialization.check_kind(message)
        draft = copy(message)
        draft.provider_options = copy(message.provider_options)
        self._check(draft)
        prefix, price = price_for(draft.dst, prices or {})
        return Quote(draft.body, draft.segments(), draft.replaced, prefix, price)

    def _check(self, message: OutgoingMessage) -> None:
        """Validate a message, before anything else is done."""
        serialization.check_kind(message)
        wanted = getattr(message.provider_options, "smart_encoding", None)
        if (self.smart_encoding if wanted is None else wanted) and isinstance(message.body, str):
            message.encode_smartly()
        serialization.check_outgoing(message, self.settings.max_body, self.settings.region)
        if self.destinations is not None:
            self.destinations.apply(message)
        name = message.provider
        if name is None or (isinstance(name, str) and name in self._providers):
            return
        if self._providers or not valid_name(name):
            raise unknown_provider("The message names", name, self._providers)

    def _confirm(self, message: OutgoingMessage, answer: Accepted) -> str | None:
        """Set a message's id from the ledger's answer.

        Returns:
            The id, if its trigger is to be published.
        """
        if answer.verdict == "conflict":
            raise exc.IdempotencyConflict(
                f"message {answer.id} was sent with the same idempotency key and other content"
            )
        if answer.verdict == "full":
            full = exc.QueueUnavailable(self.ledger.full_text("new messages"))
            full.refused = True
            raise full
        message.id = answer.id
        message.duplicate = answer.verdict == "duplicate"
        # A message has two lines at INFO: if a report is requested, those of "sent" and of its end.
        reported = message.provider_options.status_report and not message.duplicate
        transition(
            log,
            message.id,
            "duplicate" if message.duplicate else "queued",
            level=logging.DEBUG if reported else logging.INFO,
        )
        return answer.id if answer.publish else None

    def deliver(self, message: OutgoingMessage) -> OutgoingMessage:
        """Route a message and send it now, in this process; then call onSend.

        Raises:
            AssertionError: the message or the router names an unknown provider, or the gateway
                has none.
            RequestError: the message is invalid, as in :meth:`send`.
            Refused: the router refuses it, or lets it wait: this process cannot.
            ProviderError: what the last provider of the route raised. The next provider is called
                only if the one before certainly did not accept the message.
        """
        self._check(message)
        # Keep the sender's choice of a provider if the same object is sent again.
        chosen = message.provider is not None and message.provider != message.routed_to
        names = self.route(message)
        if not isinstance(names, list):
            raise refusal(names)
        src = message.src
        for i, name in enumerate(names):
            message.provider = name
            message.routed_to = None if chosen else name
            message.src = src  # not that of the provider before
            message.src = self.pooled_sender(name, message) or src
            try:
                sent = self._providers[name].send(message)
            except exc.ProviderError as error:
                policy = GuardedPolicy(self.retry)
                decision = policy.decide(error, tries=0, age=0.0, wrote=None)
                if i + 1 == len(names) or not decision.elsewhere:
                    raise
            else:
                self.onSend(sent)
                return sent
        raise AssertionError("a route has at least one provider")

    # --- receiving -----------------------------------------------------------------------------

    def receive_message(self, message: IncomingMessage) -> None:
        """Record an incoming message of a provider; in eager mode, call onReceive.

        Raises:
            ValueError: one of its addresses or ids is too long.
            QueueUnavailable: it was not recorded.
        """
        message.region, message.send_answer = self.settings.region, self.send
        if self.opt_outs is not None:
            message.keyword = self.opt_outs.keyword_of(message)
        if self.eager:
            self.onReceive(message)
            return
        check_lengths(message)
        provider = self._providers.get(message.provider or "")
        change = None if self.opt_outs is None else self.opt_outs.change_of(message)
        publish, message.id = self.ledger.receive(
            message,
            repeats=provider is None or provider.unique_msgids,
            opt_out=(self._number_of(message), change) if change else None,
        )
        if message.part is None:
            why = "incoming message"
            transition(log, message.id, EventState.WAITING, provider=message.provider, why=why)
        if publish:
            self.queue.hook([message.id])

    def _number_of(self, message: IncomingMessage) -> str:
        """The number of a keyword's sender, in the form of messages to it; a provider may have
        written it without its country code."""
        return destination_digits(message.src, self.settings.region)

    def note_signature(
        self, provider: str, signature: str, request: str, seconds: float | None
    ) -> str:
        """Remember for which request a webhook's signature was used, to detect replays.

        It is kept in the ledger, in eager mode in this process; see
        :mod:`smsqueue.providers.base.replay_protection`.
        """
        longest = self.settings.report_wait
        kept = None if seconds is None else min(seconds, longest)
        if self.eager:
            return self._used_signatures.note(provider, signature, request, kept)
        return self.ledger.note(provider, signature, request, kept)

    def receive_status(self, status: MessageStatus) -> None:
        """Record a delivery report of a provider; in eager mode, call onStatus.

        Raises:
            As :meth:`receive_message`.
        """
        if self.eager:
            self.onStatus(status)
            return
        check_lengths(status)
        provider = self._providers.get(status.provider or "")
        unique = provider is None or provider.unique_msgids
        known = unique and status.msgid not in (None, "")
        report = self.ledger.report(status, pids=[str(status.msgid)] if known else [])
        if report.moved:
            level = logging.DEBUG if report.state == State.ACCEPTED else logging.INFO
            transition(
                log, report.id, report.state, provider=status.provider, why="report", level=level
            )
        self.queue.hook(report.events, bulk=report.bulk)
        if report.close:
            self.queue.deliver([(report.close, 0)])
        if report.id and provider is not None and self.opt_outs is not None:
            code = "" if status.status_code is None else str(status.status_code)
            if code in provider.opt_out_codes:
                self._note_reported_opt_out(report.id, provider.name, code)

    def _note_reported_opt_out(self, id: str, provider: str, code: str) -> None:
        """Add the recipient of a message to the opt-outs. If this is not confirmed, the provider
        repeats the webhook."""
        try:
            record = self.ledger.read(id)
        except exc.DamagedRecord:
            return
        if record is not None:
            message = record.message
            sender = message.provider_options.senderId or message.src
            change = OptOutChange(scope_of(sender, None), f"{provider} {code}", "provider")
            self.ledger.change_opt_out(message.dst, change)

    def answer_keyword(self, message: IncomingMessage) -> None:
        """Answer a word such as STOP or HELP, if :class:`OptOuts` has a text for it.

        A number that no message was sent to gets no answer, so that forged senders cannot make this
        gateway send. A number gets each answer once a day.
        """
        text = None
        if self.opt_outs is not None and message.keyword is not None:
            text = self.opt_outs.answer_to(message.keyword)
        if not text or not self.ledger.was_sent_to(self._number_of(message)):
            return
        today = datetime.now(UTC).date().isoformat()
        # Without `dst`: whoever forges webhooks could vary it.
        key = f"{ANSWERS}/{message.keyword}/{message.src}/{today}"
        # There was an answer from another number or with another text today, or there is no such
        # number to answer from. Trying again would not help.
        with suppress(exc.RequestError):
            message.reply(text, category=ANSWERS, idempotency_key=key)

    def receiver_blueprint_for(self, name: str) -> Blueprint:
        """A Flask blueprint that receives a provider's webhooks.

        Raises:
            KeyError: there is no such provider.
            NotImplementedError: the provider cannot receive.
        """
        from smsqueue.providers.base.webhook_blueprints import wrap

        settings, access = self.settings, self.webhook_access(name)
        provider = self.get_provider(name)
        return wrap(provider, settings.max_webhook, access, settings.trusted_proxies)

    def receiver_blueprints(self) -> Blueprints:
        """Blueprints of all providers that can receive: a dict whose iteration yields pairs."""
        from smsqueue.providers.base.webhook_blueprints import Blueprints

        blueprints = Blueprints()
        for name in self._providers:
            try:
                blueprints[name] = self.receiver_blueprint_for(name)
            except NotImplementedError:
                continue
        return blueprints

    def receiver_blueprints_register(self, app: Flask, prefix: str = "/") -> Flask:
        """Register all receivers on an application, under ``/{prefix}/{provider name}``.

        A provider with its own ``webhook_prefix`` is served under that instead, once.
        """
        base = f"/{prefix.strip('/')}" if prefix.strip("/") else ""
        served: set[tuple[int, str]] = app.extensions.setdefault("smsqueue_own_prefixes", set())
        for name, blueprint in self.receiver_blueprints():
            own = self.webhook_access(name).prefixes
            if not own:
                app.register_blueprint(blueprint, url_prefix=f"{base}/{name}")
            elif (id(self), name) not in served:
                served.add((id(self), name))
                for own_prefix in own:
                    separate = self.receiver_blueprint_for(name)
                    app.register_blueprint(separate, url_prefix=f"/{own_prefix}/{name}")
        return app

    # --- opt-outs ------------------------------------------------------------------------------

    def opt_out(
        self,
        number: str,
        *,
        sender: str | None = None,
        category: str | None = None,
        reason: str = "",
        by: str | Action | None = None,
    ) -> bool:
        """Send a number no more messages; those that wait become failed (``OptedOut``).

        Args:
            sender: Only of this sender; None: of any.
            category: Only of this category; None: of any.
            reason: For the list.

        Returns:
            False: it had opted out before.

        Raises:
            ValueError: there is no such number or category.
            QueueUnavailable: Redis did not confirm it.
        """
        return self._operator.opt_out(number, sender, category, reason, by)

    def opt_in(
        self,
        number: str,
        *,
        sender: str | None = None,
        category: str | None = None,
        by: str | Action | None = None,
    ) -> bool:
        """End the opt-outs of a number.

        Args:
            sender, category: Only those of this sender or category; None: of any.

        Returns:
            False: there were none.
        """
        return self._operator.opt_in(number, sender, category, by)

    def opted_out(
        self, number: str, *, sender: str | None = None, category: str | None = None
    ) -> bool:
        """Would a message to this number be refused, because its owner wants none?

        Args:
            sender, category: Of the message, as in :meth:`opt_out`.
        """
        if category in self.exempt_categories:
            return False
        digits = destination_digits(number, self.settings.region)
        from_ = opt_out_sender(sender) if sender else None
        return any(
            (one.sender is None or from_ is None or one.sender == from_)
            and one.category in (None, category)
            for one in self.ledger.opt_outs_of(digits)
        )

    # --- operators -----------------------------------------------------------------------------
    #
    # Each operation that changes something is recorded in the audit. ``by`` is who does it; None:
    # ``operator_name``. Inside ``acting()`` it is the action that the operation is a part of.

    @property
    def operator_name(self) -> str:
        """Who operates this gateway, for the audit: the user of the process, unless a name of 1 to
        64 characters is assigned."""
        from smsqueue.ledger.audit_log import process_user

        return self._operator_name or process_user()

    @operator_name.setter
    def operator_name(self, name: str) -> None:
        from smsqueue.ledger.audit_log import checked_name

        self._operator_name = checked_name(name)

    def acting(
        self,
        action: str,
        details: Mapping[str, object] | None = None,
        *,
        by: str | None = None,
        matched: int | None = None,
    ) -> AbstractContextManager[Action]:
        """A context in which many operations are one action, with one entry in the audit::

            with gateway.acting("cancel", {"tag": "black-friday"}, by="alice") as action:
                for id in ids:
                    gateway.cancel(id, by=action)

        The entry is there before the first operation, and its count grows with each. It says
        "interrupted" if the block raises, or if the process dies.

        Args:
            details: Filters and arguments to record. Phone numbers under the names ``number`` and
                ``to`` are masked. Give no texts.
            matched: How many records it is about; None: not known.
        """
        return self._operator.acting(action, details or {}, by=by, matched=matched)

    def audit(
        self,
        *,
        since: datetime | None = None,
        by: str | None = None,
        action: str | None = None,
    ) -> Iterator[AuditEntry]:
        """What operators did, the last first.

        Args:
            since: Only what was begun at this time or later.
            by: Only what this person did.
            action: Only this action: cancel, requeue, settle, replay, repair, remove, purge ...
        """
        return self._operator.audit(since, by, action)

    def lookup(self, id: str) -> Record:
        """A message's record.

        Raises:
            LookupError: there is none, or it has been forgotten.
            DamagedRecord: it cannot be read.
        """
        return self._operator.lookup(id)

    def find(
        self,
        number: str | None = None,
        *,
        idempotency_key: str | None = None,
        msgid: Any = None,
        provider: str | None = None,
        tag: str | None = None,
        context: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> list[Record]:
        """Records of the messages that have all of this, newest first, without damaged ones.

        With ``context`` alone it reads all messages, state by state, in steps of a few
        milliseconds: some seconds for a million. Then the newest in its state comes first.

        Args:
            number: To this number, in any usual notation.
            idempotency_key: Sent with this key.
            msgid: With this message id of a provider, of any attempt.
            provider: The provider that gave the id; else that of the last attempt.
            tag: With this tag.
            context: With these values in their ``context``: texts, numbers, True, False or None;
                the name ``"order.id"`` is also the value ``id`` in the dict ``order``.
            limit: How many at most; None: all.

        Raises:
            ValueError: nothing to search by is given, or ``tag`` is not a tag.
            TypeError: an argument has the wrong type.
        """
        return self._operator.find(
            number,
            idempotency_key=idempotency_key,
            msgid=msgid,
            provider=provider,
            tag=tag,
            context=context,
            limit=limit,
        )

    def progress(self, tag: str) -> Progress:
        """How far the messages of a tag are: their states, how many are sent per second, the time
        left.

        It reads all of them: some tenths of a second for 100,000.

        Raises:
            ValueError: this is not a tag.
        """
        return self._operator.progress(tag)

    def pause(
        self,
        *,
        provider: str | None = None,
        tag: str | None = None,
        everything: bool = False,
        reason: str = "",
        length: timedelta | float | None = None,
        until: datetime | None = None,
        by: str | Action | None = None,
    ) -> OperatorPause:
        """Send nothing over a provider, nothing with a tag, or nothing at all, in all workers.

        Calls in flight are finished. Messages are still accepted; they wait and use up no try. One
        whose validity ends meanwhile expires. Messages for a paused provider go to the other
        providers of their route. A second pause of the same replaces the first.

        Args:
            reason: Shown to whoever wonders why messages wait; at most 200 characters.
            length: After how long it ends, in seconds or as timedelta.
            until: When it ends, with a time zone. Neither: when :meth:`resume` is called.

        Raises:
            ValueError: not exactly one of provider, tag and everything is given; this is not a
                tag; the end is in the past; or 100 tags are paused already.
        """
        scope = self._scope(provider, tag, everything)
        return self._operator.pause(scope, reason, length=length, until=until, by=by)

    def resume(
        self,
        *,
        provider: str | None = None,
        tag: str | None = None,
        everything: bool = False,
        by: str | Action | None = None,
    ) -> bool:
        """End a pause at once, also one that a provider asked for; False: it was not paused.

        What waited goes out in order, single messages first. ``everything=True`` ends the pause of
        everything only: providers and tags that were paused by their names stay paused.
        """
        return self._operator.resume(self._scope(provider, tag, everything), by)

    def pauses(self) -> list[OperatorPause]:
        """What operators have paused."""
        return self.ledger.operator_pauses()

    def _scope(self, provider: str | None, tag: str | None, everything: bool) -> str:
        from smsqueue.ledger.pauses import pause_scope

        if provider is not None and not valid_name(provider):
            raise ValueError(f"{provider!r} is not the name of a provider")
        if tag is not None:
            check_tag(tag)
        return pause_scope(provider, tag, everything)

    def cancel(self, id: str, *, by: str | Action | None = None) -> bool:
        """Cancel a message that waits; False: it does not wait (any more)."""
        return self._operator.cancel(id, by)

    def requeue(
        self,
        id: str,
        expires: float | None = None,
        *,
        bulk: bool = False,
        states: Collection[str] = REQUEUED_FROM,
        by: str | Action | None = None,
    ) -> bool:
        """Send a failed, expired, undelivered, cancelled or unknown message again.

        A message that was cancelled before its ``send_at`` is scheduled for that time again.

        Args:
            expires: Validity in minutes from now; None: as long as before.
            bulk: Single messages overtake it, as those of ``send_many``.
            states: Requeue it only if it is still in one of these.

        Returns:
            False: it is in another state.
        """
        return self._operator.requeue(id, expires, bulk=bulk, states=states, by=by)

    def settle(self, id: str, state: State | str, *, by: str | Action | None = None) -> bool:
        """Say what became of an unknown message; False: it is not unknown (any more).

        Args:
            state: sent, accepted, delivered, undelivered or expired.
        """
        return self._operator.settle(id, state, by)

    def replay(self, event: str, *, by: str | Action | None = None) -> bool:
        """Run the handlers of an incoming message or report again; False: it is not over yet."""
        return self._operator.replay(event, by)

    def cancel_all(
        self,
        *,
        dry_run: bool = False,
        on_step: OnStep | None = None,
        bulk: bool | None = None,
        by: str | Action | None = None,
        **filters: Unpack[Filters],
    ) -> BulkResult:
        """Cancel all waiting messages that match.

        This and the other methods for many messages work in steps of a few milliseconds on the
        server, so that single messages go on, with the same memory for any number of them. If
        Redis fails or an exception ends them, call them again: nothing is done twice. Messages
        that enter a state after the call began are left alone.

        Args:
            dry_run: Change nothing; the result says what would be done.
            on_step: Called with a :class:`~smsqueue.ledger.BulkStep` after each step: what it did.
                What it raises ends the operation, and goes to the caller.
            bulk: Single messages come before these; None: unless a single id is given.
            by: Who does it. The whole call is one entry in the audit, whose count grows.
            filters: See :class:`~smsqueue.operator.Filters`. ``state`` is any in which messages
                wait by default; then those that match and are being sent are counted as not done.

        Raises:
            ValueError: there are no filters, or they contradict each other.
            QueueUnavailable: Redis does not answer; the last step may have been done.
        """
        return self._operator.cancel_all(filters, BulkRun(dry_run, on_step, bulk, by))

    def requeue_all(
        self,
        expires: float | None = None,
        *,
        dry_run: bool = False,
        on_step: OnStep | None = None,
        bulk: bool | None = None,
        by: str | Action | None = None,
        **filters: Unpack[Filters],
    ) -> BulkResult:
        """Send all messages that match again, as :meth:`requeue` and :meth:`cancel_all`.

        Args:
            expires: As of :meth:`requeue`.
            filters: Unless ids are given, ``state`` is required.
        """
        return self._operator.requeue_all(expires, filters, BulkRun(dry_run, on_step, bulk, by))

    def settle_all(
        self,
        as_state: State | str,
        *,
        dry_run: bool = False,
        on_step: OnStep | None = None,
        bulk: bool | None = None,
        by: str | Action | None = None,
        **filters: Unpack[Filters],
    ) -> BulkResult:
        """Say what became of all unknown messages that match, as :meth:`cancel_all`.

        Args:
            as_state: As of :meth:`settle`.
        """
        return self._operator.settle_all(as_state, filters, BulkRun(dry_run, on_step, bulk, by))

    def replay_all(
        self,
        *,
        dry_run: bool = False,
        on_step: OnStep | None = None,
        bulk: bool | None = None,
        by: str | Action | None = None,
        **filters: Unpack[Filters],
    ) -> BulkResult:
        """Run all handlers of all events that match again, as :meth:`cancel_all`.

        Args:
            filters: Unless ids are given, ``state`` is required: dead, unheard or done.
        """
        return self._operator.replay_all(filters, BulkRun(dry_run, on_step, bulk, by))

    def repair(self, id: str, *, by: str | Action | None = None) -> tuple[str, list[str]]:
        """Mend a damaged message or event, which goes on in its state.

        A message that a provider may have accepted becomes unknown, so nothing is sent twice.

        Returns:
            Its state now, and what was wrong; empty: nothing, and nothing has changed.

        Raises:
            LookupError: there is no such message or event.
            DamagedRecord: it cannot be mended, only removed: see :meth:`remove`.
        """
        return self._operator.repair(id, by)

    def remove(self, id: str, *, by: str | Action | None = None) -> bool:
        """Remove a damaged message or event, or a key that was set aside, for good; False: it is
        not damaged.

        Raises:
            LookupError: there is none.
        """
        return self._operator.remove(id, by)


def valid_name(name: object) -> bool:
    """Is this a name for a provider? It is a part of its webhooks' URLs."""
    return isinstance(name, str) and bool(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name))


def _identify(message: OutgoingMessage) -> None:
    """Give a message the id that it will have if the ledger accepts it."""
    if message.unconfirmed_id is None:
        message.unconfirmed_id = new_id()
        if message.provider_options.idempotency_key is None:
            message.derived_key = derived_key()


def _forget_unconfirmed(message: OutgoingMessage) -> None:
    """Forget the id of a send that is confirmed.

    Not earlier: after an error, such as KeyboardInterrupt while the trigger is published, sending
    the object again must give the same id.
    """
    message.unconfirmed_id = message.derived_key = None


def _name_message(
    error: Exception,
    index: int,
    message: object,
    accepted: list[OutgoingMessage] | None = None,
    *,
    text: bool = True,
) -> None:
    """Add to an error of ``send_many`` which message it is about."""
    number = getattr(message, "dst", None)
    if number == "" and isinstance(message, OutgoingMessage):
        number = message.dst_written[0]  # the text that it was made with has no digits
    destination = mask(number) if isinstance(number, str) else ""
    if text:
        to = f" (to {destination})" if destination and destination not in str(error) else ""
        error.args = (f"message at index {index} of the list{to}: {error}",)
    vars(error).update(index=index, destination=destination, accepted=accepted or [])
