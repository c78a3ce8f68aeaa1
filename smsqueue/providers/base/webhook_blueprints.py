"""Wraps the webhook views of a provider: limits, access, errors as HTTP statuses, access log.

None of this depends on the application, so a user's own Flask application answers webhooks as the
bundled receivers do.
"""

from __future__ import annotations

import itertools
import logging
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
from smsqueue.providers.base import replay_protection
from smsqueue.providers.base.provider import IProvider
from smsqueue.providers.base.webhook_access import WebhookAccess, client_address
from smsqueue.providers.base.webhook_errors import HandlerFailed, WebhookError

#: Flask adds these methods to views. No provider uses them, and a signature for another method must
#: not be valid for them.
_ADDED_METHODS = frozenset({"HEAD", "OPTIONS"})

__all__ = [
    "Blueprints",
    "describe_error",
    "log_access",
    "plain_http_error",
    "text_response",
    "wrap",
]

#: Seconds after which a provider may repeat a webhook that was not recorded.
RETRY_AFTER = 10
#: Most fields of query and form together; providers send a few dozen.
MAX_FIELDS = 1000

#: No restrictions.
_UNRESTRICTED = WebhookAccess()

_log = get_logger(__name__)
_access = get_logger("smsqueue.access")
_numbers = itertools.count(1)


class Blueprints(dict[str, Blueprint]):
    """Blueprints by provider name: a dict, except that iterating it yields (name, blueprint)."""

    def __iter__(self) -> Iterator[tuple[str, Blueprint]]:  # type: ignore[override]
        return iter(self.items())


def wrap(
    provider: IProvider,
    max_webhook: int,
    access: WebhookAccess = _UNRESTRICTED,
    trusted_proxies: Sequence[str] = (),
) -> Blueprint:
    """Make a blueprint with the provider's webhooks, to be registered once.

    Its views get the provider as ``g.provider``. Only the methods that they name are accepted,
    HEAD and OPTIONS never (405). Errors are answered in one line of text:
    400 for a webhook that cannot be understood (ValueError), 403 for one that is not the
    provider's (PermissionError), 413 for more than ``max_webhook`` bytes or a thousand fields,
    503 for one that was not recorded (QueueUnavailable), and 500 for all others.

    Args:
        access: Answer 404 under another prefix than the provider's own, 403 to an address that is
            not allowed.
        trusted_proxies: Addresses whose X-Forwarded-For header is used.

    Raises:
        NotImplementedError: the provider cannot receive.
    """
    # Plugins return one blueprint for all instances, and a registered blueprint cannot be changed:
    # so the hooks belong to a new parent blueprint.
    views = provider.make_receiver_blueprint()
    hooks = _RequestHooks(provider, max_webhook, access, trusted_proxies)
    name = f"smsqueue-{provider.name}-{next(_numbers)}".replace(".", "_")
    parent = Blueprint(name, __name__)
    parent.before_request(hooks.begin)
    parent.after_request(hooks.end)
    # For each code: an application's handler of a code precedes our handler of a class.
    for code in default_exceptions:
        parent.register_error_handler(code, plain_http_error)
    parent.register_error_handler(QueueUnavailable, hooks.not_recorded)
    parent.register_error_handler(BadRequestKeyError, hooks.field_missing)
    parent.register_error_handler(WebhookError, hooks.webhook_error)
    # Plugins raise these.
    parent.register_error_handler(PermissionError, hooks.permission_error)
    parent.register_error_handler(ValueError, hooks.value_error)
    parent.register_error_handler(RecursionError, hooks.value_error)  # JSON nested too deeply
    parent.register_error_handler(Exception, hooks.failed)
    parent.register_blueprint(views)
    return parent


