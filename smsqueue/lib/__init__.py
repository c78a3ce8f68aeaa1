"""Small helpers, under the path that smsframework's plugins import them from."""

from __future__ import annotations

import re

__all__ = ["digits_only"]


def digits_only(num: str) -> str:
    """Strip everything but the digits from a phone number: ``'+1 (555)' -> '1555'``."""
    return re.sub(r"[^0-9]+", "", num)
