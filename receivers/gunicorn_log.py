"""gunicorn's own log, as text or JSON."""

from __future__ import annotations

import os
from typing import Any

from gunicorn.glogging import Logger

from smsqueue.logs import JsonFormatter
from smsqueue.settings import SettingsError, log_format

__all__ = ["GunicornLogger"]


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no annotations
    """The logger class of gunicorn: its usual one, whose lines are JSON if SMSQUEUE_LOG says so."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        try:
            as_json = log_format(os.environ) == "json"
        except SettingsError:  # the application refuses it when it is loaded
            return
        for handler in self.error_log.handlers if as_json else ():
            handler.setFormatter(JsonFormatter())
