"""Twilio's dialect of the simulator: requests are forms, answers JSON, callbacks signed forms.

POST /2010-04-01/Accounts/<account>/Messages.json   HTTP Basic: account and token
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urldefrag, urlencode, urlsplit

from smsqueue.providers.authentic import hmac_base64, sha256_hex
from smsqueue.simulator.carrier import Answer

__all__ = ["DIALECT", "parse", "sid_of", "translate", "webhook"]

DIALECT = "twilio"

#: HTTP status of the simulator: Twilio's HTTP status and error code.
_ERRORS = {
    400: (400, 21211),
    401: (401, 20003),
    402: (403, 20005),
    422: (400, 21604),
    429: (429, 20429),
    500: (500, 20500),
}
#: State of the simulator: Twilio's status and error code.
_STATES = {
    "accepted": ("sent", None),
    "delivered": ("delivered", None),
    "expired": ("failed", "30036"),
    "failed": ("undelivered", "30003"),
}


def parse(form: Mapping[str, str], account: str) -> dict[str, Any]:
    """Return a message of Twilio's API in the simulator's own dialect."""
    callback = urldefrag(form.get("StatusCallback", "")).url
    reference = parse_qs(urlsplit(callback).query).get("ref", [None])[0]
    return {
        "to": form.get("To", "").removeprefix("+"),
        "from": form.get("From", "").removeprefix("+"),
        "text": form.get("Body"),
        "reference": reference,
        "report": bool(callback),
        "dialect": DIALECT,
        "callback": callback,
        "account": account,
    }


def translate(answer: Answer) -> Answer:
    """Return an answer of the simulator in Twilio's dialect."""
    if answer.status < 300:
        accepted = {
            "sid": sid_of(answer.body["id"]),
            "status": "queued",
            "num_segments": "1",
            "price": None,
        }
        return Answer(201, accepted, answer.headers, answer.lost)
    status, code = _ERRORS[answer.status]
    refused = {"code": code, "message": answer.body["error"]["text"], "status": status}
    return Answer(status, refused, answer.headers)


def sid_of(id: str) -> str:
    """Return a message SID for an id of the simulator."""
    return "SM" + sha256_hex(id.encode())[:32]


def webhook(
    kind: str, payload: Mapping[str, Any], base: str, token: str
) -> tuple[str, dict[str, str], bytes]:
    """Return URL, headers and body of a callback.

    Args:
        kind: ``im`` for an incoming message, ``status`` for a report.
        base: Base URL of the account's webhooks.
    """
    if kind == "im":
        url = f"{base.rstrip('/')}/im"
        form = {"MessageSid": sid_of(payload["id"]), "From": f"+{payload['from']}", "NumMedia": "0"}
        form |= {"To": f"+{payload['to'] or '15550000000'}", "Body": payload["text"]}
    else:
        url, (status, code) = payload["callback"], _STATES[payload["state"]]
        form = {"MessageSid": sid_of(payload["id"]), "MessageStatus": status}
        form |= {"ErrorCode": code} if code else {}
    form["AccountSid"] = payload["account"]
    signed = url + "".join(name + form[name] for name in sorted(form))
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Twilio-Signature": hmac_base64(token, signed.encode(), "sha1"),
    }
    return url, headers, urlencode(form).encode()