class _RequestHooks:
    """Flask's hooks around the views of one provider."""

    def __init__(
        self,
        provider: IProvider,
        max_webhook: int,
        access: WebhookAccess,
        trusted_proxies: Sequence[str],
    ) -> None:
        self.provider = provider
        self.max_webhook = max_webhook
        self.access = access
        self.trusted_proxies = trusted_proxies

    def begin(self) -> None:
        replay_protection.begin_request()
        g.smsqueue_started = time.monotonic()
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
        """Read the whole body before the view does, so that views never see a part of it."""
        content_length = request.content_length
        if content_length is not None and content_length > self.max_webhook:
            raise RequestEntityTooLarge
        # Flask truncates a body of unknown length at the limit without an error: one byte more
        # shows that it was longer.
        request.max_content_length = self.max_webhook + 1
        request.max_form_memory_size = self.max_webhook
        try:
            body = request.get_data()
        except HTTPException:
            raise
        except Exception as error:  # the server's, for invalid chunks
            raise BadRequest from error
        if len(body) > self.max_webhook:
            raise RequestEntityTooLarge
        if content_length is not None and len(body) < content_length:
            raise ClientDisconnected
        fields = request.query_string.count(b"&")
        if request.mimetype == "application/x-www-form-urlencoded":
            fields += body.count(b"&")
        if fields > MAX_FIELDS:  # parsing tens of thousands takes long, before any authentication
            raise RequestEntityTooLarge

    def webhook_error(self, error: WebhookError) -> Response:
        if isinstance(error, HandlerFailed):
            return self.failed(error)
        return self._refuse(error, error.http_status, error.response_text, f"{error}: ")

    def permission_error(self, error: Exception) -> Response:
        return self._refuse(error, 403, "forbidden")

    def value_error(self, error: Exception) -> Response:
        return self._refuse(error, 400, "malformed")

    def _refuse(self, error: Exception, status: int, text: str, why: str = "") -> Response:
        described = describe_error(error)
        _log.warning(
            *("webhook of %s refused: %s%s", self.provider.name, why, described),
            extra=self._fields(error),
        )
        return text_response(status, text)

    def field_missing(self, error: BadRequestKeyError) -> Response:
        """A view read a field that the webhook does not have."""
        name = word(str(error.args[0])) if error.args else "a field"
        _log.warning(
            *("webhook of %s refused: %s is missing", self.provider.name, name),
            extra=self._fields(error),
        )
        return text_response(400, "malformed")

    def not_recorded(self, error: QueueUnavailable) -> Response:
        name, fields = self.provider.name, self._fields(error)
        if error.no_room:
            _log.error("webhook of %s refused: %s", name, error.no_room, extra=fields)
        else:
            described = describe_error(error)
            _log.error("webhook of %s not recorded: %s", name, described, extra=fields)
        response = text_response(503, "not recorded, please repeat")
        response.headers["Retry-After"] = str(int(error.retry_after or RETRY_AFTER))
        return response

    def failed(self, error: Exception) -> Response:
        _log.error(
            *("webhook of %s failed: %s", self.provider.name, describe_error(error)),
            extra=self._fields(error),
        )
        return text_response(500, "failed")

    def _fields(self, error: Exception) -> dict[str, str]:
        """The fields of a log line about an error."""
        return {"provider": self.provider.name, "error": type(error).__name__}


def describe_error(error: BaseException) -> str:
    """An error for the log: its class, the class of its cause, and the places in the code.

    Not its text, which may quote the webhook.
    """
    places = _places(error)
    if isinstance(error, HandlerFailed) and error.__cause__ is not None:
        error = error.__cause__
        places += _places(error)
    name = type(error).__name__
    if error.__cause__ is not None:
        name += f" ({type(error.__cause__).__name__})"
    # The view and the place of the error, which may be the same.
    return " > ".join([f"{name} at {places[0]}", *places[1:][-1:]]) if places else name


def _places(error: BaseException) -> list[str]:
    """File and line of each call in an error's traceback, without Flask's own."""
    return [
        "/".join(Path(frame.f_code.co_filename).parts[-2:]) + f":{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("flask", "werkzeug")
    ]


def text_response(status: int, text: str) -> Response:
    """A response of one line."""
    return Response(f"{text}\n", status, mimetype="text/plain")


def plain_http_error(error: HTTPException) -> Response | HTTPException:
    """An HTTP error in one line, in place of Werkzeug's HTML page."""
    if error.response is not None or error.code is None:  # the view made the response
        return error
    response = text_response(error.code, error.name.lower())
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def log_access(route: str, response: Response) -> Response:
    """Log a request without its URL, which holds the prefix, and often numbers and texts.

    Successful ones are logged at DEBUG: what they record has a line of its own.
    """
    method = request.method if request.method in ("GET", "HEAD", "POST", "PUT") else "-"
    now = time.monotonic()
    milliseconds = (now - g.get("smsqueue_started", now)) * 1000
    status = response.status_code
    _access.log(
        logging.DEBUG if status < 400 else logging.INFO,
        *("%s %s %d %.1f ms", method, route, status, milliseconds),
        extra={"method": method, "route": route, "status": status, "ms": round(milliseconds, 1)},
    )
    return response
