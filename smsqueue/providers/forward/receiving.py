"""The two receivers: the server's takes messages, the client's takes what came in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from smsqueue import exc
from smsqueue.message import serialization
from smsqueue.providers.forward.errors import portable
from smsqueue.providers.forward.fields import parse
from smsqueue.providers.forward.formats import format_of
from smsqueue.providers.forward.guard import Guard
from smsqueue.providers.forward.own import Own
from smsqueue.providers.forward.parts import Event, Format, http_status
from smsqueue.providers.forward.recent import Recent
from smsqueue.providers.forward.signing import SIGNATURE
from smsqueue.providers.forward.taking import Taker
from smsqueue.providers.used import signed_with

if TYPE_CHECKING:
    from flask import Blueprint, Response

__all__ = ["client_views", "server_views"]


class _Hearer(Protocol):
    """The part of the client's provider that its receiver needs."""

    guard: Guard
    gateway: Any

    def hear(self, event: Event) -> None: ...


def server_views(guard: Guard, taker: Taker) -> Blueprint:
    """``/im``: a client sends a message. Errors are answered in the caller's format."""
    from flask import Blueprint, request

    views = Blueprint("forward-server", __name__)

    @views.post("/im")
    def im() -> Response:
        guard.check("server/im", request.get_data(), request.headers)
        document = parse(request.get_data())
        try:
            form = format_of(document)
        except exc.ProviderError as error:
            return _refused(Own(), error)
        try:
            passed = form.load_outgoing(document)
            passed = replace(passed, signature=request.headers.get(SIGNATURE))
        except ValueError as error:
            return _refused(form, exc.RequestError(f"malformed: {error}"))
        name = passed.message.provider
        try:
            return _answer(200, form.dump_taken(taker.take(passed), name))
        except exc.ProviderError as error:
            return _refused(form, portable(error))

    return views


def client_views(provider: _Hearer) -> Blueprint:
    """``/im`` and ``/status``: the server passes on what came in."""
    from flask import Blueprint, request

    views = Blueprint("forward-client", __name__)
    recent: Recent[bool] = Recent()

    def hear(view: str, field: str) -> Response:
        body = request.get_data()
        provider.guard.check(f"client/{view}", body, request.headers)
        document = parse(body)
        try:
            form = format_of(document)
        except exc.ProviderError as error:
            return _refused(Own(), error)
        try:
            event = form.load_event(field, document)
        except ValueError as error:
            return _refused(form, exc.RequestError(f"malformed: {error}"))
        heard = form.dump_heard(event)
        # The ledger knows repetitions. Without one, a signed request is heard once.
        eager = provider.gateway.eager
        if not eager and SIGNATURE in request.headers:
            signed_with(request.headers[SIGNATURE], seconds=provider.guard.replay_window)

        def once() -> bool:
            provider.hear(event)
            return True

        try:
            recent.once(request.headers.get(SIGNATURE) if eager else None, once)
        except exc.QueueUnavailable:
            raise  # answered 503 by what is around the views
        except exc.RequestError as error:
            return _refused(form, error)
        return _answer(200, heard)

    @views.post("/im")
    def im() -> Response:
        return hear("im", "message")

    @views.post("/status")
    def status() -> Response:
        return hear("status", "status")

    return views


def _refused(form: Format, error: exc.ProviderError) -> Response:
    return _answer(http_status(error), form.dump_error(error))


def _answer(status: int, document: dict[str, Any]) -> Response:
    from flask import Response

    return Response(serialization.to_json(document), status, mimetype="application/json")
