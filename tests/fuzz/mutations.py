"""Changes of a genuine webhook, as somebody would make them who has seen it and knows no secret."""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus

from smsqueue.testing.webhook_checks import Request, relocated_requests

__all__ = ["TRAPS", "Mutator"]

_FORM = "application/x-www-form-urlencoded"
#: Texts that look like what stands around a text, where names and values are signed as one text.
TRAPS = (
    "From+15550001111",
    "pay BobFrom+15550001111FromCity",
    "To+15550001111",
    "MessageSidSM" + "2" * 32,
    "NumMedia0",
    "MessageUUIDP2",
    "&to=15550001111&text=hi",
    "a=b_c&d",
    ".1700000000.",
    '","from":"15550001111',
    "%00%0a+",
    "Dear Tiffany This is DoorDash",
    "see TikTok HomeDepot FedEx now",
    "ButtonTextYes",
    "\N{GRINNING FACE} \u0416",
    "",
)
_BYTES = b"\x00\n &=+%._-0129AZaz\"'{}[],:\xff"
_LETTERS = "ABCabc019+/=_-. "


class Mutator:
    """Makes webhooks that are like a genuine one, with one to three changes.

    Args:
        others: Other genuine webhooks, whose headers may be taken.
    """

    def __init__(self, random: Random, genuine: Request, others: list[Request]) -> None:
        self._random = random
        self._genuine, self._others = genuine, others
        self._moved: list[Request] = []

    def __call__(self) -> Request:
        """The next one; it differs from the genuine one."""
        for _ in range(20):
            request = self._genuine
            for _ in range(self._random.choice((1, 1, 1, 2, 3))):
                request = self._changed(request)
            if request != self._genuine:
                return request
        return self._genuine._replace(body=self._genuine.body + b" ")

    def _changed(self, request: Request) -> Request:
        form = request.headers.get("Content-Type", "").startswith(_FORM)
        kinds: list[Callable[[Request], Request]] = [self._query, self._headers, self._placed]
        if request.body:
            kinds += [self._body, self._body]
        if form or "?" in request.path:
            kinds += [self._fields] * 6
        elif request.body:
            kinds += [self._json] * 3
        return self._random.choice(kinds)(request)

    # --- Bytes -------------------------------------------------------------------------------

    def _bytes(self, data: bytes) -> bytes:
        random = self._random
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice((1, 1, 2, 8, 64)))
        some = bytes(random.choice(_BYTES) for _ in range(random.choice((1, 1, 2, 5))))
        return random.choice(
            (
                data[:at] + some + data[at:],
                data[:at] + some + data[at + len(some) :],
                data[:at] + data[end:],
                data[:at] + data[at:end] * 2 + data[end:],
                data[:at],
                data + some,
            )
        )

    def _body(self, request: Request) -> Request:
        return request._replace(body=self._bytes(request.body))

    def _query(self, request: Request) -> Request:
        path, _, query = request.path.partition("?")
        kind = self._random.randrange(5)
        if kind == 0 and query:
            changed = self._bytes(query.encode()).decode("latin-1")
            query = "".join(c if "!" <= c <= "~" and c != "#" else quote(c) for c in changed)
        elif kind == 1:
            name = self._random.choice(("ref", "To", "From", "MessageUUID", "bodySHA256", "x"))
            query = "&".join(filter(None, [query, f"{name}={self._random.randrange(10**6)}"]))
        elif kind == 2:
            query = ""
        elif kind == 3:
            there, other = ("/im", "/status") if path.endswith("/im") else ("/status", "/im")
            path = path.removesuffix(there) + other
        else:
            path = path + self._random.choice(("/", "//", "%2f", "?"))
        return request._replace(path=f"{path}?{query}" if query else path)

    def _placed(self, request: Request) -> Request:
        """Another method, content type or place of the fields."""
        self._moved = self._moved or [each for _, each in relocated_requests(self._genuine)]
        return self._random.choice(self._moved)

    # --- Headers -----------------------------------------------------------------------------

    def _headers(self, request: Request) -> Request:
        random, headers = self._random, dict(request.headers)
        names = sorted(name for name in headers if name != "Content-Type") or ["Authorization"]
        name = random.choice(names)
        value = headers.get(name, "")
        kind = random.randrange(10)
        if kind == 0:
            headers.pop(name, None)
        elif kind == 1 and self._others:
            other = random.choice(self._others).headers
            headers |= {each: other[each] for each in names if each in other}
        elif kind == 2:
            headers[name] = value.swapcase()
        elif kind == 3:
            headers[name] = value + random.choice(("=", "==", ",", "\t", " ", ".", "A"))
        elif kind == 4:
            headers[name] = _other_spelling(value)
        elif kind == 5 and value.count(".") == 2:
            headers[name] = self._token(value)
        elif kind == 6 and value.isdigit():
            headers[name] = str(int(value) + random.choice((-(10**4), -1, 1, 10**4)))
        elif kind == 7:
            headers[name] = value[: random.randrange(len(value) + 1)]
        else:
            at = random.randrange(len(value) + 1)
            headers[name] = value[:at] + random.choice(_LETTERS) + value[at + random.randrange(2) :]
        return request._replace(headers=headers)

    def _token(self, token: str) -> str:
        """A JWT with another algorithm or other claims, and the signature that it had."""
        head, claims, signature = token.rpartition(" ")[2].split(".")
        scheme = token[: len(token) - len(token.rpartition(" ")[2])]
        if self._random.random() < 0.5:
            algorithm = self._random.choice(("none", "None", "HS512", "RS256", "hs256"))
            head = _segment({"alg": algorithm, "typ": "JWT"})
            signature = self._random.choice(("", signature))
        else:
            told = json.loads(base64.urlsafe_b64decode(claims + "=="))
            name = self._random.choice(sorted(told))
            told[name] = self._random.choice((0, "", None, 15550001111, "x"))
            claims = _segment(told)
        return f"{scheme}{head}.{claims}.{signature}"

    # --- Fields ------------------------------------------------------------------------------

    def _fields(self, request: Request) -> Request:
        """Names and values, of the form or of the query, divided otherwise."""
        path, _, query = request.path.partition("?")
        form = request.headers.get("Content-Type", "").startswith(_FORM) and request.body
        text = request.body.decode("latin-1") if form else query
        pairs = [
            (unquote_plus(name), unquote_plus(value))
            for name, _, value in (each.partition("=") for each in text.split("&"))
        ]
        pairs = self._divided(pairs)
        how = self._random.choice((quote_plus, quote_plus, quote, _all_escaped))
        try:
            text = "&".join(f"{how(name)}={how(value)}" for name, value in pairs)
        except UnicodeEncodeError:
            return request
        if form:
            return request._replace(body=text.encode("latin-1", "replace"))
        return request._replace(path=f"{path}?{text}")

    def _divided(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        random, pairs = self._random, sorted(pairs)
        n = random.randrange(len(pairs))
        name, value = pairs[n]
        kind = random.randrange(12)
        cut = random.randrange(len(value) + 1)
        if kind == 0 and n + 1 < len(pairs):  # the next field becomes a part of the value
            after = pairs[n + 1]
            pairs[n : n + 2] = [(name, value + after[0] + after[1])]
        elif kind == 1 and n + 1 < len(pairs):  # a part of the value becomes one of the next name
            after = pairs[n + 1]
            pairs[n : n + 2] = [(name, value[:cut]), (value[cut:] + after[0], after[1])]
        elif kind == 2:  # the value begins in the name
            pairs[n] = (name + value[:cut], value[cut:])
        elif kind == 3:  # or the name ends in the value
            cut = random.randrange(len(name) + 1)
            pairs[n] = (name[:cut], name[cut:] + value)
        elif kind == 4:  # what looks like a name within the value becomes one
            found = list(re.finditer(r"[A-Z][a-z]+([A-Z][a-z]+)*|[a-z]{2,}(-[a-z]+)*", value))
            if found:
                match = random.choice(found)
                new = (match[0], value[match.end() :])
                pairs[n : n + 1] = [(name, value[: match.start()]), new]
        elif kind == 5:
            pairs.append((name, random.choice(("15550001111", "x", value + "1", "delivered"))))
        elif kind == 6:
            pairs[n] = (name, random.choice(TRAPS))
        elif kind == 7:
            del pairs[n]
        elif kind == 8:
            pairs[n] = (name.swapcase(), value)
        elif kind == 9:
            pairs.append((random.choice(("ref", "sig", "timestamp", "nonce", "", "api-key")), "1"))
        elif kind == 10:  # several become one
            end = min(len(pairs), n + random.choice((3, 4, 5)))
            pairs[n:end] = [(name, value + "".join(k + v for k, v in pairs[n + 1 : end]))]
        else:
            random.shuffle(pairs)
        return pairs or [("", "")]

    def _json(self, request: Request) -> Request:
        try:
            value = json.loads(request.body)
        except ValueError:
            return self._body(request)
        kind = self._random.randrange(4)
        if kind == 0:
            text = json.dumps(value, indent=self._random.choice((None, 1)), sort_keys=True)
        elif kind == 1 and isinstance(value, dict) and value:
            name = self._random.choice(sorted(value))
            text = json.dumps(value)[:-1] + f", {json.dumps(name)}: {self._random.choice('1[')}"
            text += "]}" if text.endswith("[") else "}"
        else:
            text = json.dumps(self._leaf(value))
        return request._replace(body=text.encode())

    def _leaf(self, value: Any) -> Any:
        """The value with one thing in it changed."""
        if isinstance(value, dict) and value:
            name = self._random.choice(sorted(value))
            return value | {name: self._leaf(value[name])}
        if isinstance(value, list) and value:
            n = self._random.randrange(len(value))
            return [*value[:n], self._leaf(value[n]), *value[n + 1 :]]
        return self._random.choice((*TRAPS, None, 0, True, [], {}, "15550001111", "delivered"))


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _all_escaped(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogateescape"))


def _other_spelling(text: str) -> str:
    """Base64 whose last letter has other bits that count for nothing."""
    alphabet, body = string.ascii_letters + string.digits, text.rstrip("=")
    at = alphabet.find(body[-1:])
    if not body or at < 0:
        return text
    return body[:-1] + alphabet[at - 1] + text[len(body) :]
