"""The vendors' SDKs, which run in a process and an environment of their own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from smsqueue.testing.examples import PUBLIC_URL
from smsqueue.testing.webhook_checks import Request
from tests.providers import test_bird as bird
from tests.providers import test_messagebird as messagebird
from tests.providers import test_plivo as plivo
from tests.providers import test_sinch as sinch
from tests.providers import test_telnyx as telnyx
from tests.providers import test_twilio as twilio
from tests.providers import test_vonage as vonage
from tests.providers import test_vonage_messages as vonage_messages

__all__ = ["SECRETS", "Sdks"]

#: By provider: what its examples are signed with.
SECRETS = {
    "twilio": twilio.TOKEN,
    "plivo": plivo.TOKEN,
    "vonage": vonage.SIGNATURE,
    "vonage_messages": vonage_messages.SIGNATURE,
    "messagebird": messagebird.SECRET,
    "telnyx": telnyx.PUBLIC,
    "sinch": sinch.KEY,
    "bird": bird.SECRET,
}


class Sdks:
    """Says what an SDK makes of a request.

    Args:
        python: The interpreter of the environment that has the SDKs.
    """

    def __init__(self, python: str) -> None:
        # Nothing of ours is on its path.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [python, "-I", str(Path(__file__).with_name("oracle.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def genuine(self, name: str, request: Request) -> bool:
        """Does the provider's SDK take it for genuine?"""
        told: dict[str, Any] = {
            "sdk": name,
            "secret": SECRETS[name],
            "method": request.method,
            # An application does not learn that an empty query was there.
            "url": PUBLIC_URL + request.path.removesuffix("?"),
            "headers": dict(request.headers),
            "body": base64.b64encode(request.body).decode(),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the SDKs' process has ended"
        return bool(json.loads(answer)["genuine"])
