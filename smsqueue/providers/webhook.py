"""The blueprints that take webhooks: what is around the views of every provider.

All behaviour of the receivers that does not depend on the application stands here, so that
a user's own Flask application answers as the bundled receivers do.
"""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import (
    BadRequest,
    BadRequestKeyError,
    ClientDisconnected,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    default_exceptions,
)

from smsqueue.exc import QueueUnavailable
from smsqueue.logs import get_logger
from smsqueue.message.masking import word
from smsqueue.providers import used
from smsqueue.providers.access import WebhookAccess, client_address
from smsqueue.providers.authentic import Refused
from smsqueue.providers.base import IProvider
from smsqueue.providers.checked import Malformed

#: Flask adds these to views on its own. No provider sends webhooks so, and a signature made for
#: another method must not count for them.
_ADDED_METHODS = frozenset({"HEAD", "OPTIONS"})

__all__ = ["Blueprints", "answer", "log_access", "plain", "reason", "wrap"]

#: Seconds after which a provider may repeat a webhook that we could not record.
RETRY_AFTER = 10
#: Fields of query and form together; providers send a few dozen.
MAX_FIELDS = 1000

#: The general prefix, from every address.
_EVERYBODY = WebhookAccess()

_log = get_logger(__name__)
_access = get_logger("smsqueue.access")
_numbers = itertools.count(1)


class Blueprints(dict[str, Blueprint]):
    """Blueprints by provider name: a dict, except that iterating it yields (name, blueprint)."""

    def __iter__(self) -> Iterator[tuple[str, Blueprint]]:  # type: ignore[override]
        return iter(self.items())


def wrap(
    provider: IProvider,
    max_bytes: int,
    access: WebhookAccess = _EVERYBODY,
    trusted_proxies: Sequence[str] = (),
) -> Blueprint:
    """The provider's webhooks as a blueprint of their own, to be registered once.

    Its views find the provider as ``g.provider``. Only the methods that they name are accepted,
    HEAD and OPTIONS never (405). An error is answered in one line of text:
    400 for a webhook that cannot be understood (ValueError), 403 for one that is not the
    provider's (PermissionError), 413 for more than ``max_bytes`` bytes or a thousand fields,
    503 for one that was not recorded (QueueUnavailable), and 500 for the rest.

    Args:
        access: Who reaches them: 404 under another prefix than the provider's own, 403 from an
            address that is not allowed.
        trusted_proxies: Whose X-Forwarded-For tells where a request comes from.

    Raises:
        NotImplementedError: the provider cannot receive.
    """
    # Plugins return one blueprint for all instances, and a blueprint that was registered
    # takes no more functions: so everything is done by a parent, which is new each time.
    views = provider.make_receiver_blueprint()
    around = _Around(provider, max_bytes, access, trusted_proxies)
    name = f"smsqueue-{provider.name}-{next(_numbers)}".replace(".", "_")
    parent = Blueprint(name, __name__)
    parent.before_request(around.begin)
    parent.after_request(around.end)
    # One by one: an application's handler of a status code goes before a handler of a class.
    for code in default_exceptions:
        parent.register_error_handler(code, plain)
    parent.register_error_handler(QueueUnavailable, around.not_recorded)
    parent.register_error_handler(BadRequestKeyError, around.lacking)
    parent.register_error_handler(PermissionError, around.refused)
    parent.register_error_handler(ValueError, around.refused)
    parent.register_error_handler(RecursionError, around.refused)  # JSON nested too deeply
    parent.register_error_handler(Exception, around.failed)
    parent.register_blueprint(views)
    return parent


