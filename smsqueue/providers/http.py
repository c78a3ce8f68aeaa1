"""Providers with an HTTP API: one method makes a call and maps the response to an error.

class Example(HttpProvider):
    codes = {"no_money": exc.CreditError}

    def error_code(self, answer):
        return answer.get("error", "code")

    def send(self, message):
        answer = self.call("POST", "/messages", json={"to": message.dst, ...})
        message.msgid = answer.require("id")
        return message
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import Loop, blocking, current_loop
from smsqueue.providers.base.provider import IProvider
from smsqueue.providers.base.requests_transport import RequestsTransport
from smsqueue.providers.base.transport import (
    NoAnswer,
    ProxySettings,
    RawResponse,
    Request,
    Timeouts,
    WriteTracker,
    begin_attempt,
    build_request,
    read_proxy_settings,
    written,
)

if TYPE_CHECKING:
    from smsqueue.providers.base.aiohttp_transport import AiohttpTransport

__all__ = ["MAX_RETRY_AFTER", "Answer", "HttpProvider", "begin_attempt", "written"]

#: Longest wait that a provider may ask for, in seconds.
MAX_RETRY_AFTER = 86400.0

#: The error class of an HTTP status that the provider's own code does not refine.
_STATUS_ERRORS: Mapping[int, type[exc.ProviderError]] = {
    303: exc.ServerError,
    401: exc.AuthError,
    402: exc.CreditError,
    403: exc.AuthError,
    407: exc.AuthError,
    408: exc.ServerError,
    425: exc.ServerError,
    429: exc.LimitsError,
    499: exc.ServerError,
    501: exc.UnsupportedError,
    505: exc.UnsupportedError,
}
#: Ambiguous unless the provider's own code says more. A server or proxy stopped waiting (408, 499,
#: 502, 504); "See Other" (303) is the response to a request that was processed.
_AMBIGUOUS_STATUSES = frozenset({303, 408, 499, 502, 504})


@dataclass(frozen=True)
class Answer:
    """A provider's complete HTTP response."""

    provider: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    #: The request sends no message, so the response is never ambiguous.
    safe: bool = False

    @cached_property
    def json(self) -> Any:
        """The body's JSON value; None if the body is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def get(self, *path: str | int) -> Any:
        """The value at a path of keys and indexes in the JSON body; None if there is none."""
        value = self.json
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def require(self, *path: str | int) -> Any:
        """The value at a path in the JSON body.

        Raises:
            ServerError: there is no value, or an empty string. Ambiguous unless the call was
                ``safe``, because the status says that the provider accepted something.
        """
        value = self.get(*path)
        if value is None or value == "":
            raise exc.ServerError(
                f"the provider answered {self.status} without a required field",
                provider=self.provider,
                http_status=self.status,
                ambiguous=not self.safe,
            )
        return value

    def objects(self, *path: str | int) -> list[dict[str, Any]]:
        """The JSON objects in the list at a path. For queries: the error is never ambiguous.

        Raises:
            ServerError: there is no such list, or it holds something else.
        """
        value = self.get(*path) if path else self.json
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise exc.ServerError(
                f"the provider answered {self.status} with a list that cannot be read",
                provider=self.provider,
                http_status=self.status,
            )
        return value

    def amount(self, *path: str | int) -> Decimal:
        """The amount of money at a path in the JSON body.

        Raises:
            ServerError: there is no number.
        """
        text = str(self.require(*path))
        if not re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,2})?", text):
            raise exc.ServerError(
                "the provider returned an amount that is not a number",
                provider=self.provider,
                http_status=self.status,
            )
        return Decimal(text)

    def seconds(self, header: str, per_second: int = 1) -> float | None:
        """The wait in a header, in seconds; None if it is absent or longer than a day.

        Args:
            per_second: 1000 for a header in milliseconds.
        """
        text = self.headers.get(header, "").strip()
        if not re.fullmatch("[0-9]{1,9}", text):
            return None
        wait = int(text) / per_second
        return wait if wait <= MAX_RETRY_AFTER else None

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, from the Retry-After header (seconds or a date), between 0 and a day.

        A date is compared with the response's own Date header, so that clocks may differ.
        """
        text = self.headers.get("Retry-After", "").strip()
        try:
            seconds = float(text)
        except ValueError:
            date = _parse_date(text)
            if date is None:
                return None
            now = _parse_date(self.headers.get("Date", "")) or datetime.now(UTC)
            seconds = (date - now).total_seconds()
        return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER)


