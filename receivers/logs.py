"""Keeps the request line out of the servers' logs: it holds the prefix, numbers and texts."""

from __future__ import annotations

import logging
import sys

__all__ = ["set_up_logs"]


def set_up_logs() -> None:
    """Show smsqueue's log if nobody configured logging, and silence the servers' own.

    ``smsqueue.access`` takes the place of the access logs of gunicorn and of ``flask run``.
    """
    logger = logging.getLogger("smsqueue")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    # The same functions again are no second filter.
    logging.getLogger("gunicorn.access").addFilter(_drop)
    logging.getLogger("gunicorn.error").addFilter(_gunicorn)
    logging.getLogger("waitress").addFilter(_waitress)
    # A queue of some requests is no news.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logging.getLogger("werkzeug").addFilter(_werkzeug)


def _drop(record: logging.LogRecord) -> bool:
    return False


def _gunicorn(record: logging.LogRecord) -> bool:
    """Of a request that gunicorn could not parse or the application did not survive: the class."""
    text = str(record.msg)
    if record.levelno <= logging.DEBUG:  # method and path of every request, or an error's text
        if text.startswith("%"):
            return False
        if record.args:
            _reduce(record, text.partition(" %")[0])
        return True
    if text.startswith(("Error handling", "Invalid request", "Ignored premature")):
        _reduce(record, text.partition(" %")[0].partition(": ")[0])
    return True


def _waitress(record: logging.LogRecord) -> bool:
    """Of an error in waitress or the application: the class."""
    if record.exc_info:
        _reduce(record, str(record.msg).partition(" %")[0])
    return True


def _werkzeug(record: logging.LogRecord) -> bool:
    """The development server: no access lines, and of an error the class."""
    if " - - [" not in str(record.msg):  # what it says when it starts
        return True
    _reduce(record, "a request failed")
    return record.levelno > logging.INFO


def _reduce(record: logging.LogRecord, text: str) -> None:
    error = sys.exc_info()[0]
    record.msg, record.args = ("%s: %s", (text, error.__name__)) if error else (text, ())
    record.exc_info = record.exc_text = None
