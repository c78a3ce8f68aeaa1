"""The simulator in Twilio's dialect: forms come in, JSON goes out, callbacks are signed forms.

POST /2010-04-01/Accounts/<account>/Messages.json   HTTP Basic: account and token
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urldefrag, urlencode, urlsplit

from smsqueue.providers.authentic import hmac_base64, sha256_hex
from smsqueue.simulator.carrier import Verdict

__all__ = ["DIALECT", "answered", "read", "sid_of", "webhook"]

DIALECT = "twilio"

#: Status of the simulator to Twilio's own, and its error code.
_ERRORS = {
    400: (400, 21211),
    401: (401, 20003),
    402: (403, 20005),
    422: (400, 21604),
    429: (429, 20429),
    500: (500, 20500),
}
#: State of the simulator to Twilio's word and error code.
_STATES = {
    "accepted": ("sent", None),
    "delivered": ("delivered", None),
    "expired": ("failed", "30036"),
    "failed": ("undelivered", "30003"),
}


def read(form: Mapping[str, str], account: str) -> dict[str, Any]:
    """A message in the simulator's own words."""
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


def answered(verdict: Verdict) -> Verdict:
    """An answer in Twilio's words."""
    if verdict.status < 300:
        body = {
            "sid": sid_of(verdict.body["id"]),
            "status": "queued",
            "num_segments": "1",
            "price": None,
        }
        return Verdict(201, body, verdict.headers, verdict.lost)
    status, code = _ERRORS[verdict.status]
    answer = {"code": code, "message": verdict.body["error"]["text"], "status": status}
    return Verdict(status, answer, verdict.headers)


def sid_of(id: str) -> str:
    """An id of the simulator as one of Twilio's."""
    return "SM" + sha256_hex(id.encode())[:32]


def webhook(
    kind: str, payload: Mapping[str, Any], base: str, token: str
) -> tuple[str, dict[str, str], bytes]:
    """A callback: its address, headers and body.

    Args:
        base: Where the account's webhooks are.
    """
    if kind == "im":
        url = f"{base.rstrip('/')}/im"
        form = {"MessageSid": sid_of(payload["id"]), "From": f"+{payload['from']}", "NumMedia": "0"}
        form |= {"To": f"+{payload['to'] or '15550000000'}", "Body": payload["text"]}
    else:
        url, (word, code) = payload["callback"], _STATES[payload["state"]]
        form = {"MessageSid": sid_of(payload["id"]), "MessageStatus": word}
        form |= {"ErrorCode": code} if code else {}
    form["AccountSid"] = payload["account"]
    signed = url + "".join(name + form[name] for name in sorted(form))
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Twilio-Signature": hmac_base64(token, signed.encode(), "sha1"),
    }
    return url, headers, urlencode(form).encode()
