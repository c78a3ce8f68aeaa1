"""Authentication of requests, replays, and what clients may send."""

from __future__ import annotations

import hmac
import json
import time
from contextlib import nullcontext
from typing import Any

import pytest
import requests

from smsqueue import Gateway, IncomingMessage, OutgoingMessage, exc
from smsqueue.providers.forward import ForwardClientProvider, ForwardServerProvider
from smsqueue.providers.forward.auth import SIGNATURE, TIME, Signer
from smsqueue.settings import SettingsError
from tests.forward.actions import post, post_signed
from tests.forward.side import SECRET, Side, connect
from tests.ledger.bench import Told

MESSAGE = {"smsqueue": 1, "message": {"dst": "1555", "body": "hi"}}


def test_only_signed_requests_are_accepted(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect(eager_client, eager_server)
    body = json.dumps(MESSAGE).encode()
    headers = Signer(SECRET).headers("server/im", body)
    assert post(eager_server, "forward/im", body) == 403
    assert post(eager_server, "forward/im", body + b" ", headers) == 403
    assert post(eager_server, "forward/im", body, headers | {TIME: "1" + headers[TIME]}) == 403
    assert post(eager_server, "forward/im", body, {SIGNATURE: headers[SIGNATURE]}) == 403
    assert post(eager_server, "forward/im", body, headers | {SIGNATURE: "v1=é"}) == 403
    assert post_signed(eager_server, body, "another secret")[0] == 403
    # A signature for another purpose is not valid.
    assert post_signed(eager_server, body, purpose="client/im")[0] == 403
    assert not carrier.calls
    assert post(eager_server, "forward/im", body, headers) == 200
    assert len(carrier.calls) == 1


@pytest.mark.parametrize("shift", [-86400, -400, 400, 86400])
def test_a_request_outside_the_window_is_refused(
    eager_client: Side, eager_server: Side, shift: int
) -> None:
    _, carrier = connect(eager_client, eager_server)
    body = json.dumps(MESSAGE).encode()
    signer = Signer(SECRET, clock=lambda: time.time() + shift)
    headers = signer.headers("server/im", body)
    assert post(eager_server, "forward/im", body, headers) == 403
    assert not carrier.calls


@pytest.mark.parametrize(("shift", "good"), [(-301, 0), (-300, 1), (300, 1), (301, 0)])
def test_the_window_includes_its_limits(shift: int, good: int) -> None:
    now = [1_800_000_000]
    signer = Signer(SECRET, clock=lambda: now[0])
    headers = signer.headers("server/im", b"{}")
    now[0] -= shift
    with nullcontext() if good else pytest.raises(PermissionError):
        signer.verify("server/im", b"{}", headers)


@pytest.mark.parametrize(
    ("digest", "scheme"),
    [("md5", "v1="), ("sha1", "v1="), ("sha512", "v1="), ("sha256", "v2="), ("sha256", "")],
)
def test_another_algorithm_is_refused(
    eager_client: Side, eager_server: Side, digest: str, scheme: str
) -> None:
    _, carrier = connect(eager_client, eager_server)
    body = json.dumps(MESSAGE).encode()
    now = str(int(time.time()))
    text = f"smsqueue-forward-1\nserver/im\n{now}\n".encode() + body
    signature = scheme + hmac.new(SECRET.encode(), text, digest).hexdigest()
    assert post(eager_server, "forward/im", body, {TIME: now, SIGNATURE: signature}) == 403
    assert not carrier.calls


@pytest.mark.parametrize("timestamp", ["", "now", "1e9", "-5", "\u0661", "9" * 16, "1.0"])
def test_an_invalid_timestamp_is_refused_though_it_is_signed(timestamp: str) -> None:
    head = f"smsqueue-forward-1\nserver/im\n{timestamp}\n".encode()
    digest = hmac.new(SECRET.encode(), head + b"{}", "sha256").hexdigest()
    with pytest.raises(PermissionError, match="invalid timestamp"):
        Signer(SECRET).verify("server/im", b"{}", {TIME: timestamp, SIGNATURE: f"v1={digest}"})


@pytest.mark.parametrize("kind", ["cut off", "too long"])
def test_a_changed_body_is_refused(eager_client: Side, eager_server: Side, kind: str) -> None:
    _, carrier = connect(eager_client, eager_server)
    body = json.dumps(MESSAGE).encode()
    headers = Signer(SECRET).headers("server/im", body)
    sent = body[:-1] if kind == "cut off" else body + b"}"
    assert post(eager_server, "forward/im", sent, headers) == 403
    assert not carrier.calls


def test_the_first_of_several_secrets_signs(eager_client: Side, eager_server: Side) -> None:
    secrets = ["new", "old"]
    _, carrier = connect(
        eager_client, eager_server, secret=secrets, client_options={"secret": "new"}
    )
    carrier._receive_message(IncomingMessage("1555", "YES"))
    assert len(eager_client.received) == 1


def test_a_replayed_message_is_sent_once(client: Side, server: Side) -> None:
    _, carrier = connect(client, server)
    id = client.send()
    client.deliver()
    first = client.gateway.lookup(id).msgid
    answer = server.repeat()
    assert (answer.status_code, answer.json()["taken"]["id"]) == (200, first)
    server.deliver()
    assert len(carrier.calls) == 1


def test_a_replayed_event_reaches_the_handlers_once_without_a_ledger(
    eager_client: Side, eager_server: Side
) -> None:
    _, carrier = connect(eager_client, eager_server)
    carrier._receive_message(IncomingMessage("1555", "YES"))
    assert eager_client.repeat().status_code == 200
    assert len(eager_client.received) == 1


def test_secrets_can_be_exchanged_on_one_side_first(eager_client: Side, eager_server: Side) -> None:
    options = {"secret": ["new", "old"]}
    connect(eager_client, eager_server, client_options={"secret": "old"}, **options)
    eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    body = json.dumps(MESSAGE).encode()
    assert post_signed(eager_server, body, "new")[0] == 200
    assert post_signed(eager_server, body, "older")[0] == 403
    url = f"http://127.0.0.1:{eager_client.port}/hook/remote/status"
    report = json.dumps({"smsqueue": 1, "status": {"class": "MessageDelivered"}}).encode()
    for secret, expected in (("new", 403), ("old", 200)):
        headers = Signer(secret).headers("client/status", report)
        assert requests.post(url, data=report, headers=headers, timeout=60).status_code == expected


@pytest.mark.parametrize(
    ("user", "password", "in_url"),
    [
        ("shop", "p@ss:w/o%rd", "shop:p%40ss%3Aw%2Fo%25rd"),
        ("zoë", "ключ", "zo%C3%AB:%D0%BA%D0%BB%D1%8E%D1%87"),
    ],
)
def test_basic_credentials_in_urls_are_percent_decoded(
    make_side: Any, user: str, password: str, in_url: str
) -> None:
    client, server = make_side(eager=True), make_side(eager=True)
    users = {user: password, "other": "x"}
    carrier = server.gateway.add_provider("carrier", Told)
    server.gateway.add_provider(
        "forward", ForwardServerProvider, clients=[client.url("remote", in_url)], users=users
    )
    url = server.url("forward", in_url)
    remote = client.gateway.add_provider(
        "remote", ForwardClientProvider, server_url=url, users=users
    )
    for side in (client, server):
        side.listen()
        side.serve()
    client.gateway.send(OutgoingMessage("1555", "hi"))
    carrier._receive_message(IncomingMessage("1555", "YES"))
    assert [message.body for message in client.received] == ["YES"]
    body = json.dumps(MESSAGE).encode()
    assert requests.post(server.url("forward") + "/im", data=body, timeout=60).status_code == 403
    for wrong in ((user, "no"), ("nobody", password), ("", "")):
        auth = (wrong[0].encode(), wrong[1].encode())
        answer = requests.post(server.url("forward") + "/im", data=body, auth=auth, timeout=60)
        assert answer.status_code == 403
    assert password not in repr(vars(remote))
    assert in_url not in repr(vars(remote))


def test_a_wrong_secret_raises_auth_error_at_the_client(
    eager_client: Side, eager_server: Side
) -> None:
    connect(eager_client, eager_server, client_options={"secret": "wrong"})
    with pytest.raises(exc.AuthError) as caught:
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert not caught.value.ambiguous


@pytest.mark.parametrize(
    ("provider_class", "urls"),
    [
        (ForwardServerProvider, {"clients": ["http://127.0.0.1:9/"]}),
        (ForwardClientProvider, {"server_url": "http://user:password@127.0.0.1:9/"}),
    ],
)
def test_a_receiver_without_protection_is_refused(
    provider_class: Any, urls: dict[str, Any]
) -> None:
    def make(**options: Any) -> object:
        gateway = Gateway(eager=True)
        gateway.add_provider("far", provider_class, **urls, **options)
        return gateway.receiver_blueprint_for("far")

    with pytest.raises(SettingsError, match=r"'far'.*secret='...'.*users=.*insecure=True"):
        make()
    for empty in ({"secret": ""}, {"secret": []}, {"secret": ["", "x"]}, {"users": {"a": ""}}):
        with pytest.raises(SettingsError, match="empty"):
            make(**empty)
    for options in ({"secret": "x"}, {"users": {"a": "b"}}, {"insecure": True}):
        assert make(**options)
    with pytest.raises(SettingsError, match="speak"):
        make(secret="x", speak="klingon")


@pytest.mark.parametrize("fields", [{}, {"id": None}])
def test_a_message_without_an_id_is_sent_once(
    client: Side, server: Side, fields: dict[str, Any]
) -> None:
    """Its signature identifies it: the same text with a new signature is another message."""
    _, carrier = connect(client, server)
    body, signer = json.dumps(MESSAGE | fields).encode(), Signer(SECRET)
    first = signer.headers("server/im", body)
    answers = [post(server, "forward/im", body, first) for _ in range(3)]
    assert answers == [200, 200, 200]
    server.deliver()
    assert len(carrier.calls) == 1
    assert post(server, "forward/im", body, signer.headers("server/im", body)) == 200
    server.deliver()
    assert len(carrier.calls) == 2


def test_an_event_without_an_id_is_recorded_once(client: Side, server: Side) -> None:
    connect(client, server)
    event = {"smsqueue": 1, "message": {"src": "1555", "body": "YES", "dst": "777"}}
    body, signer = json.dumps(event).encode(), Signer(SECRET)
    first = signer.headers("client/im", body)
    second = signer.headers("client/im", body)
    for headers in (first, first, first, second):
        assert post(client, "remote/im", body, headers) == 200
    client.deliver()
    assert [message.body for message in client.received] == ["YES", "YES"]


@pytest.mark.parametrize("eager", [True, False])
def test_clients_may_use_only_the_allowed_parameters_and_senders(
    make_side: Any, eager: bool
) -> None:
    client, server = make_side(eager=eager), make_side(eager=eager)
    allowed = {"params": ["validity"], "senders": ["Shop", "+1 555 000 9999"]}
    connect(client, server, **allowed)

    def send(**fields: Any) -> int:
        document = {"smsqueue": 1, "message": {"dst": "1555", "body": "hi"} | fields}
        return post_signed(server, json.dumps(document).encode())[0]

    assert send() == 200
    assert send(params={"validity": 5}, src="15550009999") == 200
    assert send(options={"senderId": "Shop"}) == 200
    for refused in (
        {"params": {"to": "15559998888"}},
        {"params": {"validity": 5, "Validity": 6}},
        {"src": "15550001111"},
        {"src": "shop"},
        {"src": "Shop", "options": {"senderId": "Bank"}},
    ):
        assert send(**refused) == 400, refused
