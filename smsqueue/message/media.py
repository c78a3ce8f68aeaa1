"""Files attached to an incoming message: pictures, sounds, contacts."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

__all__ = ["MOST_MEDIA", "Media", "media_of"]

#: Maximum number of files of one message; providers allow 10 to 20.
MOST_MEDIA = 32
#: Up to 4096 characters, without schemes for local files.
_URL = re.compile(r"(?:https?|s3)://[!-~\u00a1-\ud7ff\ue000-\U0010ffff]{1,4088}", re.IGNORECASE)
_SHOWN_TYPE = re.compile(r"(?!.*\d{5})[a-z]{1,20}/[a-zA-Z0-9.+-]{1,80}")
_TYPE = re.compile(r"[!-~][ -~]{2,199}")


class Media(NamedTuple):
    """A file attached to a message. Its URL may be public or need the provider's credentials, and
    most providers delete the file after some time."""

    url: str
    #: Like ``image/jpeg``; None if the provider does not say.
    content_type: str | None = None

    def __repr__(self) -> str:
        # The URL may give access to the file.
        kind = self.content_type or ""
        return f"Media({kind if _SHOWN_TYPE.fullmatch(kind) else '?'})"


def media_of(items: Any) -> tuple[Media, ...]:
    """The valid (URL, type) pairs of a list, in order, at most :data:`MOST_MEDIA`.

    The list comes from webhooks and records and may hold anything. A pair without a valid URL is
    left out, so that the message is not lost. An invalid type becomes None.
    """
    media: list[Media] = []
    for item in items if isinstance(items, list | tuple) else ():
        if not isinstance(item, list | tuple) or len(item) != 2:
            continue
        url, kind = item
        if not isinstance(url, str) or not _URL.fullmatch(url):
            continue
        kind = kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else None
        media.append(Media(url, kind))
        if len(media) == MOST_MEDIA:
            break
    return tuple(media)
