"""Tokens of OAuth 2 by client credentials, for providers that take nothing else."""

from __future__ import annotations

import re
import threading
import time

from smsqueue import exc
from smsqueue.concurrency.loop import blocking
from smsqueue.providers.answer import Answer
from smsqueue.providers.http import HttpProvider

__all__ = ["Tokens"]

#: A token is renewed that long before its end, in seconds.
_BEFORE = 60.0


class Tokens(HttpProvider):
    """Fetches tokens, and keeps each until shortly before its end. Shared by threads.

    Args:
        name: The provider's, for the errors.
        url: The token endpoint.
        user: Id of the key, or of the client.
        password: Its secret.
    """

    deadline = 5.0

    def __init__(self, name: str, *, url: str, user: str, password: str) -> None:
        super().__init__(None, name, url=url, read_timeout=self.deadline, pool_size=2)
        self._auth = (user, password)
        self._fetching = threading.Lock()
        #: The token, and when it is not to be used any more (monotonic).
        self._kept = ("", 0.0)

    def token(self) -> str:
        """A token that is good for a moment, within twice :attr:`deadline`.

        Raises:
            AuthError: there is none for this user and password.
            ProviderError: the endpoint did not answer. Nothing of it is ambiguous.
        """
        if self._good():
            return self._kept[0]
        if not blocking(self._fetching.acquire, timeout=self.deadline):
            raise exc.ConnectionError("there is no token yet", provider=self.name)
        try:
            if not self._good():  # somebody else may have fetched it meanwhile
                self._kept = self._fetch()
            return self._kept[0]
        finally:
            self._fetching.release()

    def forget(self, token: str) -> None:
        """A token was refused: the next one is a new one."""
        if self._kept[0] == token:
            self._kept = ("", 0.0)

    def _good(self) -> bool:
        return time.monotonic() < self._kept[1]

    def _fetch(self) -> tuple[str, float]:
        began = time.monotonic()
        asked = {"grant_type": "client_credentials"}
        answer = self.call("POST", safe=True, auth=self._auth, data=asked)
        token, seconds = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise exc.ServerError("the provider's answer holds no token", provider=self.name)
        known = isinstance(seconds, int | float) and 0 < seconds < 1e9
        return token, began + max((seconds if known else 2 * _BEFORE) - _BEFORE, 1.0)

    def error_code(self, answer: Answer) -> str | None:
        code = answer.get("error")
        return code if isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code) else None

    def error(self, answer: Answer) -> exc.ProviderError:
        error = super().error(answer)
        if type(error) is not exc.RequestError:
            return error
        # It is our key that was refused (with 400, too): it says nothing of a message.
        told = {"code": error.code, "http_status": error.http_status}
        return exc.AuthError(*error.args, provider=self.name, **told)
