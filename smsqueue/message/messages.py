"""The two kinds of message: outgoing (MT, mobile terminated) and incoming (MO, originated)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from smsqueue import exc
from smsqueue.message import numbers
from smsqueue.message.masking import body_size, mask, shown_id
from smsqueue.message.media import Media
from smsqueue.message.segments import Segments, segments_of
from smsqueue.message.smart_encoding import Replacement, smart_text

__all__ = [
    "MOST_TAGS",
    "IncomingMessage",
    "OutgoingMessage",
    "OutgoingMessageOptions",
    "Part",
    "check_category",
    "check_send_at",
    "check_tag",
    "sender_text",
]

_LONGEST = timedelta(days=3650)
#: Tags of one message.
MOST_TAGS = 20


class OutgoingMessageOptions:
    """Options of a message, for all providers. Class attributes are the defaults."""

    #: The recipient may reply.
    allow_reply: bool = True
    #: Ask the network for a delivery report.
    status_report: bool = False
    #: Validity in minutes (fractions allowed), counted from ``send_at``; None: no limit.
    expires: float | None = None
    #: Sender id in place of a number.
    senderId: str | None = None
    #: High priority: faster and more expensive, if the provider offers it.
    escalate: bool = False
    #: Sends with the same key and content make one message.
    idempotency_key: str | None = None
    #: Earliest time of sending, an aware datetime.
    send_at: datetime | None = None
    #: What to do if a provider's answer is lost: "hold" it as unknown, or "resend" it and
    #: accept that it may arrive twice.
    on_unknown: Literal["hold", "resend"] = "hold"
    #: Replace characters that make the text Unicode by similar ones, see
    #: :mod:`smsqueue.message.smart_encoding`. None: as the gateway does (``smart_encoding``).
    smart_encoding: bool | None = None
    #: What it is about, such as "marketing" or "password": rules may differ by category.
    category: str | None = None
    #: JSON data that is passed to onSend and onStatus.
    context: dict[str, Any] = {}  # noqa: RUF012  never changed in place
    #: Tags, by which operators find, cancel and pause messages. Setting some adds them to those
    #: that are there; None removes all. They are visible in key names, so no personal data.
    tag: tuple[str, ...] = ()

    def update(self, **options: Any) -> None:
        """Set options by name.

        Raises:
            TypeError: there is no option of that name, or a value has the wrong type.
            ValueError: a value is invalid, e.g. ``send_at`` without a time zone.
        """
        for name in options:
            if (
                name.startswith("_")
                or not hasattr(OutgoingMessageOptions, name)
                or name == "update"
            ):
                known = ", ".join(sorted(_OPTION_NAMES))
                raise TypeError(f"unknown option {name!r}; the options are: {known}")
        checked = {
            name: value if value is None else _CHECKS[name](name, value)
            for name, value in options.items()
        }
        if "tag" in checked:
            checked["tag"] = self._with_tags(checked["tag"])
        self.__dict__.update(checked)

    def _with_tags(self, added: tuple[str, ...] | None) -> tuple[str, ...]:
        if added is None:
            return ()
        # What was assigned to the attribute was not validated.
        tags = tuple(dict.fromkeys((*_check_tags("tag", self.tag), *added)))
        if len(tags) > MOST_TAGS:
            raise ValueError(f"a message has at most {MOST_TAGS} tags, not {len(tags)}")
        return tags


def sender_text(name: str, value: Any) -> str | None:
    """A number or sender id as text; short codes may be integers.

    Raises:
        TypeError: it is neither text nor an integer. The error begins with ``name``.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    return value


def _check_flag(name: str, value: Any) -> bool:
    if value not in (True, False):  # 0 and 1, too
        kind = type(value).__name__
        raise TypeError(f"{name} must be True or False, not {kind}")
    return bool(value)


_CATEGORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_category(name: str, value: object) -> str:
    """A category of messages.

    Raises:
        TypeError, ValueError: it is none. The error begins with ``name``.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    if not _CATEGORY.fullmatch(value):
        raise ValueError(
            f"{name} is {value!r}: use 1 to 64 letters, digits, dots, dashes and underscores"
        )
    return value


def _check_context(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    return value


def check_send_at(name: str, value: Any) -> datetime:
    """A time before which a message is not sent.

    Raises:
        TypeError, ValueError: it is none. The error begins with ``name``.
    """
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError(
            f"{name} has no time zone, so the hour is ambiguous: "
            "give an aware datetime, e.g. datetime.now(timezone.utc) + timedelta(hours=1)"
        )
    # datetime cannot parse the last years of its calendar.
    if value > datetime.now(UTC) + 10 * _LONGEST:
        raise ValueError(f"{name} must be within a hundred years, not {value.isoformat()}")
    return value


def _check_expires(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expires must be a number of minutes, not {type(value).__name__}")
    if not 0 < value < _LONGEST / timedelta(minutes=1):
        raise ValueError(f"expires must be between 0 minutes and ten years, not {value!r}")
    return value


def _check_on_unknown(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in ("hold", "resend"):
        raise ValueError(f'on_unknown must be "hold" or "resend", not {value!r}')
    return value


def _check_key(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("idempotency_key must be a non-empty str")
    return value


#: What a tag may be. It is part of the name of a Redis key, and the ledger joins tags by spaces.
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)


def check_tag(tag: Any) -> str:
    """A valid tag.

    Raises:
        TypeError: it is not text.
        ValueError: it has other characters than a tag may have, or too many.
    """
    if not isinstance(tag, str):
        raise TypeError(f"a tag must be text, not {type(tag).__name__}")
    valid = _TAG.match(tag)
    if valid is None or valid.end() < len(tag):
        end = valid.end() if valid else 0
        # Without the tag itself, which may be a phone number by mistake.
        problem = f"has {tag[end]!r} at index {end}" if tag and end < 64 else "is empty"
        problem = f"has {len(tag)} characters" if end == 64 else problem
        raise ValueError(
            f"a tag {problem}: use 1 to 64 letters, digits, dots, dashes, underscores and colons, "
            "beginning with a letter or digit, as in 'black-friday'"
        )
    return tag


def _check_tags(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (check_tag(value),)
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError(f"tag must be text or a list of texts, not {type(value).__name__}")
    return tuple(dict.fromkeys(map(check_tag, value)))


_OPTION_NAMES = [
    name for name in vars(OutgoingMessageOptions) if not name.startswith("_") and name != "update"
]
#: Validators, which return the value to store.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "allow_reply": _check_flag,
    "status_report": _check_flag,
    "escalate": _check_flag,
    "senderId": sender_text,
    "smart_encoding": _check_flag,
    "category": check_category,
    "context": _check_context,
    "send_at": check_send_at,
    "expires": _check_expires,
    "on_unknown": _check_on_unknown,
    "idempotency_key": _check_key,
    "tag": _check_tags,
}


class OutgoingMessage:
    """A message that is to be sent or was sent.

    Args:
        dst: Destination phone number or short code. Only its digits are kept, without an extension
            or a "(0)" after a plus, see :func:`smsqueue.message.numbers.destination`. Of any other
            text nothing is kept, and sending raises RequestError.
        body: The text.
        src: Source number or sender id, not changed; an integer becomes its digits.
        provider: Name of the provider to use; None: the router decides.
    """

    #: The message's id, set by ``gateway.send``; 20 characters that sort by time.
    id: str | None = None
    #: True: a message with this idempotency key had been sent before.
    duplicate: bool = False
    #: ``id.attempt``, which a provider returns in its reports; set before each attempt.
    reference: str | None = None
    #: Key by which a provider that de-duplicates recognizes a repeated call; set before each
    #: attempt.
    dedup_key: str | None = None
    #: True: an earlier attempt with this key lost its answer.
    repeated: bool = False
    #: Values for the router, see :meth:`route`.
    routing_values: tuple[Any, ...] | None = None
    #: The provider's message id, set by the provider.
    msgid: Any = None
    #: Other data of the provider about the message.
    meta: Any = None
    #: What smart encoding replaced in the text.
    replaced: tuple[Replacement, ...] = ()
    #: The destination that it was sent to, if the gateway redirected it to ``dst``. Personal data.
    redirected_from: str | None = None
    #: Why no SMS can be sent to the destination; None: one can.
    dst_problem: str | None = None

    def __init__(
        self, dst: str, body: str, src: str | None = None, provider: str | None = None
    ) -> None:
        if not isinstance(dst, str):
            raise TypeError(f"the number must be text, not {type(dst).__name__}")
        self.src = sender_text("src", src)
        self.dst, self.dst_problem = numbers.destination(dst)
        #: The destination as written, and ``dst`` at that time: while ``dst`` is unchanged, the
        #: written form distinguishes a national number from an international one.
        self.dst_written = (dst, self.dst)
        self.body = body
        #: The text as written, and ``body`` after smart encoding; None: nothing was replaced.
        self.body_written: tuple[str, str] | None = None
        self.provider = provider
        self.provider_options = OutgoingMessageOptions()
        self.provider_params: dict[str, Any] = {}
        #: The provider, if the gateway and not the sender chose it.
        self.routed_to: str | None = None
        #: Id of a send that was not confirmed; sending this object again reuses it.
        self.unconfirmed_id: str | None = None
        #: Idempotency key of such a send in a running handler, for this send only.
        self.derived_key: str | None = None

    def options(self, **options: Any) -> Self:
        """Set sending options; see :class:`OutgoingMessageOptions` for names and errors."""
        self.provider_options.update(**options)
        return self

    def params(self, **params: Any) -> Self:
        """Set parameters that are specific to the provider."""
        self.provider_params = params
        return self

    def route(self, *values: Any) -> Self:
        """Set the values for the router, which is called only for messages that have some."""
        self.routing_values = values
        return self

    def encode_smartly(self) -> None:
        """Replace characters that make the text Unicode by similar ones.

        ``replaced`` says which. Calling it again changes nothing.
        """
        if self.body_written is not None and self.body_written[1] == self.body:
            return
        encoded = smart_text(self.body)
        self.body_written = (self.body, encoded.text) if encoded.replaced else None
        self.body, self.replaced = encoded

    def segments(self) -> Segments:
        """How many SMS the text takes, in which encoding, and which character makes it Unicode."""
        return segments_of(self.body)

    def __repr__(self) -> str:
        # Without number and text, since error trackers record it.
        return (
            f"{type(self).__name__}({mask(self.dst)!r}, {body_size(self.body)}, "
            f"src={mask(self.src)!r}, provider={self.provider!r}, msgid={shown_id(self.msgid)}, "
            f"id={self.id!r})"
        )


@dataclass(frozen=True)
class Part:
    """Which part of a long message an incoming one is, if its provider does not join the parts.

    Raises:
        ValueError: the number is not between 1 and ``total``, or the total is above 255.
    """

    #: Reference that the parts share. Phones reuse it after some messages.
    ref: str
    #: From 1 to ``total``.
    number: int
    total: int
    #: Seconds for which the first part to arrive waits for the others.
    wait: float = 600.0

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.total <= 255:
            raise ValueError(f"a message has no part {self.number} of {self.total}")


class IncomingMessage:
    """A message received from a provider.

    Args:
        src: The sender: the digits of a phone number, any other address unchanged, see
            :func:`smsqueue.message.numbers.incoming_address`.
        body: The text; may be empty.
        msgid: The provider's message id, of any type.
        dst: The recipient, in the form of ``src``.
        rtime: When it was received; None: now (aware, UTC).
        meta: Other data of the provider. ``meta["recipients"]`` lists all recipients of a group
            message, in the form of ``src``.
        media: Pictures and other files, in order.
    """

    #: Id of the event, set when it is recorded.
    id: str | None = None
    #: Name of the provider that received it.
    provider: str | None = None
    #: Set by a provider that does not join the parts of long messages: the ledger joins them. The
    #: message has ``meta["parts"]``; if parts did not arrive in time, ``meta["missing"]`` lists
    #: them.
    part: Part | None = None
    #: Signature of the webhook and index in it: identifies repetitions without a ``msgid``.
    signed_by: str | None = None
    #: The channel, if the provider has several; None: SMS or MMS.
    channel: str | None = None
    #: Country whose national numbers can be answered: SMSQUEUE_REGION.
    region: str | None = None
    #: URLs and types of attached files, in order.
    media: tuple[Media, ...] = ()
    #: What it asks for, if it is a keyword such as STOP: see :mod:`smsqueue.policy.opt_outs`.
    keyword: Literal["stop", "start", "help"] | None = None
    #: Sends answers: ``send`` of the gateway that received it.
    send_answer: Callable[[OutgoingMessage], OutgoingMessage] | None = None

    def __init__(
        self,
        src: str,
        body: str,
        msgid: Any = None,
        dst: str | None = None,
        rtime: Any = None,
        meta: dict[str, Any] | None = None,
        media: Iterable[tuple[str, str | None]] = (),
    ) -> None:
        self.msgid = msgid
        self.src = numbers.incoming_address(src)
        self.body = body
        self.dst = numbers.incoming_address(dst) or None
        self.rtime = rtime or datetime.now(UTC)
        self.meta = meta or {}
        if media:
            self.media = tuple(Media(url, kind) for url, kind in media)

    @property
    def replyable(self) -> bool:
        """Can an SMS to ``src`` answer it? See :func:`smsqueue.message.numbers.replyable`.

        False for other channels, whose senders may not be phone numbers.
        """
        return self.channel is None and numbers.replyable(self.src, self.region)

    def reply(self, text: str, **options: Any) -> OutgoingMessage:
        """Answer it from the number that was texted, through the provider that received it.

        Args:
            options: See :class:`OutgoingMessageOptions`.

        Returns:
            The message that was sent, with its ``id``.

        Raises:
            RequestError: no SMS can be sent to its sender, see :attr:`replyable`.
            LookupError: no gateway received this object.
            Exception: as ``Gateway.send`` and ``OutgoingMessage.options``.
        """
        if self.send_answer is None:
            raise LookupError("this message did not come through a gateway, so it has no answer")
        if not self.replyable:
            raise exc.RequestError(
                f"no SMS can be sent to {mask(self.src) or 'the sender'}: check "
                "message.replyable before you answer"
            )
        answer = OutgoingMessage(self.src, text, src=self.dst, provider=self.provider)
        return self.send_answer(answer.options(**options))

    def __getstate__(self) -> dict[str, Any]:
        # A copy for another process, or of a test, has no gateway.
        return {name: value for name, value in vars(self).items() if name != "send_answer"}

    def __repr__(self) -> str:
        # Without number and text, since error trackers record it.
        return (
            f"{type(self).__name__}({self.provider!r}, {mask(self.src)!r}, {body_size(self.body)}, "
            f"dst={mask(self.dst)!r}, msgid={shown_id(self.msgid)}, id={self.id!r})"
        )
