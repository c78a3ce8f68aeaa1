"""What a network error says: was anything written?

Libraries are known by the names of their classes, so that none has to be installed.
"""

from __future__ import annotations

import builtins
import errno
import http.client
import socket
import ssl
import traceback
from urllib.error import HTTPError, URLError

__all__ = ["http_status", "is_network", "nothing_written", "posted_text"]

#: Base classes of the libraries' network errors, by the module's first name.
_LIBRARIES = {
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError"},
    "urllib3": {"HTTPError"},
    "botocore": {"HTTPClientError", "ConnectionError"},
    "httpx": {"TransportError"},
}
_STANDARD = (
    builtins.ConnectionError,
    TimeoutError,
    socket.gaierror,
    socket.herror,
    ssl.SSLError,
    URLError,
    http.client.HTTPException,
)
_NUMBERS = {
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.EADDRNOTAVAIL, errno.ETIMEDOUT),
}
#: Functions that run before the first byte of a request, and where they are.
_CONNECTING = {"create_connection", "getaddrinfo", "do_handshake", "_tunnel"}
_HOMES = {"socket", "ssl", "http.client", "urllib3.connection", "urllib3.util.connection"}
#: Functions that make another request after one that was answered.
_FOLLOWING = {"resolve_redirects", "http_error_302"}


def http_status(error: BaseException) -> int | None:
    """The status of the HTTP answer that an error stands for; None if there was no answer."""
    status: object = None
    if isinstance(error, HTTPError):
        status = error.code
    elif _is_from("requests", {"HTTPError"}, error):
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def is_network(error: BaseException) -> bool:
    """Did the network fail, or somebody on it?"""
    if isinstance(error, HTTPError | http.client.InvalidURL):
        return False
    if isinstance(error, _STANDARD):
        return True
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return True
    return any(_is_from(library, names, error) for library, names in _LIBRARIES.items())


def nothing_written(error: BaseException) -> bool:
    """Is it certain that no byte of the request was written? When in doubt: no."""
    if any(name in _FOLLOWING for name, _ in _places(error)):
        return False
    inner = _innermost(error)
    if isinstance(inner, ConnectionRefusedError | socket.gaierror | socket.herror):
        return True
    return any(name in _CONNECTING and home in _HOMES for name, home in _places(inner))


def posted_text(error: BaseException) -> bool:
    """Did urllib refuse a request because its body is text, as Python 2 had it?"""
    return isinstance(error, TypeError) and _places(error)[-1:] == [
        ("do_request_", "urllib.request")
    ]


def _places(error: BaseException) -> list[tuple[str, str]]:
    """Function and module of all places that an error came through."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame.f_code.co_name, frame.f_globals.get("__name__", "")) for frame, _ in frames]


def _innermost(error: BaseException) -> BaseException:
    """The error under the ones that libraries wrap around it.

    Not by ``__context__``: that may be an attempt before this one.
    """
    for _ in range(12):  # more than any library does, and an end for what goes in circles
        told = getattr(error, "kwargs", None)  # botocore's
        wrapped = [getattr(error, "reason", None), *error.args, error.__cause__]
        wrapped.append(told.get("error") if isinstance(told, dict) else None)
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _is_from(library: str, names: set[str], error: BaseException) -> bool:
    return any(
        each.__name__ in names and each.__module__.partition(".")[0] == library
        for each in type(error).__mro__
    )
