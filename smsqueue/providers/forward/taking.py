"""What the server does with a client's message: it sends it, once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from smsqueue import exc
from smsqueue.lib import digits_only
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.numbers import sender_kind
from smsqueue.message.states import State
from smsqueue.providers.forward.errors import portable
from smsqueue.providers.forward.hops import CONTEXT, Hops, told_of
from smsqueue.providers.forward.parts import Passed
from smsqueue.providers.forward.recent import Recent
from smsqueue.settings import SettingsError

__all__ = ["Taker"]

#: The message is not out and nobody tries any more: another attempt is another sending.
_OVER = frozenset({State.FAILED, State.EXPIRED, State.UNDELIVERED, State.CANCELLED})
#: Sendings of one message, a bound that only a fault reaches.
_MOST = 100


class Taker:
    """Sends clients' messages through a gateway.

    Args:
        name: The server provider's, a part of the idempotency keys.
        params: Names of parameters that clients may give; None: any.
        senders: Senders that clients may name; None: any.

    Raises:
        SettingsError: one of the lists is a text.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        hops: Hops,
        params: Collection[str] | None = None,
        senders: Collection[str] | None = None,
    ) -> None:
        for what, given in (("params", params), ("senders", senders)):
            if isinstance(given, str):
                raise SettingsError(f"{what} of provider {name!r} is a text: give a list of texts")
        self._params = None if params is None else frozenset(params)
        self._senders = None if senders is None else frozenset(map(_sender, senders))
        self._gateway = gateway
        self._name = name
        self._hops = hops
        self._recent: Recent[OutgoingMessage] = Recent()

    def take(self, passed: Passed) -> OutgoingMessage:
        """Send a client's message; the message as it then is.

        A repeated attempt sends nothing again. A later attempt does only if what the one before
        led to is over and was not delivered.

        Raises:
            RequestError: it goes round in a circle, or cannot be sent.
            ProviderError: not recorded; from an eager gateway what its provider raised.
        """
        self._hops.check(passed.hops)
        self._judge(passed.message)
        passed.message.provider = None  # its name for us: who sends is decided here
        if not self._gateway.eager:
            return self._once(passed)
        # What was sent is remembered for a while, by this process only.
        key = None if passed.id is None else (passed.hops[:1], passed.reference)
        if key is None and passed.signature is not None:
            key = ((), passed.signature)
        return self._recent.once(key, lambda: self._deliver(passed), repeated=passed.repeated)

    def _judge(self, message: OutgoingMessage) -> None:
        """Raise RequestError for a parameter or a sender that clients may not give."""
        if self._params is not None and not self._params.issuperset(message.provider_params):
            raise exc.RequestError(
                "the message has a parameter that this server does not take from clients: leave it "
                "out, or let the server add it to params=[...]",
                code="params",
            )
        named = [each for each in (message.src, message.provider_options.senderId) if each]
        if self._senders is not None and not self._senders.issuperset(map(_sender, named)):
            raise exc.RequestError(
                "the message has a sender that this server does not take from clients: leave it "
                "out, or let the server add it to senders=[...]",
                code="senders",
            )

    def _once(self, passed: Passed) -> OutgoingMessage:
        try:
            # If Redis is away this says so while surely nothing is recorded.
            self._gateway.ping()
        except exc.QueueUnavailable as error:
            raise portable(error) from None
        first = self._hops.here if not passed.hops else passed.hops[0]
        key = f"forward:{self._name}:{first}:{passed.id}"
        known = passed.id is not None
        if not known and passed.signature is not None:  # the same request again is a replay
            known, key = True, f"forward:{self._name}:signed:{passed.signature}"
        told: dict[str, Any] = {"reference": passed.reference, "attempt": passed.attempt}
        told |= {"origin": first, "hops": list(passed.hops)}
        message = passed.message
        message.options(context={CONTEXT: told})
        for _ in range(_MOST):
            if known:
                message.options(idempotency_key=key)
            try:
                self._gateway.send(message)
            except exc.QueueUnavailable as error:
                unsaid = portable(error)
                unsaid.ambiguous = not isinstance(error, exc.LedgerError)
                raise unsaid from None
            if not message.duplicate or not self._is_over(message, passed.attempt):
                return message
            key = f"forward:{self._name}:again:{message.id}"
        raise exc.RequestError("it was sent too often")

    def _is_over(self, message: OutgoingMessage, attempt: int) -> bool:
        """Has an earlier attempt's sending ended without being delivered?"""
        try:
            record = self._gateway.lookup(message.id)
        except LookupError:
            return False
        before = told_of(record.message.provider_options.context).get("attempt")
        return record.state in _OVER and isinstance(before, int) and attempt > before

    def _deliver(self, passed: Passed) -> OutgoingMessage:
        passed.message.options(context={CONTEXT: {"hops": list(passed.hops)}})
        try:
            sent: OutgoingMessage = self._gateway.send(passed.message)
        except AssertionError as error:  # no provider, or the router names an unknown one
            raise exc.ServerError(str(error)) from None
        except Exception as error:
            raise portable(error) from None
        return sent


def _sender(given: str) -> str:
    """A sender as it is compared: a number by its digits, a sender id as it is."""
    return given if sender_kind(given) == "alphanumeric" else digits_only(given)
