"""smsframework's JSON with objects: we read what it writes, and write what it reads."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest
import smsframework
import smsframework.exc
from smsframework.providers.forward.provider import jsonex_dumps as smsframework_dumps

from smsqueue import IncomingMessage, MessageError, MessageStatus, OutgoingMessage, exc
from smsqueue.providers.forward.provider import jsonex_dumps, jsonex_loads

AT = datetime.fromisoformat("2026-02-03T13:32:07.912064")


def test_data_that_smsframework_wrote_is_read() -> None:
    message = smsframework.IncomingMessage("555", "hi", "m1", "777", AT, {"at": AT, "z": [1]})
    sent = smsframework.OutgoingMessage("+1 (234)", "hi", src="abc").params(x=1).route("a", 2)
    sent.options(senderId="me", expires=5)
    status = smsframework.MessageError("c1", AT, {"q": 2})
    status.status_code = 9
    data = {"message": message, "sent": sent, "statuses": [status], "n": None}
    data["error"] = smsframework.exc.LimitsError("slow", 7)
    read: Any = jsonex_loads(smsframework_dumps(data))
    incoming = read["message"]
    assert type(incoming) is IncomingMessage
    fields = (incoming.src, incoming.body, incoming.msgid, incoming.dst)
    assert fields == ("555", "hi", "m1", "777")
    assert (incoming.rtime, incoming.meta) == (AT.replace(tzinfo=UTC), {"at": AT, "z": [1]})
    assert type(read["sent"]) is OutgoingMessage
    assert (read["sent"].dst, read["sent"].routing_values) == ("1234", ("a", 2))
    assert vars(read["sent"].provider_options) == {"senderId": "me", "expires": 5}
    [reported] = read["statuses"]
    assert type(reported) is MessageError
    assert (reported.msgid, reported.status_code, reported.meta) == ("c1", 9, {"q": 2})
    assert type(read["error"]) is exc.LimitsError
    assert read["error"].args == ("slow", 7)
    assert read["n"] is None


def test_data_that_we_wrote_is_read_again() -> None:
    report = MessageError("c1", AT.replace(tzinfo=UTC), {"at": AT})
    report.status, report.provider = "bad", "main"
    zone = timezone(timedelta(hours=2))
    values = [AT, AT.replace(microsecond=0, tzinfo=zone), date(2026, 2, 3), time(4, 5)]
    read: Any = jsonex_loads(jsonex_dumps({"report": report, "values": values, "ü": "ü"}).decode())
    assert (read["values"], read["ü"]) == (values, "ü")
    loaded = read["report"]
    assert (type(loaded), loaded.status, loaded.provider) == (MessageError, "bad", "main")
    assert (loaded.rtime, loaded.meta, loaded.error) == (report.rtime, {"at": AT}, True)


def test_times_are_written_as_smsframework_reads_them() -> None:
    """It reads no time without a fraction, and none with a zone."""
    whole = AT.replace(microsecond=0, tzinfo=UTC)
    message = IncomingMessage("555", "hi", rtime=whole)
    fields = json.loads(jsonex_dumps(message))["?"][1]
    assert fields["rtime"] == {"?": ["datetime", "2026-02-03T13:32:07.000000"]}


def test_subclasses_are_written_as_their_nearest_known_class() -> None:
    class Own(MessageError):
        pass

    assert json.loads(jsonex_dumps(Own("1")))["?"][0] == "MessageError"
    assert type(jsonex_loads(jsonex_dumps(exc.QueueUnavailable("x")))) is exc.ConnectionError
    document = '{"?": ["ClickatellMessageStatus", {"msgid": "1"}]}'
    assert type(jsonex_loads(document)) is MessageStatus


def test_objects_of_unknown_classes_stay_data() -> None:
    class Thing:
        def __init__(self) -> None:
            self.a = 1

    assert jsonex_loads(jsonex_dumps(Thing())) == {"?": ["Thing", {"a": 1}]}
    error: Any = jsonex_loads(jsonex_dumps(ValueError("no")))
    assert (type(error), error.args) == (RuntimeError, ("no",))
    extra = '{"?": ["IncomingMessage", {"src": "1", "body": "x", "reply": "own", "__class__": 1}]}'
    assert "reply" not in vars(jsonex_loads(extra))


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "[" * 100_000,
        "[" * 40 + "]" * 40,
        b"\xff\xfe",
        '{"?": ["datetime", 5]}',
        '{"?": ["datetime", "yesterday"]}',
        '{"?": ["IncomingMessage", {"body": "x"}]}',
        '{"?": ["IncomingMessage", []]}',
        '{"?": ["MessageError", {"msgid": "1", "rtime": "now"}]}',
        '{"?": ["MessageError", {"msgid": "1", "error": "yes"}]}',
    ],
)
def test_malformed_documents_are_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        jsonex_loads(text)


def test_values_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(TypeError, match="a set cannot be written"):
        jsonex_dumps({"a": {1, 2}})
