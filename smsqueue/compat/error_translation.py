"""Translates the errors that plugins raise to classes of :mod:`smsqueue.exc`.

A translated error is an instance of its original class and of ours: ``except`` clauses of the
application still match, and the retry policy can classify it. A network error is ambiguous
unless nothing of the request can have been written.

Libraries are recognized by the names of their classes, so none of them has to be installed.
"""

from __future__ import annotations

import builtins
import errno
import functools
import http.client
import socket
import ssl
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast
from urllib.error import HTTPError, URLError

from smsqueue import exc
from smsqueue.compat.combined_classes import copy_with_class

__all__ = ["translate_error", "translating_errors"]

_Result = TypeVar("_Result")

#: The nine classes that smsframework has.
_CLASSES: dict[str, type[exc.ProviderError]] = {
    cls.__name__: cls
    for cls in (
        *(exc.ProviderError, exc.ConnectionError, exc.MessageSendError, exc.RequestError),
        *(exc.UnsupportedError, exc.ServerError, exc.AuthError, exc.LimitsError, exc.CreditError),
    )
}
#: Classes that plugins raise for lack of a better one: the error's cause is more precise.
_GENERIC = (exc.ProviderError, exc.MessageSendError)
#: Classes that may stand for a lost answer. The others are a definite answer of the provider.
_INDEFINITE = (*_GENERIC, exc.ConnectionError, exc.ServerError)
_CLASS_BY_STATUS = {
    **{303: exc.ServerError, 401: exc.AuthError, 402: exc.CreditError, 403: exc.AuthError},
    **{407: exc.AuthError, 408: exc.ServerError, 425: exc.ServerError, 429: exc.LimitsError},
    **{499: exc.ServerError, 501: exc.UnsupportedError, 505: exc.UnsupportedError},
}
#: A server or proxy stopped waiting, or answered with the address of the result. Every 5xx is
#: ambiguous too: a plugin's error does not show whether the provider sent the status, and proxies
#: send 5xx (503 as well) after they have forwarded the request.
_AMBIGUOUS_STATUSES = (303, 408, 499)

#: Base classes of the libraries' network errors, by top-level package.
_LIBRARY_ERRORS = {
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError"},
    "urllib3": {"HTTPError"},
    "botocore": {"HTTPClientError", "ConnectionError"},
    "httpx": {"TransportError"},
}
_STANDARD_ERRORS = (
    builtins.ConnectionError,
    TimeoutError,
    socket.gaierror,
    socket.herror,
    ssl.SSLError,
    URLError,
    http.client.HTTPException,
)
_NETWORK_ERRNOS = {
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.EADDRNOTAVAIL, errno.ETIMEDOUT),
}
#: Functions that run before the first byte of a request, and their modules.
_CONNECT_FUNCTIONS = {"create_connection", "getaddrinfo", "do_handshake", "_tunnel"}
_CONNECT_MODULES = {
    *("socket", "ssl", "http.client", "urllib3.connection", "urllib3.util.connection")
}
#: Functions that send another request after a redirect.
_REDIRECT_FUNCTIONS = {"resolve_redirects", "http_error_302"}
#: Exceptions that an HTTP library wraps in each other; the limit ends reference cycles.
_MAX_WRAPPED = 12


