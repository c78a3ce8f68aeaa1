"""What came beside the text of an incoming message: pictures, sounds, contacts."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

__all__ = ["MOST_MEDIA", "Media", "media_of"]

#: Items of one message; providers allow 10 to 20.
MOST_MEDIA = 32
#: Up to 4096 characters, and nothing that a browser or a library would open on this machine.
_URL = re.compile(r"(?:https?|s3)://[!-~\u00a1-\ud7ff\ue000-\U0010ffff]{1,4088}", re.IGNORECASE)
_SHOWN_TYPE = re.compile(r"(?!.*\d{5})[a-z]{1,20}/[a-zA-Z0-9.+-]{1,80}")
_TYPE = re.compile(r"[!-~][ -~]{2,199}")


class Media(NamedTuple):
    """A file that came with a message. Its address may be public, or may need the provider's
    credentials, and most providers forget it some day."""

    url: str
    #: Like ``image/jpeg``; None if the provider does not say.
    content_type: str | None = None

    def __repr__(self) -> str:
        # Whoever has the address may have the picture.
        kind = self.content_type or ""
        return f"Media({kind if _SHOWN_TYPE.fullmatch(kind) else '?'})"


def media_of(items: Any) -> tuple[Media, ...]:
    """Those of these (address, type) pairs that are good, in order, :data:`MOST_MEDIA` at most.

    They may be anything, as they come from webhooks and records. A pair without a good address is
    left out: it must not lose the text that it came with. A type that is none becomes None.
    """
    found: list[Media] = []
    for item in items if isinstance(items, list | tuple) else ():
        if not isinstance(item, list | tuple) or len(item) != 2:
            continue
        url, kind = item
        if not isinstance(url, str) or not _URL.fullmatch(url):
            continue
        kind = kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else None
        found.append(Media(url, kind))
        if len(found) == MOST_MEDIA:
            break
    return tuple(found)
