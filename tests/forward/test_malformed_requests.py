"""The receivers refuse malformed and malicious documents."""

from __future__ import annotations

import json

import pytest

from smsqueue import OutgoingMessage, exc
from tests.forward.actions import post_signed
from tests.forward.side import Side, connect


def nested(levels: int, inside: str = "1") -> str:
    return "[" * levels + inside + "]" * levels


DOCUMENTS = [
    b"",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"smsqueue": 1, "message": {"dst": NaN, "body": "x"}}',
    b'{"smsqueue": 1, "message": {"dst": "1", "body": "x", "params": {"a": NaN}}}',
    f'{{"smsqueue": 1, "message": {{"dst": "1", "body": "x", "route": {nested(30)}}}}}'.encode(),
    b'{"smsqueue": 1}',
    b'{"smsqueue": 1, "message": 7}',
    b'{"smsqueue": 1, "message": {"dst": 15551, "body": "x"}}',
    b'{"smsqueue": 1, "message": {"dst": "15551", "body": null}}',
    b'{"smsqueue": 1, "message": {"dst": "15551", "body": "x", "options": {"expires": "soon"}}}',
    b'{"smsqueue": 1, "message": {"dst": "1", "body": "x", "options": {"allow_reply": []}}}',
    b'{"smsqueue": 1, "message": {"dst": "1", "body": "x"}, "hops": [1]}',
    b'{"smsqueue": 1, "message": {"dst": "1", "body": "x"}, "hops": {"a": 1}}',
    b'{"smsqueue": 1, "message": {"dst": "1", "body": "x"}, "id": ["x"]}',
    b'{"smsqueue": 2, "message": {"dst": "1", "body": "x"}}',
    b'{"smsqueue": true, "message": {"dst": "1"}}',
    b'{"message": {"?": ["OutgoingMessage"]}}',
    b'{"message": {"?": ["OutgoingMessage", []]}}',
    b'{"message": {"?": [["OutgoingMessage"], {"dst": "1", "body": "x"}]}}',
    b'{"message": {"?E": ["SystemExit", [1]]}}',
    b'{"message": {"?": ["OutgoingMessage", {"dst": "1", "body": {"?": ["date", "x"]}}]}}',
    f'{{"smsqueue": 1, "message": {nested(30)}}}'.encode(),
    f'{{"smsqueue": 1, "message": {nested(30_000)}}}'.encode(),
    f'{{"message": {{"?": ["OutgoingMessage", {{"dst": "1", "body": {nested(99)}}}]}}}}'.encode(),
]


@pytest.mark.parametrize("body", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_a_malformed_document_is_refused_and_nothing_is_sent(
    eager_client: Side, eager_server: Side, body: bytes
) -> None:
    _, carrier = connect(eager_client, eager_server)
    status, _ = post_signed(eager_server, body)
    assert status in (400, 501)
    assert not carrier.calls


def test_a_document_that_is_too_long_is_refused(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect(eager_client, eager_server)
    document = {"smsqueue": 1, "message": {"dst": "1", "body": "x" * 300_000}}
    assert post_signed(eager_server, json.dumps(document).encode())[0] == 413
    with pytest.raises(exc.RequestError, match="bytes"):
        eager_client.gateway.send(OutgoingMessage("1555", "hi").params(pad="x" * 300_000))
    assert not carrier.calls


def test_only_known_fields_are_read(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect(eager_client, eager_server)
    sent: list[OutgoingMessage] = []
    carrier.then(sent.append, sent.append)
    evil = {"dst": "1", "body": "x", "id": "evil", "send": "evil", "__class__": "evil"}
    options = {"escalate": True, "update": "evil", "idempotency_key": "evil", "context": {"e": 1}}
    own = {"smsqueue": 1, "message": evil | {"options": options, "unconfirmed_id": "evil"}}
    fields = evil | {"provider_options": {"?": ["OutgoingMessageOptions", options]}}
    fields |= {"provider": "evil", "msgid": "evil", "reference": "evil", "derived_key": "evil"}
    smsframework = {"message": {"?": ["Popen", fields]}}
    for document in (own, smsframework):
        assert post_signed(eager_server, json.dumps(document).encode())[0] == 200
    for message in sent:
        assert "evil" not in repr((vars(message), vars(message.provider_options)))
        assert message.provider_options.escalate
        assert callable(message.provider_options.update)


def test_an_unknown_version_is_refused_with_the_remedy(
    eager_client: Side, eager_server: Side
) -> None:
    connect(eager_client, eager_server)
    status, text = post_signed(
        eager_server, json.dumps({"smsqueue": 2, "message": {"dst": "1", "body": "x"}}).encode()
    )
    assert (status, json.loads(text)["error"]["class"]) == (501, "UnsupportedError")
    assert "upgrade" in text