def translating_errors(method: Callable[..., _Result]) -> Callable[..., _Result]:
    """Decorate a plugin's method: its errors are translated and name the provider."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> _Result:
        outer = sys.exception()
        try:
            return method(self, *args, **options)
        except Exception as error:
            declared = bool(getattr(self, "bare_503_is_refusal", ""))
            translated = translate_error(error, outer, refuses_with_503=declared)
            if isinstance(translated, exc.ProviderError) and translated.provider is None:
                translated.provider = self.name
            if translated is error:
                raise
            raise translated.with_traceback(error.__traceback__) from error

    return call


def translate_error(
    error: Exception, outer: BaseException | None = None, *, refuses_with_503: bool = False
) -> BaseException:
    """The same error, or one that is an instance of a class of smsqueue.exc as well.

    An error that comes neither from smsframework nor from the network is returned as it is: it
    does not show whether the message was sent.

    Args:
        outer: The exception that was being handled when the plugin was called; it is ignored.
        refuses_with_503: The plugin's class names, in ``bare_503_is_refusal``, the page on which
            its provider documents that a request answered with 503 was not processed.
    """
    own_class = _own_class(error)
    definite = own_class is not None and own_class not in _INDEFINITE
    cause = next((link for link in _chain(error, outer) if _is_from_network(link)), None)
    if _is_text_body_refusal(error):
        # Clickatell's and ViaNett's plugins: another provider of the route can send the message.
        translated = _with_class(error, exc.UnsupportedError)
        translated.code = "cannot send on Python 3"
        return translated
    if own_class is None:
        if cause is not error:
            return error
        own_class = _class_of_network_error(error)
    elif own_class in _GENERIC and cause is not None:
        own_class = _class_of_network_error(cause)
    status = None if cause is None else _status_of_error(cause)
    if cause is None:
        statuses = (_status_in_variables(link) for link in _chain(error, outer))
        status = next((number for number in statuses if number is not None), None)
    translated = _with_class(error, own_class)
    # A plugin may set the attribute itself: smsframework's errors do not have it.
    if "ambiguous" not in vars(error):
        if status is not None and _is_ambiguous_status(status, refuses_with_503=refuses_with_503):
            translated.ambiguous = True  # whatever class the plugin raises for a proxy's answer
        elif not definite:
            translated.ambiguous = status is None and _is_ambiguous(own_class, cause)
    if status is not None:
        translated.http_status = status
    return translated


def _with_class(error: Exception, own_class: type[exc.ProviderError]) -> exc.ProviderError:
    """The error as an instance of one of our classes too."""
    if isinstance(error, own_class):
        return error
    try:
        return cast(exc.ProviderError, copy_with_class(error, own_class))
    except TypeError:  # its class cannot be subclassed
        return own_class(*error.args, code=getattr(error, "code", None))


def _own_class(error: BaseException) -> type[exc.ProviderError] | None:
    """Our class with the name of the nearest smsframework class that the error derives from."""
    for base in type(error).__mro__:
        ours = base.__module__ in ("smsframework.exc", exc.__name__)
        if ours and base.__name__ in _CLASSES:
            return _CLASSES[base.__name__]
    return None


def _class_of_network_error(error: BaseException) -> type[exc.ProviderError]:
    status = _status_of_error(error)
    if status is None:
        return exc.ConnectionError
    return _CLASS_BY_STATUS.get(status, exc.ServerError if status >= 500 else exc.RequestError)


def _chain(error: BaseException | None, outer: BaseException | None) -> Iterator[BaseException]:
    """An error, its cause, the cause of that, and so on up to ``outer``."""
    seen: set[int] = set()
    while error is not None and error is not outer and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_ambiguous_status(status: int, *, refuses_with_503: bool) -> bool:
    """Whether the provider may have accepted a message that was answered with this status."""
    if status == 503 and refuses_with_503:
        return False
    return status in _AMBIGUOUS_STATUSES or status >= 500


def _is_ambiguous(own_class: type[exc.ProviderError], cause: BaseException | None) -> bool:
    """Whether the provider may have accepted a message that got no answer."""
    if cause is None:
        # A "connection failed" that does not show whether the request was written.
        return own_class is exc.ConnectionError
    return not _is_before_request(cause)


# --- What an exception shows of the HTTP exchange ------------------------------------------------


def _is_from_network(error: BaseException) -> bool:
    return _is_network_error(error) or _status_of_error(error) is not None


def _is_network_error(error: BaseException) -> bool:
    """Whether an error is a failure of the network or of the peer."""
    if isinstance(error, HTTPError | http.client.InvalidURL):
        return False
    if isinstance(error, _STANDARD_ERRORS):
        return True
    if isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS:
        return True
    return any(_is_instance(error, library, names) for library, names in _LIBRARY_ERRORS.items())


def _is_before_request(error: BaseException) -> bool:
    """Whether it is certain that no byte of the request was written; False if in doubt."""
    if any(name in _REDIRECT_FUNCTIONS for name, _ in _frames(error)):
        return False
    innermost = _innermost(error)
    if isinstance(innermost, ConnectionRefusedError | socket.gaierror | socket.herror):
        return True
    return any(
        name in _CONNECT_FUNCTIONS and module in _CONNECT_MODULES
        for name, module in _frames(innermost)
    )


def _is_text_body_refusal(error: BaseException) -> bool:
    """Whether urllib refused a request because its body is a str, as Python 2 allowed."""
    return isinstance(error, TypeError) and _frames(error)[-1:] == [
        ("do_request_", "urllib.request")
    ]


def _status_of_error(error: BaseException) -> int | None:
    """The HTTP status that an error stands for; None if there was no answer."""
    status: object = None
    if isinstance(error, HTTPError):
        status = error.code
    elif _is_instance(error, "botocore", {"ClientError"}):
        status = _status_of_botocore_error(error)
    elif _is_instance(error, "requests", {"HTTPError"}):
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _status_of_botocore_error(error: BaseException) -> int | None:
    """The status, if botocore uses it as the code: then the answer had no code of AWS."""
    response: Any = getattr(error, "response", None)
    try:
        status, code = response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]
    except (KeyError, TypeError):
        return None
    return status if isinstance(status, int) and str(code) == str(status) else None


def _status_in_variables(error: BaseException) -> int | None:
    """The status of an HTTP response in a local variable of a function that the error left.

    Plugins that examine the response themselves raise errors without the status: PSWin's raises
    AuthError for everything but 200, a proxy's 503 as well. A response whose JSON contains the
    error's code does not count: there the plugin has read the provider's own error.
    """
    code = getattr(error, "code", None)
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in list(frame.f_locals.values()):
            status = _status_of_response(value)
            if status is not None:
                read = code is not None and str(code) != str(status) and _json_has(value, code)
                return None if read else status
    return None


def _status_of_response(value: object) -> int | None:
    status: object = None
    if isinstance(value, http.client.HTTPResponse) or _is_instance(
        value, "urllib3", {"BaseHTTPResponse", "HTTPResponse"}
    ):
        status = getattr(value, "status", None)
    elif any(_is_instance(value, library, {"Response"}) for library in ("requests", "httpx")):
        status = getattr(value, "status_code", None)
    return status if isinstance(status, int) else None


def _json_has(response: Any, code: object) -> bool:
    """Whether the JSON of a response of requests or httpx contains a code, maybe in hexadecimal."""
    try:
        values = [response.json()]
    except Exception:  # whatever its library raises
        return False
    for value in values:  # the loop appends to the list
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        elif str(value) == str(code) or (isinstance(code, int) and _parse_int(value) == code):
            return True
    return False


def _parse_int(value: object) -> int | None:
    try:
        return int(value, 0) if isinstance(value, str) else None
    except ValueError:
        return None


def _frames(error: BaseException) -> list[tuple[str, str]]:
    """Function and module of each frame of an error's traceback."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame.f_code.co_name, frame.f_globals.get("__name__", "")) for frame, _ in frames]


def _innermost(error: BaseException) -> BaseException:
    """The original error that libraries have wrapped in their own.

    ``__context__`` is not used: it may be the error of an earlier attempt.
    """
    for _ in range(_MAX_WRAPPED):
        options = getattr(error, "kwargs", None)  # of botocore's errors
        wrapped = [getattr(error, "reason", None), *error.args, error.__cause__]
        wrapped.append(options.get("error") if isinstance(options, dict) else None)
        inner = next((value for value in wrapped if isinstance(value, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _is_instance(obj: object, library: str, names: set[str]) -> bool:
    """Whether an object is an instance of one of a library's classes."""
    return any(
        base.__name__ in names and base.__module__.partition(".")[0] == library
        for base in type(obj).__mro__
    )
