"""Errors that end a webhook request; each carries the HTTP status of the response."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

__all__ = ["HandlerFailed", "Malformed", "Refused", "WebhookError", "recording"]


class WebhookError(Exception):
    """A webhook request that fails with a certain HTTP status.

    The text of an instance is logged: it must hold nothing of the webhook. It is not sent.
    """

    http_status: ClassVar[int] = 500
    #: The body of the response.
    response_text: ClassVar[str] = "failed"


class Malformed(WebhookError, ValueError):
    """The webhook cannot be understood, or its content cannot be recorded."""

    http_status = 400
    response_text = "malformed"


class Refused(WebhookError, PermissionError):
    """The webhook is not the provider's."""

    http_status = 403
    response_text = "forbidden"


class HandlerFailed(WebhookError):
    """The gateway or, in eager mode, a handler raised an error; the ``__cause__`` is that error."""


@contextmanager
def recording(provider: object) -> Iterator[None]:
    """Wraps errors of the gateway and of eager handlers in :class:`HandlerFailed`.

    As they are, ValueError and PermissionError would be answered 4xx, and providers drop a webhook
    that is answered so. Outside of a webhook request of this provider, errors pass unchanged.
    """
    try:
        yield
    except WebhookError:
        raise
    except (ValueError, PermissionError, RecursionError) as error:
        if not _handles_webhook(provider):
            raise
        raise HandlerFailed from error


def _handles_webhook(provider: object) -> bool:
    flask = sys.modules.get("flask")  # not imported: sending works without Flask
    return flask is not None and flask.has_request_context() and flask.g.get("provider") is provider
