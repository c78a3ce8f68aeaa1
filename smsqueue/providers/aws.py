"""Base of the providers on AWS: credentials and signed calls.

botocore signs the requests, and our own HTTP layer sends them, as it knows what was written.
"""

from __future__ import annotations

import re
import threading
from importlib import import_module
from typing import Any, ClassVar

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import blocking
from smsqueue.providers.account import AccountProvider
from smsqueue.providers.http import Answer
from smsqueue.settings import SettingsError

__all__ = ["AUTH_ERRORS", "LIMIT_ERRORS", "AwsProvider", "missing_package"]

#: Error codes of all AWS services: credentials or permissions.
AUTH_ERRORS = (
    *("AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException"),
    *("IncompleteSignature", "IncompleteSignatureException", "InvalidClientTokenId"),
    *("InvalidSignatureException", "MissingAuthenticationToken", "NotAuthorized", "OptInRequired"),
    *("MissingAuthenticationTokenException", "RequestExpired", "SignatureDoesNotMatch"),
    *("UnrecognizedClientException", "AuthFailure", "RequestTimeTooSkewed"),
)
#: Error codes of all AWS services: throttled. The HTTP status may be 400.
LIMIT_ERRORS = (
    *("Throttling", "ThrottlingException", "Throttled", "ThrottledException"),
    *("RequestLimitExceeded", "RequestThrottled", "TooManyRequestsException", "SlowDown"),
)


class AwsProvider(AccountProvider):
    """Base of the providers on AWS.

    Args:
        region: ``eu-west-1`` and the like.
        access_key: With ``secret_key`` (and ``session_token``) the credentials. By default
            botocore looks for them: in the environment, in files, in the role of the machine.
        config: As :class:`~smsqueue.providers.account.AccountProvider` has it.
    """

    url_arguments = ("access_key", "secret_key")
    #: First part of the host name, and the service name in signatures.
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
            raise ValueError("the region must have the form of eu-west-1")
        if bool(access_key) != bool(secret_key):
            raise ValueError("AWS needs access_key and secret_key, or neither of them")
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        super().__init__(
            gateway, name, url=url or f"https://{self.service}.{region}.{suffix}", **config
        )
        self._region = region
        self._static_keys = (access_key, secret_key, session_token)
        self._credentials: Any = None
        self._lock = threading.Lock()

    def signed_call(self, body: str, headers: dict[str, str]) -> Answer:
        """Make the call; as :meth:`~smsqueue.providers.http.HttpProvider.call`."""
        # This also imports botocore, which takes a while.
        credentials = blocking(self._frozen_credentials)
        from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
        from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]

        data = body.encode()
        request = AWSRequest("POST", f"{self.url}/", headers=headers, data=data)
        SigV4Auth(credentials, self.service, self._region).add_auth(request)
        return self.call("POST", "/", data=data, headers=dict(request.headers.items()))

    def _frozen_credentials(self) -> Any:
        """Credentials that are valid now; botocore renews those that it found."""
        try:
            for name in ("botocore.auth", "botocore.awsrequest"):  # used by signed_call
                import_module(name)
            from botocore.credentials import Credentials  # type: ignore[import-untyped]
            from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
            from botocore.session import get_session  # type: ignore[import-untyped]
        except ModuleNotFoundError:
            raise missing_package(self.name, "botocore") from None

        try:
            with self._lock:
                if self._credentials is None:
                    self._credentials = (
                        Credentials(*self._static_keys)
                        if self._static_keys[0]
                        else get_session().get_credentials()
                    )
            frozen = self._credentials and self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            reason = f"AWS credentials could not be loaded ({type(error).__name__})"
            raise exc.AuthError(reason, provider=self.name) from None
        if not frozen:
            raise exc.AuthError(
                "there are no AWS credentials: set access_key and secret_key, or configure them "
                "where botocore looks for them",
                provider=self.name,
            )
        return frozen


def missing_package(name: str, package: str) -> SettingsError:
    """The error if an optional package is not installed."""
    return SettingsError(
        f"the provider {name!r} needs the package {package}: pip install 'smsqueue-gateway[aws]'"
    )