class _Around:
    """What happens before and after one provider's views, and on their errors."""

    def __init__(
        self,
        provider: IProvider,
        max_bytes: int,
        access: WebhookAccess,
        trusted_proxies: Sequence[str],
    ) -> None:
        self.provider = provider
        self.max_bytes = max_bytes
        self.access = access
        self.trusted_proxies = trusted_proxies

    def begin(self) -> None:
        used.begin()
        g.smsqueue_began = time.monotonic()
        g.provider = self.provider
        if not self.access.serves(request.path):
            raise NotFound
        if self.access.sources:
            forwarded = request.headers.get("X-Forwarded-For")
            peer = request.remote_addr
            self.access.check_source(client_address(peer, forwarded, self.trusted_proxies))
        if request.method in _ADDED_METHODS:
            methods = request.url_rule.methods if request.url_rule is not None else None
            raise MethodNotAllowed(sorted((methods or set()) - _ADDED_METHODS))
        self._read_body()

    def end(self, response: Response) -> Response:
        view = (request.endpoint or "").rpartition(".")[2]
        return log_access(f"{self.provider.name}/{view}", response)

    def _read_body(self) -> None:
        """Read the body before the view does, whole or not at all: views may trust it."""
        announced = request.content_length
        if announced is not None and announced > self.max_bytes:
            raise RequestEntityTooLarge
        # A body of unknown length is cut off at the limit without an error: the byte too many
        # tells that it was longer.
        request.max_content_length = self.max_bytes + 1
        request.max_form_memory_size = self.max_bytes
        try:
            body = request.get_data()
        except HTTPException:
            raise
        except Exception as error:  # the server's own, for chunks that are none
            raise BadRequest from error
        if len(body) > self.max_bytes:
            raise RequestEntityTooLarge
        if announced is not None and len(body) < announced:
            raise ClientDisconnected
        fields = request.query_string.count(b"&")
        if request.mimetype == "application/x-www-form-urlencoded":
            fields += body.count(b"&")
        if fields > MAX_FIELDS:  # tens of thousands would take long, before any signature is seen
            raise RequestEntityTooLarge

    def refused(self, error: Exception) -> Response:
        """The webhook is to blame: malformed, or not the provider's."""
        if _reporting(error) and not isinstance(error, Malformed | Refused):
            return self.failed(error)
        why = f"{error}: " if isinstance(error, Refused | Malformed) else ""
        _log.warning("webhook of %s refused: %s%s", self.provider.name, why, reason(error))
        if isinstance(error, PermissionError):
            return answer(403, "forbidden")
        return answer(400, "malformed")

    def lacking(self, error: BadRequestKeyError) -> Response:
        """A view asked for a field by a name that the webhook does not have."""
        name = word(str(error.args[0])) if error.args else "a field"
        _log.warning("webhook of %s refused: %s is missing", self.provider.name, name)
        return answer(400, "malformed")

    def not_recorded(self, error: Exception) -> Response:
        no_room = error.no_room if isinstance(error, QueueUnavailable) else ""
        if no_room:
            _log.error("webhook of %s refused: %s", self.provider.name, no_room)
        else:
            _log.error("webhook of %s not recorded: %s", self.provider.name, reason(error))
        response = answer(503, "not recorded, please repeat")
        wanted = error.retry_after if isinstance(error, QueueUnavailable) else None
        response.headers["Retry-After"] = str(int(wanted or RETRY_AFTER))
        return response

    def failed(self, error: Exception) -> Response:
        _log.error("webhook of %s failed: %s", self.provider.name, reason(error))
        return answer(500, "failed")


def _reporting(error: BaseException) -> bool:
    """Did it come from where the view reported to: the gateway, in eager mode a hook?

    Such an error says nothing about the webhook, and providers drop what is answered 4xx.
    """
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    return "_receive_message" in names or "_receive_status" in names


def reason(error: BaseException) -> str:
    """An error as it may be logged: its class, its cause's, where from and where; not its text."""
    name = type(error).__name__
    if error.__cause__ is not None:
        name += f" ({type(error.__cause__).__name__})"
    places = [
        "/".join(Path(frame.f_code.co_filename).parts[-2:]) + f":{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("flask", "werkzeug")
    ]
    # The view, and what it failed in: two places, or one.
    return " > ".join([f"{name} at {places[0]}", *places[1:][-1:]]) if places else name


def answer(status: int, text: str) -> Response:
    """An answer of one line."""
    return Response(f"{text}\n", status, mimetype="text/plain")


def plain(error: HTTPException) -> Response | HTTPException:
    """An HTTP error in one line, without the page that Werkzeug makes of it."""
    if error.response is not None or error.code is None:  # made by the view itself
        return error
    response = answer(error.code, error.name.lower())
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def log_access(route: str, response: Response) -> Response:
    """Log a request without its address: there are the prefix, and often number and text."""
    method = request.method if request.method in ("GET", "HEAD", "POST", "PUT") else "-"
    now = time.monotonic()
    milliseconds = (now - g.get("smsqueue_began", now)) * 1000
    _access.info("%s %s %d %.1f ms", method, route, response.status_code, milliseconds)
    return response
