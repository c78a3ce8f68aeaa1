"""Asks the vendors' own SDKs whether a webhook is genuine: one JSON document a line, both ways.

Runs in an environment of its own, which has the SDKs and nothing of ours: see ``make fuzz``.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Asked:
    """A request, and the secret that it should be signed with."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.url, self.method, self.secret = told["url"], told["method"], told["secret"]
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in told["headers"].items()}
        self.body = base64.b64decode(told["body"])

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")

    @property
    def form(self) -> dict[str, list[str]]:
        kind = self.header("Content-Type").partition(";")[0].strip()
        if self.method != "POST" or kind != "application/x-www-form-urlencoded":
            return {}
        return parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.url).query, keep_blank_values=True)


class _Many(dict[str, list[str]]):
    def getlist(self, name: str) -> list[str]:
        return self[name]


def twilio(asked: Asked) -> bool:
    from twilio.request_validator import RequestValidator

    params: Any = _Many(asked.form)
    if "bodySHA256" in asked.query:
        params = asked.body.decode("utf-8", "replace")
    signature = asked.header("X-Twilio-Signature")
    return bool(RequestValidator(asked.secret).validate(asked.url, params, signature))


def plivo(asked: Asked) -> bool:
    from plivo.utils import validate_signature, validate_v3_signature

    third = ",".join(
        filter(None, map(asked.header, ("X-Plivo-Signature-V3", "X-Plivo-Signature-Ma-V3")))
    )
    if third:
        nonce = asked.header("X-Plivo-Signature-V3-Nonce")
        params = dict(asked.form) if asked.method == "POST" else {}
        given = ",".join(each.strip() for each in third.split(","))
        return bool(
            validate_v3_signature(asked.method, asked.url, nonce, asked.secret, given, params)
        )
    nonce = asked.header("X-Plivo-Signature-V2-Nonce")
    given = [asked.header(f"X-Plivo-Signature-{which}V2") for which in ("", "Ma-")]
    return any(validate_signature(asked.url, nonce, each, asked.secret) for each in given)


def vonage(asked: Asked) -> bool:
    from vonage_http_client.auth import Auth

    if asked.method == "GET":
        fields = {name: values[0] for name, values in asked.query.items()}
    elif asked.form:
        fields = {name: values[0] for name, values in asked.form.items()}
    else:
        told = json.loads(asked.body)
        fields = {
            k: v if isinstance(v, str) else json.dumps(v) for k, v in told.items() if v is not None
        }
    auth = Auth(api_key="key", signature_secret=asked.secret, signature_method="sha256")
    return bool(auth.check_signature(fields))


def vonage_messages(asked: Asked) -> bool:
    """Of the token only: its SDK leaves the body to the application."""
    from vonage_jwt import verify_signature

    scheme, _, token = asked.header("Authorization").partition(" ")
    return scheme.lower() == "bearer" and bool(verify_signature(token.strip(), asked.secret))


def messagebird(asked: Asked) -> bool:
    from messagebird.request_validator import RequestValidator

    token = asked.header("MessageBird-Signature-JWT")
    return bool(RequestValidator(asked.secret).validate_signature(token, asked.url, asked.body))


def telnyx(asked: Asked) -> bool:
    from telnyx.lib.webhook_verification import verify_webhook_signature

    verify_webhook_signature(asked.body, asked.headers, asked.secret)
    return True


def sinch(asked: Asked) -> bool:
    from sinch.domains.authentication.sinch_events.v1 import authentication_validation

    check = authentication_validation.validate_sinch_event_signature_with_nonce
    return bool(check(asked.secret, dict(asked.headers), asked.body.decode()))


def bird(asked: Asked) -> bool:
    from standardwebhooks import Webhook

    Webhook(asked.secret).verify(asked.body, dict(asked.headers), json_parse=False)
    return True


SDKS: dict[str, Callable[[Asked], bool]] = {
    "twilio": twilio,
    "plivo": plivo,
    "vonage": vonage,
    "vonage_messages": vonage_messages,
    "messagebird": messagebird,
    "telnyx": telnyx,
    "sinch": sinch,
    "bird": bird,
}


def main() -> None:
    for line in sys.stdin:
        told = json.loads(line)
        try:
            verdict = SDKS[told["sdk"]](Asked(told))
            why = ""
        except ImportError:
            raise
        except Exception as error:  # most of them refuse so
            verdict, why = False, type(error).__name__
        print(json.dumps({"genuine": verdict, "why": why}), flush=True)


if __name__ == "__main__":
    main()
