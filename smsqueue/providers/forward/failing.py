"""What it means when the other side is not what it was said to be."""

from __future__ import annotations

from smsqueue import exc

__all__ = ["misplaced", "speaks_original"]


def misplaced(status: int) -> exc.ProviderError | None:
    """What an HTTP status says of the address and the secret, if nobody of ours wrote the answer.

    Neither is the message's fault: it waits until they are right.
    """
    if status in (401, 403):
        return exc.AuthError(
            f"the other side refuses us ({status}): secret, or user and password, must be the "
            "same on both sides, and both clocks right",
            code="not let in",
        )
    if status in (404, 405, 410) or (300 <= status < 400 and status != 303):
        return exc.ConnectionError(
            f"no forward provider is at this address ({status}): it is the other side's receiver "
            "prefix, then the name of its provider there",
            code="no forward provider",
        )
    return None


def speaks_original() -> exc.ProviderError:
    """The other side runs smsframework, which makes nothing of our format."""
    return exc.UnsupportedError(
        "the other side runs smsframework: give speak='smsframework' for it",
        code="speaks smsframework",
    )
