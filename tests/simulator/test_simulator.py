"""The carrier simulator: the behavior of each magic number, over HTTP."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from smsqueue.message.states import State
from smsqueue.providers.simulator import SIGNATURE_HEADER, sign
from smsqueue.simulator import NUMBERS, Number, Simulator, number_for
from smsqueue.simulator import __main__ as command

TOKEN = "secret"
BY_NAME = {n.name: n for n in NUMBERS}


class Receiver:
    """Receives webhooks; the first ones are answered with the statuses in ``refusals``."""

    def __init__(self) -> None:
        self.got: queue.Queue[tuple[str, dict[str, Any], bool]] = queue.Queue()
        self.refusals: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signed = self.headers[SIGNATURE_HEADER] == sign(TOKEN, body)
                status = receiver.refusals.pop(0) if receiver.refusals else 204
                if status == 204:  # before the answer: a test may read it at once
                    receiver.got.put((self.path, json.loads(body), signed))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def next(self) -> tuple[str, dict[str, Any]]:
        path, fields, signed = self.got.get(timeout=30)
        assert signed
        return path, fields

    def states(self, count: int) -> list[str]:
        return [self.next()[1]["state"] for _ in range(count)]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def simulator(receiver: Receiver) -> Iterator[Simulator]:
    webhooks = {name: f"{receiver.url}/{name}" for name in ("main", "backup")}
    with Simulator(webhooks, TOKEN) as made:
        yield made


def post(
    simulator: Simulator, name: str, account: str = "main", token: str = TOKEN, **fields: Any
) -> requests.Response:
    to = next(iter(BY_NAME[name].numbers(1)))
    message = {"to": to, "from": "1999", "text": "hi", "reference": "m1.1", "report": True}
    return requests.post(
        f"{simulator.url}/messages", json=message | fields, auth=(account, token), timeout=30
    )


def accepted(simulator: Simulator) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = requests.get(f"{simulator.url}/accepted", timeout=30).json()
    return messages


def test_numbers_are_a_hundred_each_and_do_not_overlap() -> None:
    every = [one for number in NUMBERS for one in number.numbers(500)]
    assert len(set(every)) == len(every) == 100 * len(NUMBERS)
    for number in NUMBERS:
        assert {number_for(one) for one in number.numbers(100)} == {number}
        assert number.final_state in State
    assert number_for("4915112345678") is BY_NAME["delivered"]
    assert number_for("") is BY_NAME["delivered"]


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("delivered", ["accepted", "delivered"]),
        ("expires", ["accepted", "expired"]),
        ("disorder", ["delivered", "accepted", "delivered", "accepted"]),
        ("replies", ["accepted", "delivered"]),
    ],
)
def test_reports(simulator: Simulator, receiver: Receiver, name: str, states: list[str]) -> None:
    answer = post(simulator, name, allow_reply=False)
    assert answer.status_code == 202
    for state in states:
        path, fields = receiver.next()
        assert path == "/main/status"
        assert (fields["id"], fields["reference"]) == (answer.json()["id"], "m1.1")
        assert fields["state"] == state


def test_no_report_unless_it_was_requested(simulator: Simulator, receiver: Receiver) -> None:
    assert post(simulator, "delivered", report=False).status_code == 202
    assert post(simulator, "delivered", reference="m2.1").status_code == 202
    assert {receiver.next()[1]["reference"] for _ in range(2)} == {"m2.1"}


def test_early_report_overtakes_the_answer(simulator: Simulator, receiver: Receiver) -> None:
    post(simulator, "early report")
    assert receiver.got.get_nowait()[1]["state"] == "delivered"


def test_broken_twice_for_each_message(simulator: Simulator) -> None:
    for message in ("m1", "m2", "m1"):
        for attempt, status in ((1, 500), (2, 500), (3, 202)):
            answer = post(simulator, "broken twice", reference=f"{message}.{attempt}")
            assert answer.status_code == status
            assert status == 202 or answer.json()["error"]["code"] == "broken"
    assert len(accepted(simulator)) == 3


def test_throttling_sets_retry_after(simulator: Simulator) -> None:
    answer = post(simulator, "throttled")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.json()["error"]["code"] == "throttled"
    assert accepted(simulator) == []


def test_only_the_second_account_has_credit(simulator: Simulator) -> None:
    assert post(simulator, "no credit").status_code == 402
    assert post(simulator, "no credit", "backup").status_code == 202
    assert [entry["account"] for entry in accepted(simulator)] == ["backup"]


def test_refused_each_time(simulator: Simulator) -> None:
    assert {post(simulator, "refused").status_code for _ in range(4)} == {400}
    assert accepted(simulator) == []


@pytest.mark.parametrize("name", ["answer lost", "silent"])
def test_lost_answer_leaves_the_message_accepted(
    simulator: Simulator, receiver: Receiver, name: str
) -> None:
    with pytest.raises(requests.ConnectionError):
        post(simulator, name)
    assert [entry["reference"] for entry in accepted(simulator)] == ["m1.1"]
    if BY_NAME[name].reports:
        assert receiver.states(2) == ["accepted", "delivered"]


def test_a_number_replies_once(simulator: Simulator, receiver: Receiver) -> None:
    to = next(iter(BY_NAME["replies"].numbers(1)))
    for reference in ("m1.1", "m2.1"):
        post(simulator, "replies", report=False, reference=reference)
    path, fields = receiver.next()
    assert path == "/main/im"
    assert (fields["from"], fields["to"]) == (to, "1999")
    post(simulator, "delivered", reference="m3.1")  # the next webhook belongs to this message
    assert receiver.next()[1]["reference"] == "m3.1"


def test_no_reply_if_the_message_allows_none(simulator: Simulator, receiver: Receiver) -> None:
    post(simulator, "replies", report=False, allow_reply=False)
    post(simulator, "delivered", reference="m2.1")
    assert receiver.next()[1]["reference"] == "m2.1"


def test_webhooks_are_repeated_until_they_are_answered_2xx(
    simulator: Simulator, receiver: Receiver
) -> None:
    receiver.refusals += [503, 500, 302]
    post(simulator, "early report")
    assert receiver.states(1) == ["delivered"]


def test_account_without_webhooks(simulator: Simulator, receiver: Receiver) -> None:
    assert post(simulator, "early report", "other").status_code == 202
    assert receiver.got.empty()


def test_wrong_token(simulator: Simulator) -> None:
    assert post(simulator, "delivered", token="wrong").status_code == 401
    assert requests.post(f"{simulator.url}/messages", json={}, timeout=30).status_code == 401
    assert accepted(simulator) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"{", b'{"to": 5, "text": "x"}'])
def test_malformed_message(simulator: Simulator, body: bytes) -> None:
    answer = requests.post(f"{simulator.url}/messages", data=body, auth=("main", TOKEN), timeout=30)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["code"] == "malformed"


def test_accepted_numbers_are_masked(simulator: Simulator) -> None:
    post(simulator, "delivered", report=False)
    assert accepted(simulator)[0]["to"] == "1555*****00"


def test_command_line() -> None:
    assert command.webhook("http://h/p/main") == ("main", "http://h/p/main")
    assert command.webhook("backup=http://h/p?a=b") == ("backup", "http://h/p?a=b")
    with pytest.raises(SystemExit):
        command.main(["--webhook", "backup=h/p"])


def test_number_shows_its_pattern() -> None:
    assert isinstance(BY_NAME["silent"], Number)
    assert BY_NAME["silent"].pattern == "+155500009xx"
