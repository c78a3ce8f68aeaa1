"""The demo has settings of its own."""

from __future__ import annotations

import os

__all__ = ["forget_settings"]


def forget_settings() -> None:
    """Forget what the shell says of another gateway, for this process and its children: above all
    accounts, which would send the demo's replies to whoever has such a number."""
    for name in list(os.environ):
        if name.startswith("SMSQUEUE_") and name != "SMSQUEUE_REDIS_SERVER":
            del os.environ[name]
