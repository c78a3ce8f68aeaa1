"""The gateway: what applications hold, send with and subscribe to."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from smsqueue import exc, wire
from smsqueue.desk import Desk
from smsqueue.events import HookAttribute, derived_key
from smsqueue.ids import new_id
from smsqueue.logs import transition
from smsqueue.messages import IncomingMessage, OutgoingMessage
from smsqueue.registry import Registry
from smsqueue.retry import RetryPolicy
from smsqueue.settings import Settings
from smsqueue.statuses import MessageStatus

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from smsqueue.providers.webhook import Blueprints

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

#: Messages that ``send_many`` hands to Redis in one round trip.
_CHUNK = 500


class Gateway(Registry, Desk):
    """Sends and receives messages through providers.

    Args:
        settings: Read from the environment if not given.
        eager: Deliver in the calling process, as smsframework does; default: the setting.
        retry: What each error means, see :class:`smsqueue.retry.RetryPolicy`.
    """

    #: Called with each OutgoingMessage that a provider took.
    onSend = HookAttribute()
    #: Called with each IncomingMessage.
    onReceive = HookAttribute()
    #: Called with each MessageStatus: delivery reports, and the end of what could not be sent.
    onStatus = HookAttribute()

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        eager: bool | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        Registry.__init__(self)
        settings = settings or Settings()
        Desk.__init__(self, settings, eager=settings.eager if eager is None else eager)
        self.retry = retry or RetryPolicy()

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
            wire.check_kind(message)
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
            return [self.send(message) for message in batch]
        for message in batch:
            self._prepare(message)
        accepted: list[OutgoingMessage] = []
        for start in range(0, len(batch), _CHUNK):
            chunk = batch[start : start + _CHUNK]
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
                    failure = failure or error  # those behind it may be in the ledger
                    continue
                accepted.append(message)
                if publish:
                    triggers.append((publish, 0))
            self.queue.deliver(triggers)
            if failure is not None:
                failure.accepted = accepted
                # So that calling again with all of them takes none of them twice.
                for message in accepted:
                    message.unconfirmed_id = message.id
                raise failure
        return batch

    def _prepare(self, message: OutgoingMessage) -> None:
        """Check a message and give it the id that it will have if the ledger takes it."""
        wire.check_kind(message)
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
                message.derived_key = derived_key()

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
        message.unconfirmed_id = message.derived_key = None
        transition(log, message.id, "duplicate" if message.duplicate else "queued")
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

    # --- receiving -----------------------------------------------------------------------------

    def receive_message(self, message: IncomingMessage) -> None:
        """Take an incoming message from a provider: record it, or in eager mode call onReceive."""
        if self.eager:
            self.onReceive(message)
            return
        provider = self._providers.get(message.provider or "")
        publish, message.id = self.ledger.receive(
            message, repeats=provider is None or provider.unique_msgids
        )
        if publish:
            self.queue.hook([message.id])

    def receive_status(self, status: MessageStatus) -> None:
        """Take a delivery report from a provider: record it, or in eager mode call onStatus."""
        if self.eager:
            self.onStatus(status)
            return
        provider = self._providers.get(status.provider or "")
        unique = provider is None or provider.unique_msgids
        known = unique and status.msgid not in (None, "")
        report = self.ledger.report(status, pids=[str(status.msgid)] if known else [])
        if report.moved:
            transition(log, report.id, report.state, provider=status.provider, why="report")
        self.queue.hook(report.events)
        if report.close:
            self.queue.deliver([(report.close, 0)])

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
