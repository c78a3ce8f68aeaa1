"""The gateway: what applications hold, send with and subscribe to."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from smsqueue import exc
from smsqueue.events import HookAttribute, derived_key
from smsqueue.logs import get_logger, transition
from smsqueue.message import serialization
from smsqueue.message.ids import new_id
from smsqueue.message.masking import mask
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.statuses import MessageStatus
from smsqueue.operator import Desk
from smsqueue.policy.retry import GuardedPolicy, RetryPolicy
from smsqueue.policy.router import unknown_provider
from smsqueue.providers.checked import check_lengths
from smsqueue.providers.used import UsedSignatures
from smsqueue.registry import Registry, valid_name
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from smsqueue.providers.webhook import Blueprints

__all__ = ["Gateway"]

log = get_logger(__name__)

#: Messages that ``send_many`` hands to Redis in one round trip: Redis serves nobody else meanwhile.
_CHUNK = 100


class Gateway(Registry, Desk):
    """Sends and receives messages through providers.

    Args:
        settings: Read from the environment if not given.
        eager: Deliver in the calling process, as smsframework does; default: the setting.
        retry: What each error means, see :class:`smsqueue.policy.retry.RetryPolicy`.

    Raises:
        TypeError: one of them is something else.
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
        if not isinstance(settings, Settings | None):
            raise TypeError(f"settings must be Settings, not {type(settings).__name__}")
        if eager not in (None, True, False):
            raise TypeError(f"eager must be True or False, not {type(eager).__name__}")
        if retry is not None and not callable(getattr(retry, "decide", None)):
            raise TypeError(f"retry must be a RetryPolicy, not {type(retry).__name__}")
        settings = settings or Settings()
        Desk.__init__(self, settings, eager=settings.eager if eager is None else bool(eager))
        self.retry = retry or RetryPolicy()
        self._used_signatures = UsedSignatures()

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
        """Close the connections; the next use opens them again. In a worker the connections are
        the worker's: a handler that closes its gateway closes nothing."""
        for name in ("ledger", "queue"):
            used = self.__dict__.get(name)
            if used is not None and not getattr(used, "of_worker", False):
                del self.__dict__[name]
                used.close()

    # --- sending -------------------------------------------------------------------------------

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Take a message in for delivery and return it, with its ``id``.

        Once it is taken in, nothing is raised any more: a trigger that cannot be published is
        logged, and upkeep publishes it. In eager mode: deliver it now.

        Raises:
            AssertionError: the message names a provider that this gateway does not have.
            RequestError: the message cannot be queued; it says what is wrong with it.
            IdempotencyConflict: its key was used for other content.
            QueueUnavailable: not confirmed; sending the same object again is safe, as it is
                after anything else that was raised here, such as KeyboardInterrupt. Its
                ``refused`` is true if Redis was not reached or refused the message.
            ProviderError: in eager mode, what the provider raised.
        """
        if self.eager:
            return self.deliver(message)
        self._check(message)
        queue = self.queue  # made before the message is taken in: nothing may go wrong after that
        _identify(message)
        publish = self._confirm(message, self.ledger.accept(message, message.unconfirmed_id or ""))
        if publish:
            queue.deliver([(publish, 0)])
        _forget_unconfirmed(message)
        return message

    def send_many(self, messages: Iterable[OutgoingMessage]) -> list[OutgoingMessage]:
        """Take many messages in; all are checked before the first one is taken.

        An object that is in the list twice is one message. In eager mode they are delivered one
        after the other, once all are checked.

        Raises:
            As :meth:`send`, and what iterating over ``messages`` raises. TypeError: it is one
            message, not many. An error about one
            message has ``index``, its place in the list, and ``destination``, its number masked.
            An invalid one is found before any is taken. QueueUnavailable and IdempotencyConflict
            have ``accepted``, the list of messages that were confirmed; whether the others are in
            nobody knows. After any error the same objects may be sent again, all of them or any,
            one by one or together: none is taken twice. Objects that are made anew are new
            messages, unless they have idempotency keys. In eager mode, ``accepted`` lists what
            was delivered: send only the others again.
        """
        if isinstance(messages, OutgoingMessage):
            raise TypeError("send_many() takes a list of messages: for one message, use send()")
        given = list(messages)
        for index, message in enumerate(given):
            try:
                self._check(message)
            except Exception as error:
                _name_message(error, index, message)
                raise
        places = {id(message): index for index, message in reversed([*enumerate(given)])}
        batch = [message for index, message in enumerate(given) if places[id(message)] == index]
        accepted: list[OutgoingMessage] = []
        if self.eager:
            for message in batch:
                try:
                    self.deliver(message)
                except Exception as error:
                    _name_message(error, places[id(message)], message, accepted, text=False)
                    raise
                accepted.append(message)
            return given
        queue = self.queue if batch else None
        for message in batch:
            _identify(message)
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
                    if failure is None:
                        failure = error
                        if isinstance(error, exc.IdempotencyConflict):
                            _name_message(error, places[id(message)], message)
                    continue  # those behind it may be in the ledger
                accepted.append(message)
                if publish:
                    triggers.append((publish, 0))
            if queue is not None:
                queue.deliver(triggers)
            if failure is not None:
                failure.accepted = accepted
                if isinstance(failure, exc.QueueUnavailable):
                    failure.refused = False  # it may be true of one message only
                raise failure
        for message in batch:
            _forget_unconfirmed(message)
        return given

    def _check(self, message: OutgoingMessage) -> None:
        """Raise what is wrong with a message; nothing has happened then."""
        serialization.check_kind(message)
        serialization.check_outgoing(message, self.settings.max_body, self.settings.region)
        name = message.provider
        if name is None or (isinstance(name, str) and name in self._providers):
            return
        if self._providers or not valid_name(name):
            raise unknown_provider("The message names", name, self._providers)

    def _confirm(self, message: OutgoingMessage, answer: Any) -> str | None:
        """Note the ledger's answer on a message; the id to publish, if its trigger is wanted."""
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
        transition(log, message.id, "duplicate" if message.duplicate else "queued")
        return answer.id if answer.publish else None

    def deliver(self, message: OutgoingMessage) -> OutgoingMessage:
        """Route a message and send it now, in this process; then call onSend.

        Raises:
            AssertionError: the message or the router names an unknown provider, or there is none.
            RequestError: the message is invalid, as :meth:`send` has it.
            ProviderError: what the last provider of the route raised. The next one of a route is
                tried only if the one before surely did not take the message.
        """
        self._check(message)
        # A provider that the sender asked for stays asked for if the object is sent again.
        asked_for = message.provider is not None and message.provider != message.routed_to
        names = self.route(message)
        for i, name in enumerate(names):
            message.provider = name
            message.routed_to = None if asked_for else name
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
        """Take an incoming message from a provider: record it, or in eager mode call onReceive.

        Raises:
            ValueError: an address or id of it is too long to be recorded.
            QueueUnavailable: it was not recorded.
        """
        message.region = self.settings.region
        if self.eager:
            self.onReceive(message)
            return
        check_lengths(message)
        provider = self._providers.get(message.provider or "")
        publish, message.id = self.ledger.receive(
            message, repeats=provider is None or provider.unique_msgids
        )
        if publish:
            self.queue.hook([message.id])

    def note_signature(
        self, provider: str, signature: str, request: str, seconds: float | None
    ) -> str:
        """Remember for which request a webhook's signature was used: in the ledger, or in eager
        mode in this process; see :mod:`smsqueue.providers.used`."""
        longest = self.settings.report_wait
        kept = None if seconds is None else min(seconds, longest)
        if self.eager:
            return self._used_signatures.note(provider, signature, request, kept)
        return self.ledger.note(provider, signature, request, kept)

    def receive_status(self, status: MessageStatus) -> None:
        """Take a delivery report from a provider: record it, or in eager mode call onStatus.

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
            transition(log, report.id, report.state, provider=status.provider, why="report")
        self.queue.hook(report.events, bulk=report.bulk)
        if report.close:
            self.queue.deliver([(report.close, 0)])

    def receiver_blueprint_for(self, name: str) -> Blueprint:
        """A Flask blueprint that takes a provider's webhooks.

        Raises:
            KeyError: there is no such provider.
            NotImplementedError: the provider cannot receive.
        """
        from smsqueue.providers.webhook import wrap

        settings, access = self.settings, self.webhook_access(name)
        provider = self.get_provider(name)
        return wrap(provider, settings.max_webhook, access, settings.trusted_proxies)

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
        """Register all receivers on an application, under ``/{prefix}/{provider name}``.

        Those with a ``webhook_prefix`` of their own are served under that instead, once.
        """
        base = f"/{prefix.strip('/')}" if prefix.strip("/") else ""
        served: set[tuple[int, str]] = app.extensions.setdefault("smsqueue_own_prefixes", set())
        for name, blueprint in self.receiver_blueprints():
            own = self.webhook_access(name).prefixes
            if not own:
                app.register_blueprint(blueprint, url_prefix=f"{base}/{name}")
            elif (id(self), name) not in served:
                served.add((id(self), name))
                for each in own:
                    again = self.receiver_blueprint_for(name)
                    app.register_blueprint(again, url_prefix=f"/{each}/{name}")
        return app


def _identify(message: OutgoingMessage) -> None:
    """Give a message the id that it will have if the ledger takes it."""
    if message.unconfirmed_id is None:
        message.unconfirmed_id = new_id()
        if message.provider_options.idempotency_key is None:
            message.derived_key = derived_key()


def _forget_unconfirmed(message: OutgoingMessage) -> None:
    """The caller is about to learn that it is in. Not earlier: if anything is raised before, such
    as KeyboardInterrupt while its trigger is published, sending the object again is safe."""
    message.unconfirmed_id = message.derived_key = None


def _name_message(
    error: Exception,
    index: int,
    message: object,
    accepted: list[OutgoingMessage] | None = None,
    *,
    text: bool = True,
) -> None:
    """Say in an error of ``send_many`` which of the messages it is about."""
    number = getattr(message, "dst", None)
    if number == "" and isinstance(message, OutgoingMessage):
        number = message.dst_written[0]  # what it was made with has no digits of its own
    destination = mask(number) if isinstance(number, str) else ""
    if text:
        to = f" (to {destination})" if destination and destination not in str(error) else ""
        error.args = (f"message at index {index} of the list{to}: {error}",)
    vars(error).update(index=index, destination=destination, accepted=accepted or [])
