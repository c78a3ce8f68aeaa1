"""The gateway: what applications hold, send with and subscribe to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from smsqueue import exc, wire
from smsqueue.events import EventHook, derived_key
from smsqueue.ids import new_id
from smsqueue.messages import IncomingMessage, OutgoingMessage
from smsqueue.providers.base import IProvider
from smsqueue.retry import RetryPolicy
from smsqueue.router import resolve
from smsqueue.settings import Settings
from smsqueue.states import SETTLED_BY_HAND, State
from smsqueue.statuses import MessageStatus

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from smsqueue.ledger import Ledger, Record
    from smsqueue.providers.webhook import Blueprints
    from smsqueue.queue import Queue

__all__ = ["Gateway"]

#: Messages that ``send_many`` hands to Redis in one round trip.
_CHUNK = 500


class _Hook:
    """An event of the gateway: ``+=``, ``-=``, and plain ``=`` with a single handler."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, gateway: Gateway | None, owner: type) -> EventHook:
        if gateway is None:  # asked of the class, as documentation tools do
            return self  # type: ignore[return-value]
        hook: EventHook = gateway.__dict__.setdefault(self._name, EventHook())
        return hook

    def __set__(self, gateway: Gateway, value: EventHook | Callable[..., Any]) -> None:
        gateway.__dict__[self._name] = value if isinstance(value, EventHook) else EventHook(value)


