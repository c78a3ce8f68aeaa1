"""Webhooks of published plugins, through the bundled receivers and the ledger, to the handlers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote_from_bytes

import jwt
import pytest
from flask.testing import FlaskClient
from smsframework_amazon_sns import AmazonSNSProvider
from smsframework_clickatell import ClickatellProvider
from smsframework_gatewayapi import GatewayAPIProvider
from smsframework_pswin import PswinProvider
from smsframework_vianett import VianettProvider

import smsqueue
from receivers import create_app
from smsqueue import IncomingMessage, OutgoingMessage
from tests.compat.carrier import Answer, Carrier
from tests.ledger.bench import Bench

FORM = {"content_type": "application/x-www-form-urlencoded"}
SECRET = "a-secret-of-thirty-two-bytes-or-so"


@pytest.fixture
def client(bench: Bench) -> FlaskClient:
    add: Any = bench.gateway.add_provider
    add("pswin", PswinProvider, user="u", password="p")
    add("gatewayapi", GatewayAPIProvider, key="k", secret="s", jwt_secret=SECRET)
    add("open", GatewayAPIProvider, key="k", secret="s")
    add("clickatell", ClickatellProvider, api_id="1", user="u", password="p")
    add("vianett", VianettProvider, user="u", password="p")
    add("whole", VianettProvider, user="u", password="p", use_prefix=False)
    add("amazon", AmazonSNSProvider, access_key="A", secret_access_key="S", region_name="eu-west-1")
    settings = replace(bench.settings, receiver_prefix=("secret",))
    return create_app(settings, bench.gateway).test_client()


@pytest.fixture
def received(bench: Bench) -> Any:
    """Runs the handlers; returns the message that onReceive got."""
    messages: list[IncomingMessage] = []
    bench.gateway.onReceive.connect(messages.append, name="received")

    def received() -> IncomingMessage:
        bench.run_hooks()
        [message] = messages
        return message

    return received


def release_parked(bench: Bench) -> list[smsqueue.MessageStatus]:
    """End the wait of reports for an unknown message; returns what onStatus gets."""
    for event in bench.events():
        bench.ripe_event(event)
    bench.run_hooks()
    return bench.heard


def signature_headers(secret: str) -> dict[str, str]:
    return {"X-GWAPI-Signature": jwt.encode({"iat": 1}, secret, algorithm="HS256")}


# --- pswin -----------------------------------------------------------------------------------


@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "raw bytes"])
def test_pswin_sends_latin_1(client: FlaskClient, received: Any, escaped: bool) -> None:
    text = "blåbær & rødgrød".encode("latin-1")
    encoded = quote_from_bytes(text).encode() if escaped else text.replace(b"&", b"%26")
    body = b"RCV=2077&SND=%2B4755500001&REF=17&TXT=" + encoded
    answer = client.post("/secret/pswin/im", data=body, **FORM)
    assert (answer.status_code, answer.text) == (200, "OK")
    message = received()
    assert message.body == "blåbær & rødgrød"
    assert (message.src, message.dst, message.msgid) == ("4755500001", "2077", "17")
    # A str, as this plugin sets it.
    assert datetime.strptime(message.rtime, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007


def test_pswin_may_send_fields_in_the_query(client: FlaskClient, received: Any) -> None:
    assert client.get("/secret/pswin/im?RCV=2077&SND=4755500001&TXT=%E5").status_code == 200
    assert received().body == "å"


def test_pswin_reports_a_status_without_a_state(bench: Bench, client: FlaskClient) -> None:
    bench.listen()
    fields = {"RCV": "4755500001", "REF": "17", "STATE": "DELIVRD"}
    assert client.post("/secret/pswin/status", data=fields).status_code == 200
    [status] = release_parked(bench)
    assert (status.msgid, status.status_code, status.state) == ("17", "DELIVRD", None)


def test_a_webhook_without_a_required_field_gets_the_plugins_answer(client: FlaskClient) -> None:
    assert client.post("/secret/pswin/im", data={"RCV": "1"}).status_code == 400
    assert client.post("/secret/pswin/status", data={"RCV": "1"}).status_code == 500
    assert client.get("/secret/vianett/status").status_code == 500


# --- gatewayapi ------------------------------------------------------------------------------


def test_gatewayapi_sends_an_incoming_message(client: FlaskClient, received: Any) -> None:
    webhook = {"id": 9, "msisdn": 4555500001, "receiver": 1204, "message": "JA 👍", "senttime": 1}
    answer = client.post(
        "/secret/gatewayapi/callback", json=webhook, headers=signature_headers(SECRET)
    )
    assert (answer.status_code, answer.text) == (200, "got it!")
    message = received()
    assert (message.src, message.dst, message.body) == ("4555500001", "1204", "JA 👍")
    assert (message.msgid, message.provider) == ("9", "gatewayapi")
    assert message.rtime == datetime(1970, 1, 1, 0, 0, 1)  # noqa: DTZ001  naive, as it sets it


def test_gatewayapi_checks_signatures_if_it_has_a_secret(bench: Bench, client: FlaskClient) -> None:
    webhook = {"id": 9, "msisdn": 4555500001, "receiver": 1204, "message": "JA", "senttime": 1}
    wrong = signature_headers("another-secret-of-thirty-two-bytes")
    assert (
        client.post("/secret/gatewayapi/callback", json=webhook, headers=wrong).status_code == 403
    )
    assert bench.events() == []
    assert client.post("/secret/open/callback", json=webhook).status_code == 200


@pytest.mark.parametrize(
    ("reported", "state", "kind"),
    [
        ("ENROUTE", "accepted", smsqueue.MessageAccepted),
        ("DELIVERED", "delivered", smsqueue.MessageDelivered),
        ("EXPIRED", "expired", smsqueue.MessageExpired),
        ("REJECTED", "undelivered", smsqueue.MessageError),
        ("NEWSPEAK", "sent", None),
    ],
)
def test_gatewayapi_reports_a_status(
    bench: Bench,
    client: FlaskClient,
    carrier: Carrier,
    reported: str,
    state: str,
    kind: type[smsqueue.MessageStatus] | None,
) -> None:
    reports = bench.listen()
    carrier.then(Answer('{"ids": [421332671]}'))
    message = OutgoingMessage("4555500001", "hi", provider="open").options(status_report=True)
    id = bench.gateway.send(message.options(context={"order": 7})).id or ""
    bench.deliver(id)
    webhook = {"id": 421332671, "msisdn": 4555500001, "time": 1450000000, "status": reported}
    for _ in range(2):  # the repetition has no effect
        assert client.post("/secret/open/callback", json=webhook).status_code == 200
    bench.run_hooks()
    assert bench.state(id) == state
    [status] = reports
    assert type(status) is (kind or smsqueue.MessageStatus)
    assert (status.id, status.context) == (id, {"order": 7})
    assert status.status == (reported.title() if kind else None)


# --- clickatell ------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["UTF-8", "ISO-8859-1", "UTF-16BE"])
def test_clickatell_texts_are_decoded_by_their_charset(
    client: FlaskClient, received: Any, charset: str
) -> None:
    text = quote_from_bytes("grün & blau".encode(charset))
    query = f"api_id=1&moMsgId=m1&from=4915550001&to=123&charset={charset}&udh=&text={text}"
    query += "&timestamp=2008-08-06+09:43:50"
    assert client.get(f"/secret/clickatell/im?{query}").text == "OK"
    message = received()
    assert (message.body, message.src, message.msgid) == ("grün & blau", "4915550001", "m1")
    assert message.rtime == datetime(2008, 8, 6, 7, 43, 50)  # noqa: DTZ001


@pytest.mark.parametrize(("code", "state"), [("4", "delivered"), ("7", "undelivered")])
def test_clickatell_reports_of_unknown_messages_reach_on_status(
    bench: Bench, client: FlaskClient, code: str, state: str
) -> None:
    """Messages that were sent before a migration are still reported."""
    bench.listen()
    fields = {"from": "1", "to": "2", "status": code, "api_id": "1", "moMsgId": "m", "charge": "1"}
    assert client.post("/secret/clickatell/status", data=fields).text == "OK"
    [status] = release_parked(bench)
    assert (status.id, status.state, status.provider) == (None, state, "clickatell")
    assert status.status_code == int(code)


# --- vianett ---------------------------------------------------------------------------------

VIANETT = "sourceaddr=4755500001&destinationaddr=1963&refno=5&retrycount=0&operator=1&replypathid=0"


@pytest.mark.parametrize(("name", "text"), [("vianett", "me now"), ("whole", "CALL me now")])
def test_vianett_sends_an_incoming_message(
    client: FlaskClient, received: Any, name: str, text: str
) -> None:
    answer = client.get(f"/secret/{name}/im?{VIANETT}&prefix=CALL&message=me+now")
    assert answer.text == '<ack refno="5" errorcode="0" />'
    message = received()
    assert (message.body, message.provider, message.msgid) == (text, name, "5")


def test_vianett_reports_a_status(bench: Bench, client: FlaskClient) -> None:
    bench.listen()
    query = "refno=5&requesttype=mtstatus&errorcode=0&msgok=True"
    assert client.get(f"/secret/vianett/status?{query}").status_code == 200
    [status] = release_parked(bench)
    assert (status.state, status.msgid, status.id) == ("delivered", "5", None)


# --- All plugins -----------------------------------------------------------------------------


def test_a_plugin_that_cannot_receive_has_no_webhooks(client: FlaskClient, bench: Bench) -> None:
    assert client.get("/secret/amazon/im").status_code == 404
    with pytest.raises(NotImplementedError):
        bench.gateway.receiver_blueprint_for("amazon")


def test_without_redis_a_webhook_is_answered_503(
    client: FlaskClient, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any, **options: Any) -> Any:
        raise smsqueue.exc.QueueUnavailable("away")

    monkeypatch.setattr(bench.gateway.ledger, "receive", away)
    answer = client.get(f"/secret/vianett/im?{VIANETT}&prefix=CALL&message=me")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")


def test_several_prefixes_and_applications_share_a_plugins_blueprint(bench: Bench) -> None:
    bench.gateway.add_provider("vianett", VianettProvider, user="u", password="p")
    settings = replace(bench.settings, receiver_prefix=("prefix1", "prefix2"))
    for _ in range(2):
        client = create_app(settings, bench.gateway).test_client()
        for prefix in ("prefix1", "prefix2"):
            path = f"/{prefix}/vianett/im?{VIANETT}&prefix=CALL&message=me"
            assert client.get(path).status_code == 200
