"""The packages that verify some providers' webhooks: an extra of ours, which may be missing."""

from __future__ import annotations

from typing import Any

from smsqueue.settings import SettingsError

__all__ = ["INSTALL", "jwt_library"]

#: What to do if one is missing.
INSTALL = "pip install 'smsqueue-gateway[signatures]'"


def jwt_library(need: str) -> Any:
    """PyJWT.

    Args:
        need: Who needs it: how the error begins.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import jwt
    except ModuleNotFoundError:
        raise SettingsError(f"{need}: {INSTALL}") from None
    return jwt
