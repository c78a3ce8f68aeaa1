"""Vonage SMS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import permutations
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from flask import Flask

from smsqueue import Gateway, Settings, exc
from smsqueue.delivery.event_runner import EventRunner
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.states import State
from smsqueue.providers.vonage import VonageProvider, signature
from smsqueue.testing.contract import PREFIX, PUBLIC_URL, Check, checks, made
from smsqueue.testing.examples import (
    REF,
    Examples,
    Received,
    Refusal,
    Reported,
    Sending,
    Webhook,
    message,
)
from smsqueue.testing.stub import Answer, Seen, Stub
from smsqueue.testing.webhook_checks import client_of, receiver
from tests.ledger.bench import Bench
from tests.providers.helpers import (
    account,
    basic,
    malformed,
    refuses_without_sender,
    webhook_status,
)

FORM = "application/x-www-form-urlencoded"
KEY, SECRET, SIGNATURE = "abcd1234", "vonage-secret", "vonage-signature-secret"


def entry(id: str, **more: str) -> dict[str, str]:
    return {"to": "15551234567", "message-id": id, "status": "0", "network": "12345"} | more


def answer(*entries: Any, status: int = 200) -> Answer:
    return Answer(status, {"message-count": str(len(entries)), "messages": list(entries)})


GOOD = answer(entry("0A1"))


def refused(
    code: str, error: type[exc.ProviderError], text: str = "no", wait: float | None = None
) -> Refusal:
    told = answer({"status": code, "error-text": text})
    return Refusal(f"status {code} {text}", told, error, code=code, retry_after=wait)


def signed_fields(fields: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Fields with the timestamp and the signature that Vonage adds."""
    told = {"timestamp": str(int(time.time())), "nonce": "n-1", **fields}
    secret, method = how.get("secret", SIGNATURE), how.get("method", "sha256")
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in told.items()}
    return told | {"sig": signature(texts, secret, method).upper()}


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> Any:
    """Sign the form, the JSON or the query."""
    if method == "GET":
        base, _, query = url.partition("?")
        fields = signed_fields(dict(parse_qsl(query, keep_blank_values=True)))
        return method, f"{base}?{urlencode(fields)}", headers, body
    try:
        if headers["Content-Type"] == "application/json":
            return method, url, headers, json.dumps(json_signed(json.loads(body))).encode()
        fields = signed_fields(dict(parse_qsl(body.decode(), keep_blank_values=True)))
    except (ValueError, AttributeError, RecursionError):
        return headers  # it is nothing that could be signed
    return method, url, headers, urlencode(fields).encode()


hook = partial(Webhook, sign=sign, status=204, placeless=True)
bad = partial(malformed, sign=sign)


INCOMING = {
    "msisdn": "15551234567",
    "to": "15550009999",
    "messageId": "0B1",
    "text": "hi & good = fine ü€😀",
    "type": "unicode",
    "keyword": "HI",
    "message-timestamp": "2026-01-02 03:04:05",
}
RECEIVED = Received("15551234567", INCOMING["text"], "15550009999", "0B1")


def incoming(name: str, method: str = "POST", **how: Any) -> Webhook:
    return hook(f"incoming, {name}", "/im", [RECEIVED], method, **how)


def status(word: str, state: State | None, code: str = "0", **more: str) -> Webhook:
    form = {"msisdn": "15551234567", "to": "15550009999", "messageId": "0A1", "status": word}
    form |= {"err-code": code, "scts": "2601020304", "price": "0.03", "client-ref": REF} | more
    reported = Reported(state, "0A1", REF, code, word)
    return hook(f"status {word}", "/status", [reported], form=form)


def without(*names: str) -> dict[str, str]:
    return {k: v for k, v in INCOMING.items() if k not in names}


def correctly_signed(form: Seen) -> None:
    fields = dict(form.form)
    assert fields.pop("sig") == signature(fields, SIGNATURE, "sha256")
    assert abs(int(fields["timestamp"]) - time.time()) < 3600
    assert "api_secret" not in fields
    assert "Authorization" not in form.headers


PATH = "/sms/json"
PLAIN = {"to": "15551234567", "from": "15550009999", "text": "hello", "client-ref": REF}