class Gateway:
    """Sends and receives messages through providers.

    Args:
        settings: Read from the environment if not given.
        eager: Deliver in the calling process, as smsframework does; default: the setting.
        retry: What each error means, see :class:`smsqueue.retry.RetryPolicy`.
    """

    #: Called with each OutgoingMessage that a provider took.
    onSend = _Hook()
    #: Called with each IncomingMessage.
    onReceive = _Hook()
    #: Called with each MessageStatus: delivery reports, and the end of what could not be sent.
    onStatus = _Hook()

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        eager: bool | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.eager = self.settings.eager if eager is None else eager
        self.retry = retry or RetryPolicy()
        self._providers: dict[str, IProvider] = {}
        self._default_provider: str | None = None

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
        """Close the connections; the next use opens them again."""
        for name in ("ledger", "queue"):
            used = self.__dict__.pop(name, None)
            if used is not None:
                used.close()

    # --- providers -----------------------------------------------------------------------------

    def add_provider(self, name: str, Provider: type[IProvider], **config: Any) -> IProvider:
        """Register a provider; the first one becomes the default.

        Raises:
            AssertionError: not a provider class, or the name is not a str or is taken.
        """
        if not (isinstance(Provider, type) and issubclass(Provider, IProvider)):
            raise AssertionError("Provider does not implement IProvider")
        if not isinstance(name, str) or not name:
            raise AssertionError("Provider name must be a non-empty string")
        if name in self._providers:
            raise AssertionError(f"Provider is already registered: {name!r}")
        provider = Provider(self, name, **config)
        self._providers[name] = provider
        if self._default_provider is None:
            self._default_provider = name
        return provider

    @property
    def default_provider(self) -> str | None:
        """Name of the provider for messages that nothing routes elsewhere."""
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

    def router(self, message: OutgoingMessage, *values: Any) -> Any:
        """Decide who sends a message: None (the default provider), a name, or a list of names
        in order of preference. Replace it with a function of your own; it is called for
        messages with routing values only."""
        return None

    def route(self, message: OutgoingMessage) -> list[str]:
        """Names of the providers for a message; see :func:`smsqueue.router.resolve`."""
        return resolve(message, self.router, self._providers, self._default_provider)

    # --- sending -------------------------------------------------------------------------------

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Take a message in for delivery and return it, with its ``id``.

        Once this has returned the message is kept. In eager mode: deliver it now.

        Raises:
            AssertionError: the message names a provider that this gateway does not have.
            RequestError: the message cannot be queued; it says what is wrong with it.
            IdempotencyConflict: its key was used for other content.
            QueueUnavailable: not confirmed; sending the same object again is safe.
            ProviderError: in eager mode, what the provider raised.
        """
        if self.eager:
            return self.deliver(message)
        self._prepare(message)
        publish = self._confirm(message, self.ledger.accept(message, message.unconfirmed_id or ""))
        if publish:
            self.queue.deliver([(publish, 0)])
        return message

    def send_many(self, messages: Iterable[OutgoingMessage]) -> list[OutgoingMessage]:
        """Take many messages in; all are checked before the first one is taken.

        Raises:
            As :meth:`send`; QueueUnavailable and IdempotencyConflict have ``accepted``, the list
            of messages that were confirmed. Calling again with all of them is safe.
        """
        batch = list(messages)
        if self.eager:
            return [self.deliver(message) for message in batch]
        for message in batch:
            self._prepare(message)
        accepted: list[OutgoingMessage] = []
        for start in range(0, len(batch), _CHUNK):
            chunk = batch[start : start + _CHUNK]
            triggers = []
            try:
                answers = self.ledger.accept_many(
                    [(message, message.unconfirmed_id or "") for message in chunk]
                )
                for message, answer in zip(chunk, answers, strict=True):
                    publish = self._confirm(message, answer)
                    accepted.append(message)
                    if publish:
                        triggers.append((publish, 0))
            except (exc.QueueUnavailable, exc.IdempotencyConflict) as error:
                error.accepted = accepted  # type: ignore[union-attr]
                raise
            finally:
                self.queue.deliver(triggers)
        return batch

    def _prepare(self, message: OutgoingMessage) -> None:
        """Check a message and give it the id that it will have if the ledger takes it."""
        if not isinstance(message, OutgoingMessage):
            raise TypeError(f"send() takes an OutgoingMessage, not {type(message).__name__}")
        wire.check_outgoing(message, self.settings.max_body)
        name = message.provider
        if name is not None and self._providers and name not in self._providers:
            known = ", ".join(sorted(self._providers))
            raise AssertionError(
                f"The message names an unknown provider: {name!r} (known: {known})"
            )
        if message.unconfirmed_id is None:
            message.unconfirmed_id = new_id()
            if message.provider_options.idempotency_key is None:
                message.provider_options.idempotency_key = derived_key()

    def _confirm(self, message: OutgoingMessage, answer: Any) -> str | None:
        """Note the ledger's answer on a message; the id to publish, if its trigger is wanted."""
        if answer.verdict == "conflict":
            raise exc.IdempotencyConflict(
                f"message {answer.id} was sent with the same idempotency key and other content"
            )
        if answer.verdict == "full":
            raise exc.QueueUnavailable(
                f"Redis at {self.settings.safe_redis_url} is nearly full: new messages are "
                "refused so that those in it can be sent; raise its maxmemory"
            )
        message.id = answer.id
        message.duplicate = answer.verdict == "duplicate"
        message.unconfirmed_id = None
        return answer.id if answer.publish else None

    def deliver(self, message: OutgoingMessage) -> OutgoingMessage:
        """Route a message and send it now, in this process; then call onSend.

        Raises:
            AssertionError: the message or the router names an unknown provider, or there is none.
            ProviderError: what the last provider of the route raised. The next one of a route is
                tried only if the one before surely did not take the message.
        """
        # A provider that the sender asked for stays asked for if the object is sent again.
        asked_for = message.provider is not None and message.provider != message.routed_to
        names = self.route(message)
        for i, name in enumerate(names):
            message.provider = name
            message.routed_to = None if asked_for else name
            try:
                sent = self._providers[name].send(message)
            except exc.ProviderError as error:
                decision = self.retry.decide(error, tries=0, age=0.0, wrote=None)
                if i + 1 == len(names) or not decision.elsewhere:
                    raise
            else:
                self.onSend(sent)
                return sent
        raise AssertionError("a route has at least one provider")

    # --- looking and repairing -----------------------------------------------------------------

    def lookup(self, id: str) -> Record:
        """A message's record; LookupError if there is none (any more)."""
        record = None if self.eager else self.ledger.read(id)
        if record is None:
            days = self.settings.retention / 86400
            kept = "an eager gateway keeps none" if self.eager else f"kept for {days:g} days"
            raise LookupError(f"no message has the id {id!r} (records: {kept})")
        return record

    def find(self, number: str) -> list[Record]:
        """Records of the messages to a number, newest first."""
        digits = OutgoingMessage(number, "").dst
        records = (self.ledger.read(id) for id in self.ledger.find(digits))
        return [record for record in records if record is not None]

    def cancel(self, id: str) -> bool:
        """Cancel a message that waits; False if it does not wait (any more)."""
        before, event = self.ledger.cancel(id)
        self._known(id, before)
        if before not in ("queued", "scheduled", "retrying"):
            return False
        self.queue.deliver([(id, 0)])
        self.queue.hook([event])
        return True

    def requeue(self, id: str, expires: float | None = None) -> bool:
        """Send a failed, expired, undelivered or unknown message again; False for others.

        Args:
            expires: New validity in minutes from now.
        """
        before = self._known(id, self.ledger.requeue(id, expires))
        if before not in ("failed", "expired", "undelivered", "unknown"):
            return False
        self.queue.deliver([(id, 0)])
        return True

    def settle(self, id: str, state: State | str) -> bool:
        """Say what became of an unknown message; False if it is not unknown (any more).

        Args:
            state: sent, accepted, delivered, undelivered or expired.
        """
        if state not in SETTLED_BY_HAND:
            allowed = ", ".join(sorted(SETTLED_BY_HAND))
            raise ValueError(f"a message cannot be settled as {state!r}, only as {allowed}")
        before = self._known(id, self.ledger.decide(id, State(state)))
        if before != "unknown":
            return False
        self.queue.deliver([(id, 0)])
        return True

    def _known(self, id: str, before: str) -> str:
        if before == "gone":
            raise LookupError(f"no message has the id {id!r}")
        return before

    def replay(self, event: str) -> bool:
        """Give an incoming message or report to the hooks again; False if it is not over yet."""
        before = self._known(event, self.ledger.replay(event, everything=True))
        if before not in ("dead", "unheard", "done"):
            return False
        self.queue.hook([event])
        return True

    # --- receiving -----------------------------------------------------------------------------

    def receive_message(self, message: IncomingMessage) -> None:
        """Take an incoming message from a provider: record it, or in eager mode call onReceive."""
        if self.eager:
            self.onReceive(message)
            return
        provider = self._providers.get(message.provider or "")
        new, message.id = self.ledger.receive(
            message, repeats=provider is None or provider.unique_msgids
        )
        if new:
            self.queue.hook([message.id])

    def receive_status(self, status: MessageStatus) -> None:
        """Take a delivery report from a provider: record it, or in eager mode call onStatus."""
        if self.eager:
            self.onStatus(status)
            return
        provider = self._providers.get(status.provider or "")
        unique = provider is None or provider.unique_msgids
        known = unique and status.msgid not in (None, "")
        matched, event, close = self.ledger.report(
            status, pids=[str(status.msgid)] if known else []
        )
        if matched:
            self.queue.hook([event])
        if close:
            self.queue.deliver([(close, 0)])

    def receiver_blueprint_for(self, name: str) -> Blueprint:
        """A Flask blueprint that takes a provider's webhooks.

        Raises:
            KeyError: there is no such provider.
            NotImplementedError: the provider cannot receive.
        """
        from smsqueue.providers.webhook import wrap

        return wrap(self.get_provider(name), self.settings.max_webhook)

    def receiver_blueprints(self) -> Blueprints:
        """Blueprints of all providers that can receive: a dict whose iteration yields pairs."""
        from smsqueue.providers.webhook import Blueprints

        found = Blueprints()
        for name in self._providers:
            try:
                found[name] = self.receiver_blueprint_for(name)
            except NotImplementedError:
                continue
        return found

    def receiver_blueprints_register(self, app: Flask, prefix: str = "/") -> Flask:
        """Register all receivers on an application, under ``/{prefix}/{provider name}``."""
        base = f"/{prefix.strip('/')}" if prefix.strip("/") else ""
        for name, blueprint in self.receiver_blueprints():
            app.register_blueprint(blueprint, url_prefix=f"{base}/{name}")
        return app

    # --- connections ---------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger; connects at its first command."""
        from smsqueue.ledger import Ledger

        return Ledger(self.settings)

    @cached_property
    def queue(self) -> Queue:
        """The queue of triggers; connects at its first publish."""
        from smsqueue.queue import Queue

        return Queue(self.settings)

    def ping(self) -> None:
        """Raise QueueUnavailable if Redis does not answer."""
        if not self.eager:
            self.ledger.ping()

    def check(self) -> list[str]:
        """What of Redis's configuration would break a promise, in words; empty: nothing."""
        return [] if self.eager else list(self.ledger.warnings())
