"""Providers that are called over HTTP: one method that makes a call and judges its outcome.

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

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from smsqueue import exc
from smsqueue.concurrency.loop import Loop, blocking, current_loop
from smsqueue.providers.answer import Answer
from smsqueue.providers.base import IProvider
from smsqueue.providers.blocking_transport import BlockingTransport
from smsqueue.providers.transport import (
    Environment,
    Exchange,
    NoAnswer,
    Request,
    Timeouts,
    Watch,
    begin_attempt,
    environment_of,
    make_request,
    written,
)

if TYPE_CHECKING:
    from smsqueue.providers.loop_transport import LoopTransport

__all__ = ["Answer", "HttpProvider", "begin_attempt", "written"]

_STATUSES: Mapping[int, type[exc.ProviderError]] = {
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
#: 502, 504); "See Other" (303) is an answer to a request that was processed.
_OUTCOME_NOT_KNOWN = frozenset({303, 408, 499, 502, 504})


class HttpProvider(IProvider):
    """Base of the providers that are called over HTTP.

    Args:
        url: What the paths of calls are appended to.
        connect_timeout: Seconds to wait for a connection (for each of the host's addresses).
        read_timeout: Seconds that the provider may stay silent.
        pool_size: Connections kept open at most; not fewer than the threads of a worker.

    A call, from connecting to the answer's last byte, is over after ``deadline`` seconds, beside
    what the system's resolver takes; nothing is written after that. Proxies and certificates
    are taken from the environment at the first call as requests does it, credentials are not.
    """

    through_http_layer = True
    deadline: ClassVar[float] = 30.0
    #: What the provider's own error codes mean, where that says more than the HTTP status.
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
                f"{cls.__name__}.bare_503_is_refusal must be a text: the page of the provider's "
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
        if not _is_address(url):
            raise ValueError(f"the url of provider {name!r} must begin with http:// or https://")
        if min(connect_timeout, read_timeout, pool_size) <= 0:
            raise ValueError(f"timeouts and pool_size of provider {name!r} must be more than 0")
        self.url = url.rstrip("/")
        self._timeouts = (connect_timeout, read_timeout)
        self._pool_size = pool_size
        self._environment: Environment | None = None
        self._blocking: BlockingTransport | None = None
        self._on_loop: tuple[Loop, LoopTransport] | None = None

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
        """Make one HTTP request; the answer, if its status is 2xx.

        Args:
            safe: The request sends no message, so its errors are never ambiguous.
            auth: User and password of HTTP Basic.
            within: Seconds until it is over, if ``deadline`` is that of several calls.
            request: ``json``, ``data``, ``params``, ``headers`` as requests takes them.

        Raises:
            ConnectionError: no answer; ambiguous if the request had begun to be written.
            MessageSendError: the provider answered with an error, see :meth:`error`.
        """
        watch = Watch(safe=safe)
        try:
            made = make_request(method, f"{self.url}{path}", auth=auth, safe=safe, **request)
            status, headers, body = self._exchange(made, within, watch)
        except NoAnswer as error:
            raise self._no_answer(error, ambiguous=watch.began) from None
        except (ValueError, TypeError) as error:  # ``from None``: its text may be the message's
            if watch.began:
                raise self._no_answer(NoAnswer(type(error).__name__), ambiguous=True) from None
            reason = f"the request could not be made ({type(error).__name__})"
            raise exc.RequestError(reason, provider=self.name) from None
        answer = Answer(self.name, status, headers, body, safe)
        if 200 <= status < 300:
            return answer
        refusal = self.error(answer)
        if safe:
            refusal.ambiguous = False
        raise refusal

    def error_code(self, answer: Answer) -> str | int | None:
        """The provider's own code in an error answer; None if it did not write that answer.

        To be overridden: without it any 5xx may come from a proxy before the provider. Return a
        code only if it stands where the provider documents it and looks as documented: gateways
        write JSON too, such as ``{"code": 503, "message": "no healthy upstream"}``.
        """
        return None

    def error(self, answer: Answer) -> exc.ProviderError:
        """The error that an answer means: by ``codes``, else by its HTTP status.

        A 5xx without the provider's own code is ambiguous: a proxy may have written it after it
        forwarded the request. A code that only repeats the HTTP status is not the provider's own.
        """
        status, code = answer.status, self.error_code(answer)
        known = None if code is None else self.codes.get(code)
        if known is None and str(code) == str(status):
            code = None
        default = exc.RequestError if 200 <= status < 500 else exc.ServerError
        bare = status >= 500 and code is None
        declared = status == 503 and bool(self.bare_503_is_refusal)
        # An answer below 200 says that another one follows, and none did.
        not_known = status < 200 or status in _OUTCOME_NOT_KNOWN or (bare and not declared)
        taken = " and did not take the message" if 200 <= status < 300 else ""
        return (known or _STATUSES.get(status, default))(
            f"the provider answered {status}{taken}",
            code=code,
            provider=self.name,
            http_status=status,
            retry_after=answer.retry_after,
            ambiguous=known is None and not_known,
        )

    def refusal(
        self,
        answer: Answer,
        code: str | int | None = None,
        default: type[exc.ProviderError] = exc.RequestError,
    ) -> exc.ProviderError:
        """The error of a 2xx that says that nothing was sent: never ambiguous.

        Args:
            code: The provider's code of the reason, which ``codes`` looks up; else the one that
                :meth:`error_code` finds.
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

    def _exchange(self, request: Request, within: float | None, watch: Watch) -> Exchange:
        """Make one exchange: on the loop if the calling function runs on one, else here.

        Raises:
            NoAnswer: see ``watch`` for whether the provider may have the request.
        """
        timeouts = Timeouts(*self._timeouts, self.deadline if within is None else within)
        if self._environment is None:
            self._environment = environment_of(self.url)
        loop = current_loop()
        if loop is not None:
            on_loop = self._transport_on(loop, self._environment)
            if on_loop.takes(request):
                return on_loop.exchange(request, timeouts, watch)
        if self._blocking is None:
            self._blocking = BlockingTransport(self._environment, self._pool_size)
        return blocking(self._blocking.exchange, request, timeouts, watch)

    def _transport_on(self, loop: Loop, environment: Environment) -> LoopTransport:
        if self._on_loop is None or self._on_loop[0] is not loop:
            from smsqueue.providers.loop_transport import LoopTransport

            self._on_loop = loop, LoopTransport(environment, loop)
        return self._on_loop[1]

    def _no_answer(self, error: NoAnswer, *, ambiguous: bool) -> exc.ConnectionError:
        where = "after the request was written" if ambiguous else "before anything was sent"
        reason = f"the connection failed {where} ({error})"
        return exc.ConnectionError(reason, provider=self.name, ambiguous=ambiguous)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text shows the address, which may hold a password
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
