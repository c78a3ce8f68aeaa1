"""Errors that leave a plugin, in terms of :mod:`smsqueue.exc`.

They stay what they are, so that an application's ``except`` still works, and become errors of
ours, so that the retry policy can judge them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from smsqueue import exc
from smsqueue.compat.classes import remade
from smsqueue.compat.network import (
    http_status,
    is_network,
    nothing_written,
    posted_text,
    status_in_hand,
)

__all__ = ["guarded", "translated"]

_Result = TypeVar("_Result")

#: The nine that smsframework has.
_OURS: dict[str, type[exc.ProviderError]] = {
    each.__name__: each
    for each in (
        *(exc.ProviderError, exc.ConnectionError, exc.MessageSendError, exc.RequestError),
        *(exc.UnsupportedError, exc.ServerError, exc.AuthError, exc.LimitsError, exc.CreditError),
    )
}
#: Classes that a plugin raises for want of a better one: what is behind them says more.
_VAGUE = (exc.ProviderError, exc.MessageSendError)
#: Classes that may stand for a lost answer. The others are a provider's clear word.
_OPEN = (*_VAGUE, exc.ConnectionError, exc.ServerError)
_STATUSES = {
    **{303: exc.ServerError, 401: exc.AuthError, 402: exc.CreditError, 403: exc.AuthError},
    **{407: exc.AuthError, 408: exc.ServerError, 425: exc.ServerError, 429: exc.LimitsError},
    **{499: exc.ServerError, 501: exc.UnsupportedError, 505: exc.UnsupportedError},
}
#: A server or proxy stopped waiting, or answers with the address of the result. Every 5xx is
#: ambiguous, too: a plugin's error does not show whether its provider wrote it, and proxies
#: answer 5xx (503 too) after they forwarded the request.
_OUTCOME_NOT_KNOWN = (303, 408, 499)


def guarded(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """A plugin's method, with its errors translated."""

    @functools.wraps(function)
    def call(self: Any, *args: Any, **options: Any) -> _Result:
        outside = sys.exception()
        try:
            return function(self, *args, **options)
        except Exception as error:
            declared = bool(getattr(self, "bare_503_is_refusal", ""))
            told = translated(error, outside, refuses_with_503=declared)
            if isinstance(told, exc.ProviderError) and told.provider is None:
                told.provider = self.name
            if told is error:
                raise
            raise told.with_traceback(error.__traceback__) from error

    return call


def translated(
    error: Exception, outside: BaseException | None = None, *, refuses_with_503: bool = False
) -> BaseException:
    """The same error, or one that is of smsqueue.exc as well.

    What neither comes from smsframework nor from the network is nobody's word on the message,
    so it stays outside: whether the message went out is not known.

    Args:
        outside: What was being handled when the plugin was called; none of its business.
        refuses_with_503: The plugin's class says, in ``bare_503_is_refusal``, where its provider
            documents that a 503 means that the request was not processed.
    """
    ours = _nearest(error)
    # What the plugin says of the message, if it says anything.
    clear = ours is not None and ours not in _OPEN
    behind = next((each for each in _chain(error, outside) if _tells(each)), None)
    if posted_text(error):
        # Two of the published plugins do, and so cannot send at all: others of the route can.
        told = _as(error, exc.UnsupportedError)
        told.code = "cannot send on Python 3"
        return told
    if ours is None:
        if behind is not error:
            return error
        status = http_status(error)
        ours = exc.ConnectionError if status is None else _by_status(status)
    elif ours in _VAGUE and behind is not None:
        status = http_status(behind)
        ours = exc.ConnectionError if status is None else _by_status(status)
    status = None if behind is None else http_status(behind)
    if behind is None:
        found = (status_in_hand(each) for each in _chain(error, outside))
        status = next((each for each in found if each is not None), None)
    told = _as(error, ours)
    # Unless the plugin knows: that attribute is none that smsframework's errors have.
    if "ambiguous" not in vars(error):
        if status is not None and _outcome_not_known(status, refuses_with_503=refuses_with_503):
            told.ambiguous = True  # whatever class the plugin makes of a proxy's answer
        elif not clear:
            told.ambiguous = status is None and _ambiguous(ours, behind)
    if status is not None:
        told.http_status = status
    return told


def _as(error: Exception, ours: type[exc.ProviderError]) -> exc.ProviderError:
    """The error, which is of one of our classes, too."""
    if isinstance(error, ours):
        return error
    try:
        return cast(exc.ProviderError, remade(error, ours))
    except TypeError:  # its class cannot be derived from: then only ours
        return ours(*error.args, code=getattr(error, "code", None))


def _nearest(error: BaseException) -> type[exc.ProviderError] | None:
    """Our class of the same name as the nearest one of smsframework that it derives from."""
    for each in type(error).__mro__:
        if each.__module__ in ("smsframework.exc", exc.__name__) and each.__name__ in _OURS:
            return _OURS[each.__name__]
    return None


def _chain(error: BaseException | None, outside: BaseException | None) -> Iterator[BaseException]:
    """An error, and what was being handled when it was raised."""
    seen: set[int] = set()
    while error is not None and error is not outside and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _tells(error: BaseException) -> bool:
    return is_network(error) or http_status(error) is not None


def _by_status(status: int) -> type[exc.ProviderError]:
    return _STATUSES.get(status, exc.ServerError if status >= 500 else exc.RequestError)


def _outcome_not_known(status: int, *, refuses_with_503: bool) -> bool:
    """May the provider have taken the message, although somebody answered with this status?"""
    if status == 503 and refuses_with_503:
        return False
    return status in _OUTCOME_NOT_KNOWN or status >= 500


def _ambiguous(ours: type[exc.ProviderError], behind: BaseException | None) -> bool:
    """May the provider have taken the message, of which there is no answer?"""
    if behind is None:
        # "Connection failed", and nothing shows that it did before the request was written.
        return ours is exc.ConnectionError
    return not nothing_written(behind)
