"""What the providers on AWS share: credentials and signed calls.

Requests are signed by botocore and sent by our own HTTP layer, which knows what was written.
"""

from __future__ import annotations

import re
import threading
from importlib import import_module
from typing import Any, ClassVar

from smsqueue import exc
from smsqueue.concurrency.loop import blocking
from smsqueue.providers.account import AccountProvider
from smsqueue.providers.http import Answer
from smsqueue.settings import SettingsError

__all__ = ["AUTH_ERRORS", "LIMIT_ERRORS", "AwsProvider", "missing"]

#: Of what comes with every AWS service.
AUTH_ERRORS = (
    *("AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException"),
    *("IncompleteSignature", "IncompleteSignatureException", "InvalidClientTokenId"),
    *("InvalidSignatureException", "MissingAuthenticationToken", "NotAuthorized", "OptInRequired"),
    *("MissingAuthenticationTokenException", "RequestExpired", "SignatureDoesNotMatch"),
    *("UnrecognizedClientException", "AuthFailure", "RequestTimeTooSkewed"),
)
#: AWS throttles with 400, too: the code says it.
LIMIT_ERRORS = (
    *("Throttling", "ThrottlingException", "Throttled", "ThrottledException"),
    *("RequestLimitExceeded", "RequestThrottled", "TooManyRequestsException", "SlowDown"),
)


class AwsProvider(AccountProvider):
    """Base of the providers on AWS.

    Args:
        region: ``eu-west-1`` and the like.
        access_key: With ``secret_key`` (and ``session_token``) the credentials. Without them
            those are used that botocore finds: environment, files, role of the machine.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    url_arguments = ("access_key", "secret_key")
    #: First part of the host's name, and what signatures are made for.
    service: ClassVar[str] = ""

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        region: str,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        url: str | None = None,
        **config: Any,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9-]+", region):
            raise ValueError("the region must be like eu-west-1")
        if bool(access_key) != bool(secret_key):
            raise ValueError("AWS needs access_key and secret_key, or neither of them")
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        super().__init__(
            gateway, name, url=url or f"https://{self.service}.{region}.{suffix}", **config
        )
        self._region = region
        self._given = (access_key, secret_key, session_token)
        self._credentials: Any = None
        self._lock = threading.Lock()

    def signed_call(self, body: str, headers: dict[str, str]) -> Answer:
        """Make the call; as :meth:`~smsqueue.providers.http.HttpProvider.call`."""
        # Importing botocore takes a while, so it happens with this.
        credentials = blocking(self._frozen_credentials)
        from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
        from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]

        data = body.encode()
        request = AWSRequest("POST", f"{self.url}/", headers=headers, data=data)
        SigV4Auth(credentials, self.service, self._region).add_auth(request)
        return self.call("POST", "/", data=data, headers=dict(request.headers.items()))

    def _frozen_credentials(self) -> Any:
        """Credentials that are good now: those that botocore found are renewed by it."""
        try:
            for name in ("botocore.auth", "botocore.awsrequest"):  # what signed_call uses
                import_module(name)
            from botocore.credentials import Credentials  # type: ignore[import-untyped]
            from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
            from botocore.session import get_session  # type: ignore[import-untyped]
        except ModuleNotFoundError:
            raise missing(self.name, "botocore") from None

        try:
            with self._lock:
                if self._credentials is None:
                    self._credentials = (
                        Credentials(*self._given)
                        if self._given[0]
                        else get_session().get_credentials()
                    )
            found = self._credentials and self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            reason = f"AWS credentials could not be had ({type(error).__name__})"
            raise exc.AuthError(reason, provider=self.name) from None
        if not found:
            raise exc.AuthError(
                "there are no AWS credentials: give access_key and secret_key, or set up what "
                "botocore looks at",
                provider=self.name,
            )
        return found


def missing(name: str, package: str) -> SettingsError:
    return SettingsError(
        f"the provider {name!r} needs the package {package}: pip install 'smsqueue-gateway[aws]'"
    )
