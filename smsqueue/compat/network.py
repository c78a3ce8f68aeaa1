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
from typing import Any
from urllib.error import HTTPError, URLError

__all__ = ["http_status", "is_network", "nothing_written", "posted_text", "status_in_hand"]

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
    elif _is_from("botocore", {"ClientError"}, error):
        status = _status_of_botocore(error)
    elif _is_from("requests", {"HTTPError"}, error):
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _status_of_botocore(error: BaseException) -> int | None:
    """The status, if it stands in the place of the code: then AWS itself wrote no code."""
    told: Any = getattr(error, "response", None)
    try:
        status, code = told["ResponseMetadata"]["HTTPStatusCode"], told["Error"]["Code"]
    except (KeyError, TypeError):
        return None
    return status if isinstance(status, int) and str(code) == str(status) else None


def status_in_hand(error: BaseException) -> int | None:
    """The status of an HTTP answer that a function had in a variable when an error left it.

    Plugins that look at the answer themselves raise errors that do not show it: one makes an
    AuthError of everything that is not 200, a proxy's 503 too. An answer does not count if the
    error has a code that stands in its JSON: then the plugin has read the provider's own word.
    """
    code = getattr(error, "code", None)
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in list(frame.f_locals.values()):
            status = _status_of_answer(value)
            if status is not None:
                own = code is not None and str(code) != str(status) and _holds(value, code)
                return None if own else status
    return None


def _status_of_answer(value: object) -> int | None:
    status: object = None
    if isinstance(value, http.client.HTTPResponse) or _is_from(
        "urllib3", {"BaseHTTPResponse", "HTTPResponse"}, value
    ):
        status = getattr(value, "status", None)
    elif any(_is_from(library, {"Response"}, value) for library in ("requests", "httpx")):
        status = getattr(value, "status_code", None)
    return status if isinstance(status, int) else None


def _holds(answer: Any, code: object) -> bool:
    """Does a code stand in the JSON of an answer of requests or httpx, also as a hexadecimal?"""
    try:
        values = [answer.json()]
    except Exception:  # whatever its library raises
        return False
    for value in values:  # grows while it is walked
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        elif str(value) == str(code) or (isinstance(code, int) and _number(value) == code):
            return True
    return False


def _number(value: object) -> int | None:
    try:
        return int(value, 0) if isinstance(value, str) else None
    except ValueError:
        return None


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


def _is_from(library: str, names: set[str], thing: object) -> bool:
    return any(
        each.__name__ in names and each.__module__.partition(".")[0] == library
        for each in type(thing).__mro__
    )
