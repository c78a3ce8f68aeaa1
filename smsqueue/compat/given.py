"""Addresses as they came: smsframework's messages keep their digits only.

``INFO4242`` would be the number 4242, which is somebody else's.
"""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from smsqueue.lib import digits_only

__all__ = ["given", "remember_addresses"]

_KEPT = "_smsqueue_given"
_ADDRESSES = {"IncomingMessage": ("src", "dst"), "OutgoingMessage": ("dst",)}


def remember_addresses(data: ModuleType) -> None:
    """Have the messages of smsframework's module remember what they were made with."""
    for kind, names in _ADDRESSES.items():
        message: Any = getattr(data, kind, None)
        if isinstance(message, type) and not hasattr(vars(message).get("__init__"), _KEPT):
            _wrap(message, names)


def _wrap(message: Any, names: tuple[str, ...]) -> None:
    original = message.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        told = signature.bind(self, *args, **kwargs).arguments
        vars(self)[_KEPT] = {name: told.get(name) for name in names}

    setattr(init, _KEPT, True)
    message.__init__ = init


def given(message: Any, name: str) -> Any:
    """An address of a plugin's message as it was made with; as it is now if it was changed since,
    or nothing was remembered."""
    now, before = getattr(message, name), vars(message).get(_KEPT, {}).get(name)
    return before if isinstance(before, str) and digits_only(before) == (now or "") else now
