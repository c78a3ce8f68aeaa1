"""Keeps request lines out of the servers' logs: they hold the prefix, numbers and texts."""

from __future__ import annotations

import logging
import sys

from smsqueue.logs import TextFormatter, log_json

__all__ = ["set_up_logs"]


def set_up_logs(*, as_json: bool) -> None:
    """Configure smsqueue's log, unless logging is configured, and filter the servers' logs.

    ``smsqueue.access`` replaces the access logs of gunicorn and of ``flask run``. The level is that
    of gunicorn (``--log-level``), else INFO. As JSON, warnings of other packages are logged, too.
    """
    logger = logging.getLogger("smsqueue")
    if not logger.hasHandlers():
        if as_json:
            log_json()
        else:
            handler = logging.StreamHandler()
            handler.setFormatter(TextFormatter())
            logger.addHandler(handler)
        logger.setLevel(logging.getLogger("gunicorn.error").level or logging.INFO)
    # Adding the same function again has no effect.
    logging.getLogger("gunicorn.access").addFilter(_drop)
    logging.getLogger("gunicorn.error").addFilter(_gunicorn)
    logging.getLogger("waitress").addFilter(_waitress)
    # waitress warns of every queued request.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logging.getLogger("werkzeug").addFilter(_werkzeug)


def _drop(record: logging.LogRecord) -> bool:
    return False


def _gunicorn(record: logging.LogRecord) -> bool:
    """Reduce errors of parsing and of the application to their class."""
    text = str(record.msg)
    if record.levelno <= logging.DEBUG:  # shows paths of requests and texts of errors
        if text.startswith("%"):
            return False
        if record.args:
            _reduce(record, text.partition(" %")[0])
        return True
    if text.startswith(("Error handling", "Invalid request", "Ignored premature")):
        _reduce(record, text.partition(" %")[0].partition(": ")[0])
    return True


def _waitress(record: logging.LogRecord) -> bool:
    """Reduce errors of waitress and the application to their class."""
    if record.exc_info:
        _reduce(record, str(record.msg).partition(" %")[0])
    return True


def _werkzeug(record: logging.LogRecord) -> bool:
    """Of the development server: drop access lines, reduce errors to their class."""
    if " - - [" not in str(record.msg):  # a line of its start
        return True
    _reduce(record, "a request failed")
    return record.levelno > logging.INFO


def _reduce(record: logging.LogRecord, text: str) -> None:
    error = sys.exc_info()[0]
    record.msg, record.args = ("%s: %s", (text, error.__name__)) if error else (text, ())
    record.exc_info = record.exc_text = None
