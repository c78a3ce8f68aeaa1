"""Who may speak to a receiver."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

from smsqueue.providers.authentic import Refused
from smsqueue.providers.forward.address import basic
from smsqueue.providers.forward.signing import SIGNATURE, Headers, Signer
from smsqueue.settings import SettingsError

__all__ = ["Guard", "signer_of"]


class Guard:
    """Lets in what is signed, or shows a user and password.

    Args:
        name: The provider's, for errors.
        signer: Verifies signatures; None: there is no secret.
        users: Passwords by user, of HTTP Basic.
        insecure: Let everybody in.
    """

    def __init__(
        self, name: str, signer: Signer | None, users: Mapping[str, str] | None, insecure: bool
    ) -> None:
        self._name = name
        self._signer = signer
        if any(not each.strip() for pair in (users or {}).items() for each in pair):
            raise SettingsError(
                f"users of provider {name!r} has an empty or blank user or password"
            )
        self._known = [basic(*each).encode() for each in (users or {}).items()]
        self._insecure = insecure
        #: Seconds for which a signed request could come again.
        self.replay_window = 2 * signer.window if signer is not None else 0.0

    @property
    def open(self) -> bool:
        """Does it let everybody in?"""
        return self._insecure

    def require(self) -> None:
        """Raise SettingsError if nothing protects the receiver."""
        if self._signer is None and not self._known and not self._insecure:
            raise SettingsError(
                f"the receiver of provider {self._name!r} would let everybody in: give "
                "add_provider secret='...' (the same on both sides), or users={'name': "
                "'password'} for HTTP Basic, or insecure=True if something in front checks"
            )

    def check(self, purpose: str, body: bytes, headers: Headers) -> None:
        """Raise PermissionError unless a request may come in."""
        if self._signer is not None and SIGNATURE in headers:
            self._signer.verify(purpose, body, headers)
            return
        if self._shows_password(headers) or self._insecure:
            return
        raise Refused("neither signed nor with a known user and password")

    def _shows_password(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        shown = f"Basic {given.strip()}".encode("utf-8", "replace")
        found = False
        for known in self._known:
            found |= hmac.compare_digest(shown, known)
        return found and scheme.lower() == "basic"


def signer_of(secret: str | Sequence[str] | None, window: float) -> Signer | None:
    """The signer of an optional secret."""
    return None if secret is None else Signer(secret, window)