sends = partial(Sending, answer=GOOD, msgid="0A1", path=PATH)

EXAMPLES = Examples(
    provider=VonageProvider,
    config={
        "api_key": KEY,
        "api_secret": SECRET,
        "signature_secret": SIGNATURE,
        "sender": "+1 555 000 9999",
    },
    good=GOOD,
    secrets=[SECRET, SIGNATURE],
    secret="signature_secret",
    sendings=[
        sends("a text", message(), form=PLAIN, headers=basic(f"{KEY}:{SECRET}")),
        sends("Unicode", message(body="שלום"), form=PLAIN | {"text": "שלום", "type": "unicode"}),
        sends(
            "all of GSM-7 is no Unicode", message(body="[€] Ø à"), form=PLAIN | {"text": "[€] Ø à"}
        ),
        sends(
            "report, validity, sender id",
            message(status_report=True, expires=5, senderId="My Shop"),
            form=PLAIN
            | {
                "from": "My Shop",
                "ttl": "300000",
                "status-report-req": "1",
                "callback": f"{PUBLIC_URL}/{PREFIX}/main/status",
            },
        ),
        sends("the shortest validity", message(expires=0.1), form=PLAIN | {"ttl": "20000"}),
        sends(
            "parameters",
            message(
                params={"message-class": 0, "entity-id": "7", "account-ref": None}
                | {"trusted-number": True, "to": "1", "client-ref": "another"}
            ),
            form=PLAIN | {"message-class": "0", "entity-id": "7", "trusted-number": "true"},
        ),
        sends(
            "several parts",
            message(body="x" * 300),
            answer=answer(entry("0A1"), entry("0A2")),
            msgid=["0A1", "0A2"],
            form=PLAIN | {"text": "x" * 300},
        ),
        sends(
            "signed",
            message(body="a&b=c"),
            form=PLAIN
            | {"text": "a&b=c", "api_key": KEY}
            | {"timestamp": str.isdigit, "sig": lambda sig: len(sig) == 64},
            config={"sign": True},
            check=correctly_signed,
        ),
    ],
    refusals=[
        refused(
            "1", exc.LimitsError, "Throughput Rate Exceeded - please wait [ 250 ] and retry", 0.25
        ),
        refused("1", exc.LimitsError, "[99999999999]"),
        refused("10", exc.LimitsError),
        *[refused(str(c), exc.RequestError) for c in [2, 3, 6, 7, 12, 15, 22, 23, 29, 33]],
        *[refused(str(c), exc.AuthError) for c in [4, 8, 11, 14, 32]],
        refused("5", exc.ServerError),
        refused("9", exc.CreditError),
        refused("77", exc.RequestError),
        Refusal(
            "an unknown status with an id",
            answer({"status": "77", "message-id": "0A1"}),
            exc.RequestError,
            code="77",
            ambiguous=True,
        ),
        Refusal(
            "an internal error with an id",
            answer({"status": "5", "message-id": "0A1"}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal(
            "the second part refused",
            answer(entry("0A1"), {"status": "9", "error-text": "no"}),
            exc.CreditError,
            code="9",
            ambiguous=True,
        ),
        Refusal(
            "the first part refused, the second not",
            answer({"status": "1", "error-text": "no"}, entry("0A2")),
            exc.LimitsError,
            ambiguous=True,
        ),
        Refusal("accepted without an id", answer({"status": "0"}), exc.ServerError, ambiguous=True),
        Refusal(
            "a second entry of nothing",
            answer(entry("0A1"), None),
            exc.RequestError,
            ambiguous=True,
        ),
        Refusal("no entries", answer(), exc.RequestError),
        Refusal("a count of nothing", Answer(200, {"message-count": 0}), exc.RequestError),
        Refusal(
            "a count without entries",
            Answer(200, {"message-count": "1", "messages": []}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal("401", Answer(401, ""), exc.AuthError),
        Refusal("401 with a code", answer({"status": "9"}, status=401), exc.CreditError, code="9"),
        Refusal("420", Answer(420, ""), exc.RequestError),
        Refusal("500 of its own", answer({"status": "5"}, status=500), exc.ServerError, code="5"),
    ],
    unsupported=[message(senderId="My_Shop")],
    webhooks=[
        incoming("form", form=INCOMING),
        incoming("GET", "GET", form=INCOMING),
        incoming("JSON", json=INCOMING),
        hook(
            "incoming, a part, without a ledger",
            "/im",
            [RECEIVED],
            form=INCOMING
            | {"concat": "true", "concat-ref": "7", "concat-total": "2", "concat-part": "1"},
        ),
        hook(
            "incoming, binary, more than texts",
            "/im",
            [Received("15551234567", "", "15550009999", "0B1")],
            json=without("text") | {"data": "00ff", "udh": "06", "n": [1], "none": None},
        ),
        status("accepted", State.ACCEPTED),
        status("buffered", State.ACCEPTED),
        status("delivered", State.DELIVERED),
        status("expired", State.EXPIRED),
        status("failed", State.UNDELIVERED, "4"),
        status("rejected", State.UNDELIVERED, "6"),
        status("unknown", None),
        status("never-heard-of", None),
    ],
    refused=[
        bad("no sender", "/im", form=without("msisdn")),
        bad("an empty id", "/im", form=INCOMING | {"messageId": ""}),
        bad("a report", "/im", form=INCOMING | {"status": "delivered"}),
        bad("no status", "/status", form={"messageId": "0A1"}),
        bad("JSON that is a list", "/im", json=[1], sign=None),
        bad("rubbish", "/im", body=b"{", headers={"Content-Type": "application/json"}, sign=None),
        bad("nothing", "/im", 403, sign=None),
        bad(
            "too old", "/im", 403, form=INCOMING | {"timestamp": str(int(time.time()) - 26 * 3600)}
        ),
        bad(
            "from the future",
            "/im",
            403,
            form=INCOMING | {"timestamp": str(int(time.time()) + 26 * 3600)},
        ),
        bad("no time", "/im", 403, form=INCOMING | {"timestamp": ""}),
        bad("rubbish for a time", "/im", 403, form=INCOMING | {"timestamp": "nan"}),
    ],
)


def json_signed(fields: dict[str, Any]) -> dict[str, Any]:
    """As signed_fields, for JSON whose nulls are not signed."""
    told = {k: v for k, v in fields.items() if v is not None}
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in told.items()}
    stamp = str(int(time.time()))
    return fields | {
        "timestamp": stamp,
        "sig": signature(texts | {"timestamp": stamp}, SIGNATURE, "sha256"),
    }


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


# --- Signatures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("md5hash", "6af838ef94998832dbfc29020b564830"),
        ("md5", "c15c21ced558c93a226c305f58f902f2"),
        ("sha1", "3e19a4e6880fdc2c1426bfd0587c98b9532f0210"),
        ("sha256", "a321e824b9b816be7c3f28859a31749a098713d39f613c80d455bbaffae1cd24"),
        (
            "sha512",
            "812a18f76680fa0fe1b8bd9ee1625466ceb1bd96242e4d050d2cfd9a7b40166c"
            "63ed26ec9702168781b6edcf1633db8ff95af9341701004eec3fcf9550572ee8",
        ),
    ],
)
def test_the_published_examples_of_signatures(method: str, wanted: str) -> None:
    """Those of the tests of Vonage's Python SDK."""
    assert signature({"timestamp": "1461605396", "b": "2", "a": "1"}, "secret", method) == wanted


def test_ampersands_and_equals_signs_are_signed_as_underscores() -> None:
    """As Vonage's Python SDK signs them."""
    fields = {"a": "1", "b": "2 & 3=4", "timestamp": "1461605396"}
    found = signature(fields, "my_secret", "sha1")
    assert found == "101ce39f3b8cca180ed0f29192821675ae5e9ad5"


def folded(fields: dict[str, str], *names: str) -> dict[str, str]:
    """The same fields, some of them put into the name of the last: its signature is the same."""
    front = "&".join(f"{name}={fields[name]}" for name in names[:-1])
    rest = {name: value for name, value in fields.items() if name not in names}
    return rest | {f"{front}&{names[-1]}": fields[names[-1]]}


@pytest.mark.parametrize("method", ["md5hash", "md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize("how", ["form", "JSON", "GET"])
def test_fields_cannot_be_hidden_in_a_name(method: str, how: str) -> None:
    part = {"concat": "true", "concat-part": "1", "concat-ref": "7", "concat-total": "2"}
    told = signed_fields(INCOMING | part, method=method)
    sig = told.pop("sig")
    hidden = folded(told, *part)
    assert signature(hidden, SIGNATURE, method) == sig.lower()
    posts, heard = receiver(EXAMPLES, signature_method=method)
    hidden["sig"], path = sig, f"/{PREFIX}/main/im"
    if how == "GET":
        found = posts.get(path, query_string=hidden)
    else:
        found = posts.post(path, **{"form": {"data": hidden}, "JSON": {"json": hidden}}[how])
    assert (found.status_code, heard) == (403, [])


@pytest.mark.parametrize("method", ["md5hash", "md5", "sha1", "sha256", "sha512"])
def test_webhooks_are_taken_as_the_account_signs_them_and_in_no_other_way(method: str) -> None:
    posts, heard = receiver(EXAMPLES, signature_method=method)
    for each in ("md5hash", "md5", "sha1", "sha256", "sha512"):
        answered = posts.post(f"/{PREFIX}/main/im", data=signed_fields(INCOMING, method=each))
        assert answered.status_code == (204 if each == method else 403)
    assert len(heard) == 1


def test_a_second_value_of_a_field_is_not_read() -> None:
    posts, heard = receiver(EXAMPLES)
    told = [*signed_fields(INCOMING).items(), ("text", "forged"), ("msisdn", "15550000000")]
    posts.post(f"/{PREFIX}/main/im", data=urlencode(told), content_type=FORM)
    assert [(each.src, each.body) for each in heard] == [("15551234567", INCOMING["text"])]


def test_the_query_of_a_form_is_not_read() -> None:
    posts, heard = receiver(EXAMPLES)
    data = signed_fields(INCOMING)
    posts.post(f"/{PREFIX}/main/im?text=forged&status=delivered&concat=true", data=data)
    assert [each.body for each in heard] == [INCOMING["text"]]


def test_while_a_secret_rotates_both_verify_and_the_first_signs() -> None:
    config = {"signature_secret": ["new", "old"], "sign": True}
    posts, heard = receiver(EXAMPLES, **config)
    for secret, code in (("new", 204), ("old", 204), ("older", 403)):
        data = signed_fields(INCOMING, secret=secret)
        assert webhook_status(posts, "im", data=data) == code
    assert len(heard) == 2
    with account(EXAMPLES, GOOD, **config) as (provider, stub):
        provider.send(message())
    fields = dict(stub.seen[0].form)
    assert fields.pop("sig") == signature(fields, "new", "sha256")


def test_the_time_may_be_written_as_a_date() -> None:
    posts, heard = receiver(EXAMPLES)
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    for stamp, code in ((now, 204), ("2020-01-02 03:04:05", 403)):
        data = signed_fields(INCOMING | {"timestamp": stamp})
        assert webhook_status(posts, "im", data=data) == code
    assert len(heard) == 1


def test_a_webhook_is_never_taken_when_the_ledger_has_forgotten_the_first_one() -> None:
    settings = Settings(receiver_prefix=(PREFIX,), report_wait=60.0)
    gateway = Gateway(settings, eager=True)
    gateway.add_provider("main", VonageProvider, **EXAMPLES.config)
    posts = client_of(gateway)
    data = signed_fields(INCOMING | {"timestamp": str(int(time.time()) - 3600)})
    assert webhook_status(posts, "im", data=data) == 403


def test_half_a_character_in_json_is_signed_as_a_question_mark() -> None:
    posts, heard = receiver(EXAMPLES)
    fields = INCOMING | {"timestamp": str(int(time.time()))}
    sig = signature(fields | {"text": "half ?"}, SIGNATURE, "sha256")
    assert webhook_status(posts, "im", json=fields | {"text": "half \ud83d", "sig": sig}) == 204
    assert heard[0].body == "half \ud83d"


def test_an_address_answers_when_vonage_asks_if_it_is_there() -> None:
    posts, heard = receiver(EXAMPLES)
    for view in ("im", "status"):
        assert webhook_status(posts, view, "GET") == 200
    assert heard == []


# --- The account -----------------------------------------------------------------------------


def test_the_balance() -> None:
    answers = [Answer(200, {"value": 10.17127500, "autoReload": False})]
    with account(EXAMPLES, *answers) as (provider, stub):
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("10.171275", None)
    [seen] = stub.seen
    assert (seen.method, seen.path) == ("GET", "/account/get-balance")
    assert seen.headers["Authorization"] == basic(f"{KEY}:{SECRET}")["Authorization"]


@pytest.mark.parametrize(
    "config",
    [
        {"api_secret": None},
        {"sign": True, "signature_secret": None},
        {"signature_method": "sha3"},
        {"signature_secret": ""},
    ],
)
def test_what_cannot_work_is_refused_when_the_provider_is_added(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"secret|signature_method"):
        made(EXAMPLES, "http://127.0.0.1:9", **config)


def test_a_message_without_a_sender_is_unsupported() -> None:
    assert refuses_without_sender(EXAMPLES)


def test_a_callback_that_is_too_long_is_left_to_the_account() -> None:
    settings = Settings(public_url="https://sms.example.org", receiver_prefix=("prefix" * 14,))
    with Stub(GOOD) as stub:
        gateway = Gateway(settings, eager=True)
        provider = gateway.add_provider("main", VonageProvider, **EXAMPLES.config, url=stub.url)
        provider.send(message(status_report=True))
    assert stub.seen[0].form == PLAIN | {"status-report-req": "1"}


def test_meta_of_reports_and_messages() -> None:
    posts, heard = receiver(EXAMPLES)
    for view, hook in (("status", status("delivered", State.DELIVERED)), ("im", None)):
        form = INCOMING if hook is None else hook.form
        assert form is not None
        form = {"message-timestamp": "2026-01-02 03:04:06"} | dict(form)
        posts.post(f"/{PREFIX}/main/{view}", data=signed_fields(dict(form)))
    assert heard[0].meta["scts"] == "2601020304"
    assert heard[0].rtime.isoformat() == "2026-01-02T03:04:06+00:00"
    assert heard[1].meta["keyword"] == "HI"
    assert heard[1].rtime.isoformat() == "2026-01-02T03:04:05+00:00"
    for each in heard:
        assert not {"msisdn", "to", "text", "sig"} & each.meta.keys()


# --- Long incoming messages ------------------------------------------------------------------


class Parts:
    """Receivers of a gateway with a ledger, and what its hooks are told."""

    def __init__(self, settings: Settings, **config: Any) -> None:
        self.gateway = Gateway(settings)
        self.gateway.add_provider("main", VonageProvider, **{**EXAMPLES.config, **config})
        self.heard: list[IncomingMessage] = []
        self.gateway.onReceive += self.heard.append
        app = self.gateway.receiver_blueprints_register(Flask("parts"), PREFIX)
        self.client = app.test_client()

    def post(self, number: int, text: str, total: int = 3, ref: str = "7", **more: Any) -> int:
        fields = INCOMING | {"messageId": f"0C{number}", "text": text, "concat": "true"}
        fields |= {"concat-ref": ref, "concat-total": str(total), "concat-part": str(number)}
        data = signed_fields(fields | more)
        code: int = webhook_status(self.client, "im", json=data)
        return code

    def wait(self, seconds: float = 700.0) -> None:
        """What has to happen within these seconds is due now."""
        redis: Any = self.gateway.ledger.redis
        space = self.gateway.settings.namespace
        for event, at in redis.zrange(f"{space}:due:hook", 0, -1, withscores=True):
            then = int(at - seconds * 1000)
            redis.zadd(f"{space}:due:hook", {event: then})
            redis.hset(f"{space}:event:{event}", "not_before", str(then))

    def run(self) -> list[tuple[str, Any]]:
        """Run what is due; bodies and what is missing of what was told since the start."""
        hooks = EventRunner(self.gateway, self.gateway.ledger)
        for event, _ in self.gateway.ledger.take_due("hook", 100).due:
            hooks.run(event)
        return [(each.body, each.meta.get("missing")) for each in self.heard]

    def run_published(self) -> list[tuple[str, Any]]:
        """The same for events whose trigger was published, as if the triggers were lost."""
        ledger = self.gateway.ledger
        hooks = EventRunner(self.gateway, ledger)
        for event in ledger.redis.zrange(f"{self.gateway.settings.namespace}:due:hook", 0, -1):
            hooks.run(str(event))
        return [(each.body, each.meta.get("missing")) for each in self.heard]


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    made = Parts(settings)
    with made.gateway:
        yield made


@pytest.mark.parametrize("seed", range(6))
def test_parts_are_joined_in_any_order(settings: Settings, seed: int) -> None:
    texts = {1: 'one "quoted" \\ \n', 2: "два 😀 ", 3: "drei\x00 &=%c%1"}
    order = Random(seed).sample([1, 2, 3, 1, 2, 3], 6)
    for number in order:  # each time another process
        receiver = Parts(settings)
        with receiver.gateway:
            assert receiver.post(number, texts[number]) == 204
    parts = Parts(settings)
    with parts.gateway:
        assert parts.run_published() == [("".join(texts.values()), None)]
        [heard] = parts.heard
        assert (heard.src, heard.dst, heard.msgid) == ("15551234567", "15550009999", "0C1")
        assert heard.meta["parts"] == 3
        assert heard.meta["keyword"] == "HI"
        assert heard.provider == "main"


def test_a_character_split_between_parts_is_joined(parts: Parts) -> None:
    stamp = str(int(time.time()))
    for number, text in ((1, "smile \ud83d"), (2, "\ude00!")):
        fields = INCOMING | {"messageId": f"0C{number}", "concat": "true", "timestamp": stamp}
        fields |= {"concat-ref": "7", "concat-total": "2", "concat-part": str(number)}
        seen = text.encode(errors="replace").decode()
        sig = signature(fields | {"text": seen}, SIGNATURE, "sha256")
        assert webhook_status(parts.client, "im", json=fields | {"text": text, "sig": sig}) == 204
    assert parts.run_published() == [("smile 😀!", None)]


def test_an_incomplete_message_is_reported_after_parts_wait(parts: Parts) -> None:
    parts.post(3, "three")
    parts.post(1, "one ")
    assert parts.run_published() == []
    parts.wait()
    assert parts.run() == [("one three", [2])]
    # The rest is not lost either.
    parts.post(2, "two")
    parts.wait()
    assert parts.run() == [("one three", [2]), ("two", [1, 3])]
    # And what was repeated is not told again.
    for number, text in ((1, "one "), (2, "two"), (3, "three")):
        assert parts.post(number, text) == 204
    parts.wait()
    assert len(parts.run()) == 2


@pytest.mark.parametrize("wait", [50.0, 700.0])
def test_how_long_parts_wait_is_the_providers_argument(settings: Settings, wait: float) -> None:
    parts = Parts(settings, parts_wait=wait)
    with parts.gateway:
        parts.post(1, "one")
        parts.wait(100.0)
        assert bool(parts.run()) == (wait < 100)


def test_an_incomplete_message_is_not_reported_before_parts_wait(parts: Parts) -> None:
    parts.post(1, "one", total=2)
    assert parts.run() == []
    assert parts.run_published() == []


def test_messages_of_others_with_the_same_reference_are_not_mixed_up(parts: Parts) -> None:
    parts.post(1, "a", total=2)
    parts.post(1, "b", total=2, messageId="0D1", msisdn="15551234568")
    parts.post(1, "c", total=2, messageId="0E1", to="15550008888")
    parts.post(1, "d", total=2, messageId="0F1", ref="8")
    assert parts.run_published() == []
    parts.post(2, "B", total=2, messageId="0D2", msisdn="15551234568")
    assert parts.run_published() == [("bB", None)]
    parts.post(2, "A", total=2)
    assert parts.run_published() == [("bB", None), ("aA", None)]


def test_a_reference_that_is_used_again_begins_another_message(parts: Parts) -> None:
    parts.post(1, "old 1 ")
    parts.post(2, "old 2")
    parts.post(1, "new 1 ", messageId="0D1")
    assert parts.run() == [("old 1 old 2", [3])]
    parts.post(2, "new 2 ", messageId="0D2")
    parts.post(3, "new 3", messageId="0D3")
    assert parts.run_published()[1:] == [("new 1 new 2 new 3", None)]


def test_the_same_reference_again_after_a_complete_message(parts: Parts) -> None:
    for id in ("0D", "0E"):
        for number in (1, 2):
            parts.post(number, f"{id}{number} ", total=2, messageId=f"{id}{number}")
    assert sorted(parts.run_published()) == [("0D1 0D2 ", None), ("0E1 0E2 ", None)]


@pytest.mark.parametrize(
    "fields",
    [
        {"concat-part": "0"},
        {"concat-part": "4"},
        {"concat-total": "many"},
        {"concat-total": "100000", "concat-part": "1"},
        {"concat-part": ""},
        {"concat": "false"},
        {"concat-total": "1"},
    ],
)
def test_an_invalid_part_is_reported_by_itself(parts: Parts, fields: dict[str, str]) -> None:
    assert parts.post(1, "alone", **fields) == 204
    assert parts.run_published() == [("alone", None)]


def test_the_status_unknown_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It is one of Vonage's statuses: kept as it is, without a warning and without a new state."""
    report = VonageProvider(Gateway(eager=True), "main", api_key="k", api_secret="s").report
    told = report("unknown", "0A1", code="1")
    assert (told.status, told.status_code, told.state) == ("unknown", "1", None)
    assert "unknown status" not in caplog.text
    report("never-heard-of", "0A1")
    assert "unknown status: never-heard-of" in caplog.text


def test_without_redis_a_part_is_answered_503() -> None:
    parts = Parts(Settings(redis_url="redis://127.0.0.1:1/0"))
    assert parts.post(1, "one") == 503


# --- Reports of the parts of a long message ----------------------------------------------------

PART_REPORTS = [
    (order, early)
    for order in permutations([("P1", "delivered"), ("P2", "delivered"), ("P1", "accepted")])
    for early in range(4)
] + [
    (order, early)
    for failure in ("failed", "rejected", "expired")
    for order in permutations([("P1", "delivered"), ("P2", failure)])
    for early in range(3)
]


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    bench = Bench(replace(settings, public_url=PUBLIC_URL, receiver_prefix=(PREFIX,)))
    yield bench
    bench.close()


class Interrupted(VonageProvider):
    """Does something between Vonage's answer and the worker that reads it."""

    meanwhile: Callable[[OutgoingMessage], None]

    def submit(self, message: OutgoingMessage) -> None:
        super().submit(message)
        self.meanwhile(message)


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer lost"])
def test_a_long_message_is_delivered_when_all_its_parts_are(bench: Bench, lost: bool) -> None:
    app = Flask("parts")
    with Stub(*[answer(entry("P1"), entry("P2"))] * len(PART_REPORTS)) as stub:
        config = EXAMPLES.config | {"url": stub.url}
        provider = bench.gateway.add_provider("main", Interrupted, **config)
        bench.gateway.receiver_blueprints_register(app, PREFIX)
        client = app.test_client()

        def post(id: str | None, *reports: tuple[str, str]) -> None:
            for part, word in reports:
                fields = {"messageId": f"{id}{part}", "status": word, "client-ref": f"{id}.1"}
                assert webhook_status(client, "status", data=signed_fields(fields)) == 204

        for order, early in PART_REPORTS:

            def meanwhile(
                message: OutgoingMessage, before: tuple[tuple[str, str], ...] = order[:early]
            ) -> None:
                message.msgid = [f"{message.id}{part}" for part in message.msgid]
                post(message.id, *before)
                if lost:
                    message.msgid = None
                    raise exc.ServerError(ambiguous=True)

            provider.meanwhile = meanwhile  # type: ignore[attr-defined]
            bench.unpause("main")  # lost answers of several messages pause it
            id = bench.send("x" * 200, status_report=True)
            bench.deliver(id)
            post(id, *order[early:])
            words = {word for _, word in order}
            failed = "expired" if "expired" in words else "undelivered"
            end = "delivered" if words <= {"accepted", "delivered"} else failed
            assert bench.state(id) == end, (order, early)