class HttpProvider(IProvider):
    """Base of the providers that are called over HTTP.

    Args:
        url: Prefix of the paths of all calls.
        connect_timeout: Seconds to wait for a connection (for each of the host's addresses).
        read_timeout: Seconds that the provider may stay silent.
        pool_size: Most connections kept open; at least the number of a worker's threads.

    A call, from connecting to the last byte of the response, ends within ``deadline`` seconds,
    plus the time of the system's resolver. Nothing is written after that. Proxies and certificates
    are read from the environment at the first call, as requests does it; credentials are not.
    """

    through_http_layer = True
    deadline: ClassVar[float] = 30.0
    #: Error classes by the provider's own error codes, where these say more than the HTTP status.
    codes: ClassVar[Mapping[str | int, type[exc.ProviderError]]] = {}
    #: The page of the provider's documentation that says that a 503 without its error body means
    #: that the request was not processed. Empty: such a 503 is ambiguous, because proxies also
    #: answer 503 when the connection breaks after they forwarded the request (Envoy and Istio,
    #: response flags UC and UR).
    bare_503_is_refusal: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not isinstance(cls.bare_503_is_refusal, str):
            raise TypeError(
                f"{cls.__name__}.bare_503_is_refusal must be a string: the page of the provider's "
                "documentation that says so"
            )

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        url: str,
        connect_timeout: float = 5.0,
        read_timeout: float = 20.0,
        pool_size: int = 200,
    ) -> None:
        super().__init__(gateway, name)
        if not _is_http_url(url):
            raise ValueError(f"the url of provider {name!r} must begin with http:// or https://")
        if min(connect_timeout, read_timeout, pool_size) <= 0:
            raise ValueError(f"timeouts and pool_size of provider {name!r} must be more than 0")
        self.url = url.rstrip("/")
        self._timeouts = (connect_timeout, read_timeout)
        self._pool_size = pool_size
        self._proxy_settings: ProxySettings | None = None
        self._requests: RequestsTransport | None = None
        self._aiohttp: tuple[Loop, AiohttpTransport] | None = None

    def call(
        self,
        method: str,
        path: str = "",
        *,
        safe: bool = False,
        auth: tuple[str, str] | None = None,
        within: float | None = None,
        **request: Any,
    ) -> Answer:
        """Make one HTTP request; return the response if its status is 2xx.

        Args:
            safe: The request sends no message, so its errors are never ambiguous.
            auth: User and password of HTTP Basic.
            within: Seconds until the call ends, if ``deadline`` covers several calls.
            request: ``json``, ``data``, ``params``, ``headers`` as requests takes them.

        Raises:
            ConnectionError: no response; ambiguous if the request had begun to be written.
            MessageSendError: the provider answered with an error, see :meth:`error`.
        """
        tracker = WriteTracker(safe=safe)
        try:
            built = build_request(method, f"{self.url}{path}", auth=auth, safe=safe, **request)
            status, headers, body = self._exchange(built, within, tracker)
        except NoAnswer as error:
            raise self._no_answer(error, ambiguous=tracker.began) from None
        except (ValueError, TypeError) as error:  # ``from None``: it may quote the message
            if tracker.began:
                raise self._no_answer(NoAnswer(type(error).__name__), ambiguous=True) from None
            reason = f"the request could not be built ({type(error).__name__})"
            raise exc.RequestError(reason, provider=self.name) from None
        answer = Answer(self.name, status, headers, body, safe)
        if 200 <= status < 300:
            return answer
        refusal = self.error(answer)
        if safe:
            refusal.ambiguous = False
        raise refusal

    def error_code(self, answer: Answer) -> str | int | None:
        """The provider's own code in an error response; None if the provider did not write it.

        To be overridden: without it any 5xx may come from a proxy in front of the provider. Return
        a code only if it has the place and the form that the provider documents. Gateways write
        JSON too, such as ``{"code": 503, "message": "no healthy upstream"}``.
        """
        return None

    def error(self, answer: Answer) -> exc.ProviderError:
        """The error for a response: by ``codes``, otherwise by its HTTP status.

        A 5xx without the provider's own code is ambiguous: a proxy may have written it after it
        forwarded the request. A code that only repeats the HTTP status is not the provider's own.
        """
        status, code = answer.status, self.error_code(answer)
        by_code = None if code is None else self.codes.get(code)
        if by_code is None and str(code) == str(status):
            code = None
        default = exc.RequestError if 200 <= status < 500 else exc.ServerError
        bare = status >= 500 and code is None
        declared = status == 503 and bool(self.bare_503_is_refusal)
        # A status below 200 announces another response, which did not come.
        uncertain = status < 200 or status in _AMBIGUOUS_STATUSES or (bare and not declared)
        not_taken = " and did not take the message" if 200 <= status < 300 else ""
        return (by_code or _STATUS_ERRORS.get(status, default))(
            f"the provider answered {status}{not_taken}",
            code=code,
            provider=self.name,
            http_status=status,
            retry_after=answer.retry_after,
            ambiguous=by_code is None and uncertain,
        )

    def refusal(
        self,
        answer: Answer,
        code: str | int | None = None,
        default: type[exc.ProviderError] = exc.RequestError,
    ) -> exc.ProviderError:
        """The error for a 2xx that says that nothing was sent: never ambiguous.

        Args:
            code: The provider's code for the reason, looked up in ``codes``; by default the result
                of :meth:`error_code`.
            default: The class of a code that is not in ``codes``.
        """
        if code is None:
            code = self.error_code(answer)
        kind = (None if code is None else self.codes.get(code)) or default
        return kind(
            f"the provider answered {answer.status} and did not take the message",
            code=code,
            provider=self.name,
            http_status=answer.status,
            retry_after=answer.retry_after,
        )

    def _exchange(
        self, request: Request, within: float | None, tracker: WriteTracker
    ) -> RawResponse:
        """Write one request and read its response: on the running loop, or in this thread.

        Raises:
            NoAnswer: ``tracker`` says whether the provider may have the request.
        """
        timeouts = Timeouts(*self._timeouts, self.deadline if within is None else within)
        if self._proxy_settings is None:
            self._proxy_settings = read_proxy_settings(self.url)
        loop = current_loop()
        if loop is not None:
            on_loop = self._transport_on(loop, self._proxy_settings)
            if on_loop.supports(request):
                return on_loop.exchange(request, timeouts, tracker)
        if self._requests is None:
            self._requests = RequestsTransport(self._proxy_settings, self._pool_size)
        return blocking(self._requests.exchange, request, timeouts, tracker)

    def _transport_on(self, loop: Loop, proxy_settings: ProxySettings) -> AiohttpTransport:
        if self._aiohttp is None or self._aiohttp[0] is not loop:
            from smsqueue.providers.base.aiohttp_transport import AiohttpTransport

            self._aiohttp = loop, AiohttpTransport(proxy_settings, loop)
        return self._aiohttp[1]

    def _no_answer(self, error: NoAnswer, *, ambiguous: bool) -> exc.ConnectionError:
        when = "after the request was written" if ambiguous else "before anything was sent"
        reason = f"the connection failed {when} ({error})"
        return exc.ConnectionError(reason, provider=self.name, ambiguous=ambiguous)


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text shows the URL, which may hold a password
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _parse_date(text: str) -> datetime | None:
    """The date in a header; None if it is invalid."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
