"""Webhooks of plugins: what their views expect of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from flask import Blueprint, Request, request
from werkzeug.datastructures import ImmutableMultiDict

from smsqueue.compat.classes import both

__all__ = ["around"]

#: Their views decode texts themselves, from the bytes that Latin-1 stands for.
_OWN_DECODING = ("smsframework_clickatell",)


def around(views: Blueprint) -> Blueprint:
    """A plugin's views in a blueprint that prepares the request for them."""
    parent = Blueprint("smsframework", __name__)

    def prepare() -> None:
        asked: Any = request._get_current_object()  # type: ignore[attr-defined]
        kind: Any = type(asked)
        asked.__class__ = both(_WithCharset, kind)
        if views.import_name.startswith(_OWN_DECODING):
            asked.charset = "latin-1"

    parent.before_request(prepare)
    parent.register_blueprint(views)
    return parent


class _WithCharset(Request if TYPE_CHECKING else object):  # type: ignore[misc]
    """A request whose charset can be set, as it could before Werkzeug 3.

    The fields of the query, and of a form in the body, are decoded anew.
    """

    @property
    def charset(self) -> str:
        charset: str = self.__dict__.get("_charset", "utf-8")
        return charset

    @charset.setter
    def charset(self, name: str) -> None:
        kept = self.__dict__
        kept["_charset"] = name
        _ = self.form  # it is parsed along with the files: that has to be over
        if self.mimetype == "application/x-www-form-urlencoded":
            kept["form"] = _fields(self.get_data(), name)
        kept["args"] = _fields(self.query_string, name)
        kept.pop("values", None)


def _fields(text: bytes, charset: str) -> ImmutableMultiDict[str, str]:
    pairs = parse_qsl(
        text.decode(charset, "replace"),
        keep_blank_values=True,
        encoding=charset,
        errors="replace",
    )
    return ImmutableMultiDict(pairs)
