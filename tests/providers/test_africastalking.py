"""Africa's Talking."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from smsqueue import Gateway, Settings, exc
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageError
from smsqueue.providers.africastalking import AfricasTalkingProvider
from smsqueue.testing.contract import PREFIX, Check, checks, made
from smsqueue.testing.examples import (
    Examples,
    Received,
    Refusal,
    Reported,
    Sending,
    Webhook,
    message,
)
from smsqueue.testing.stub import Answer, Stub
from smsqueue.testing.webhook_checks import client_of
from tests.providers.helpers import account, malformed, webhook_status

USER, KEY = "shop", "africastalking-key"
PATH = "/version1/messaging"


def answer(
    *recipients: Any, text: str = "Sent to 1/1 Total Cost: KES 0.8000", status: int = 201
) -> Answer:
    return Answer(status, {"SMSMessageData": {"Message": text, "Recipients": list(recipients)}})


def recipient(code: Any, id: Any = "ATXid_1", status: str = "Success") -> dict[str, Any]:
    told = {"statusCode": code, "number": "+15551234567", "status": status}
    return told | {"cost": "KES 0.8000", "messageId": id}


GOOD = answer(recipient(101))


def refused(
    code: int, error: type[exc.ProviderError], id: Any = "None", *, ambiguous: bool = False
) -> Refusal:
    told = answer(recipient(code, id, "No"), text="Sent to 0/1 Total Cost: 0")
    return Refusal(f"{code} {id}", told, error, code=code, ambiguous=ambiguous)


def status(word: str, state: State | None, reason: str | None = None, **more: str) -> Webhook:
    form = {"id": "ATXid_1", "status": word, "phoneNumber": "+15551234567"}
    form |= {"networkCode": "63902", "retryCount": "0"} | more
    form |= {"failureReason": reason} if reason else {}
    reported = [Reported(state, "ATXid_1", None, reason, word)]
    return Webhook(f"status {word} {reason}", "/status", reported, form=form)


INCOMING = {
    "id": "in-1",
    "from": "+15551234567",
    "to": "22384",
    "text": "hi there ü€😀",
    "date": "2026-01-02T03:04:05Z",
    "linkId": "link-1",
    "networkCode": "63902",
}
PLAIN = {"username": USER, "to": "+15551234567", "message": "hello", "bulkSMSMode": "1"}

sends = partial(Sending, answer=GOOD, msgid="ATXid_1", path=PATH)

EXAMPLES = Examples(
    provider=AfricasTalkingProvider,
    config={"username": USER, "api_key": KEY},
    good=GOOD,
    secrets=[KEY],
    secret=None,
    sendings=[
        sends(
            "a text", message(), form=PLAIN, headers={"apiKey": KEY, "Accept": "application/json"}
        ),
        sends(
            "a sender id, a report",
            message(senderId="MY-SHOP", status_report=True),
            form=PLAIN | {"from": "MY-SHOP"},
        ),
        sends(
            "a short code",
            message(src="22384"),
            answer=answer(recipient(100)),
            form=PLAIN | {"from": "22384"},
        ),
        sends(
            "a number",
            message(src="15550009999"),
            answer=answer(recipient(102)),
            form=PLAIN | {"from": "+15550009999"},
        ),
        sends(
            "parameters",
            message(
                params={"enqueue": 1, "bulkSMSMode": 0, "linkId": "link-1"}
                | {"to": "+15550001111,+15550002222", "username": "other"}
            ),
            answer=answer(recipient("101")),
            form=PLAIN | {"enqueue": "1", "bulkSMSMode": "0", "linkId": "link-1"},
        ),
        sends(
            "a validity that may be ignored",
            message(expires=5),
            form=PLAIN,
            config={"ignore": ["validity"]},
        ),
    ],
    refusals=[
        *[refused(code, exc.RequestError) for code in (401, 402, 403, 406, 409)],
        *[refused(code, exc.UnsupportedError) for code in (404, 407)],
        *[refused(code, exc.ServerError) for code in (500, 501, 502)],
        refused(405, exc.CreditError),
        refused(403, exc.RequestError, "ATXid_1"),
        refused(405, exc.CreditError, ""),
        refused(500, exc.ServerError, "ATXid_1", ambiguous=True),
        refused(502, exc.ServerError, "ATXid_1", ambiguous=True),
        refused(499, exc.RequestError),  # "Sent to 0/1" says enough
        Refusal("499, and nobody is counted", answer(recipient(499)), exc.RequestError, 499, True),
        refused(103, exc.RequestError, "ATXid_1", ambiguous=True),
        Refusal("taken, no id", answer(recipient(101, "None")), exc.RequestError, None, True),
        Refusal("no status code", answer({"messageId": "A"}), exc.ServerError, None, True),
        Refusal("a word for a code", answer(recipient("yes")), exc.RequestError, None, True),
        Refusal(
            "refused as a whole",
            answer(text="InvalidSenderId"),
            exc.RequestError,
            "InvalidSenderId",
        ),
        Refusal(
            "too little credit",
            answer(text="InsufficientBalance"),
            exc.CreditError,
            "InsufficientBalance",
        ),
        Refusal("another reason", answer(text="Whatever "), exc.RequestError, "Whatever"),
        Refusal("nobody", answer(text="Sent to 0/1 Total Cost: 0"), exc.RequestError),
        Refusal(
            "several recipients",
            answer(recipient(403, "None"), recipient(101)),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal("who knows", answer(text="Sent to 1/1 ..."), exc.ServerError, ambiguous=True),
        Refusal("nobody, no words", answer(text=""), exc.RequestError),
        Refusal("nobody, words", answer(text="Invalid Sender Id"), exc.RequestError),
        Refusal("many words", answer(text="It is queued"), exc.ServerError, ambiguous=True),
        Refusal(
            "no list",
            Answer(201, {"SMSMessageData": {"Message": "Word", "Recipients": {}}}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal("401", Answer(401, "The supplied authentication is invalid"), exc.AuthError),
        Refusal("400 with a code", answer(recipient(405, "None"), status=400), exc.CreditError),
        Refusal("400", Answer(400, "no"), exc.RequestError),
        Refusal(
            "500 that says taken",
            answer(recipient(101), status=500),
            exc.ServerError,
            ambiguous=True,
        ),
    ],
    unsupported=[message(expires=5), message(senderId="My$hop")],
    webhooks=[
        Webhook(
            "incoming",
            "/im",
            [Received("15551234567", "hi there ü€😀", "22384", "in-1")],
            form=INCOMING,
        ),
        Webhook(
            "incoming, without a text",
            "/im",
            [Received("15551234567", "", "22384", "in-1")],
            form={k: INCOMING[k] for k in ("id", "from", "to")},
        ),
        status("Sent", State.ACCEPTED),
        status("Submitted", State.ACCEPTED),
        status("Buffered", State.ACCEPTED),
        status("Success", State.DELIVERED),
        status("Rejected", State.UNDELIVERED, "UserInBlackList"),
        status("Failed", State.UNDELIVERED, "DeliveryFailure"),
        status("Expired", State.EXPIRED),
        status("NeverHeardOf", None),
    ],
    refused=[
        malformed("no sender", "/im", form={"id": "in-1", "to": "22384"}),
        malformed("no id", "/im", form={"from": "15551234567", "to": "22384"}),
        malformed("a report", "/im", form=status("Sent", None).form),
        malformed("no status", "/status", form={"id": "ATXid_1"}),
        malformed("JSON", "/status", json={"id": "ATXid_1", "status": "Sent"}),
        malformed("GET", "/status", 405, method="GET", form={"id": "A", "status": "Sent"}),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def client(settings: Settings | None = None) -> tuple[Any, list[Any]]:
    if settings is None:
        gateway, _, heard = made(EXAMPLES, "http://127.0.0.1:9")
    else:
        gateway, heard = Gateway(settings), []
        gateway.add_provider("main", AfricasTalkingProvider, **EXAMPLES.config)
    return client_of(gateway), heard


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("KES 1785.50", "1785.50", "KES"),
        ("UGX 1,234,567.5", "1234567.5", "UGX"),
        ("KES -3", "-3", "KES"),
        ("12.5", "12.5", None),
    ],
)
def test_the_balance(text: str, amount: str, currency: str | None) -> None:
    with account(EXAMPLES, Answer(200, {"UserData": {"balance": text}})) as (provider, stub):
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == (amount, currency)
    [seen] = stub.seen
    assert (seen.method, seen.target) == ("GET", "/version1/user?username=shop")
    assert seen.headers["apiKey"] == KEY


@pytest.mark.parametrize("text", ["plenty", ",", "KES -", "KES" + " " * 200_000 + "x"])
def test_a_balance_that_cannot_be_read(text: str) -> None:
    with (
        account(EXAMPLES, Answer(200, {"UserData": {"balance": text}})) as (provider, _),
        pytest.raises(exc.ServerError, match="balance"),
    ):
        provider.balance()


def test_the_sandbox_has_an_address_of_its_own() -> None:
    for user, url in (("sandbox", "https://api.sandbox."), (USER, "https://api.")):
        gateway = Gateway(eager=True)
        made = gateway.add_provider("main", AfricasTalkingProvider, username=user, api_key=KEY)
        assert made.url == url + "africastalking.com"
    with Stub(GOOD) as stub:
        made = gateway.add_provider(
            "other", AfricasTalkingProvider, username="sandbox", api_key=KEY, url=stub.url
        )
        made.send(message())
    assert stub.seen[0].form == PLAIN | {"username": "sandbox"}


def test_a_reason_that_is_no_word_is_not_taken_for_a_code() -> None:
    """It may hold a number."""
    with (
        account(EXAMPLES, answer(text="+15551234567 is no number", status=400)) as (provider, _),
        pytest.raises(exc.RequestError) as caught,
    ):
        provider.send(message())
    assert caught.value.code is None


def test_a_user_can_add_codes_and_statuses() -> None:
    with Stub(answer(recipient(499, "None"))) as stub:
        known = {"codes": {499: exc.CreditError}, "statuses": {"Lost": MessageError}}
        gateway, provider, heard = made(EXAMPLES, stub.url, **known)
        with pytest.raises(exc.CreditError) as caught:
            provider.send(message())
    assert not caught.value.ambiguous
    posts = client_of(gateway)
    for word in ("Lost", "Success"):
        posts.post(f"/{PREFIX}/main/status", data=status(word, None).form)
    assert [each.state for each in heard] == [State.UNDELIVERED, State.DELIVERED]
    assert 499 not in AfricasTalkingProvider.codes  # another account's provider is not changed


def test_a_secret_would_protect_nothing() -> None:
    with pytest.raises(ValueError, match="secret"):
        made(EXAMPLES, "http://127.0.0.1:9", secret="s")


def test_without_redis_a_webhook_is_answered_503() -> None:
    posts, _ = client(Settings(redis_url="redis://127.0.0.1:1/0"))
    for view, hook in (("im", EXAMPLES.webhooks[0]), ("status", EXAMPLES.webhooks[2])):
        assert webhook_status(posts, view, data=hook.form) == 503


def test_meta_of_reports_and_messages() -> None:
    posts, heard = client()
    posts.post(f"/{PREFIX}/main/im", data=INCOMING)
    posts.post(f"/{PREFIX}/main/im", data=INCOMING | {"date": "2026-01-02 03:04:05"})
    posts.post(f"/{PREFIX}/main/status", data=status("Failed", None, "DeliveryFailure").form)
    assert heard[0].rtime.isoformat() == "2026-01-02T03:04:05+00:00"
    assert heard[0].meta["linkId"] == "link-1"
    assert heard[1].meta["date"] == "2026-01-02 03:04:05"
    assert heard[1].rtime.tzinfo is not None
    assert heard[1].rtime != heard[0].rtime.replace(tzinfo=heard[1].rtime.tzinfo)
    assert heard[2].meta == {"networkCode": "63902", "retryCount": "0"}
    for each in heard:
        assert not {"from", "text", "phoneNumber"} & each.meta.keys()
