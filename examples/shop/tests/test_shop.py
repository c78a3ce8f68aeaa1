"""What a customer sees, and what the shop sends."""

from __future__ import annotations

import re
import sqlite3
import time

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shop import codes
from smsqueue.exc import QueueUnavailable
from smsqueue.testing import Outbox

NUMBER = "+1 555 000 0101"


def ask(client: FlaskClient, number: str = NUMBER, form: str = "") -> TestResponse:
    """Fill in the number on a new page, or on one that is open."""
    return client.post("/code", data={"number": number, "form": form or open_page(client)})


def open_page(client: FlaskClient) -> str:
    [form] = re.findall(r'name="form" value="([^"]+)"', client.get("/").text)
    return str(form)


def digits(outbox: Outbox) -> str:
    return outbox.last.body.rpartition(" ")[2]


def verify(client: FlaskClient, code: str) -> int:
    return client.post("/verify", data={"code": code}).status_code


def test_a_customer_logs_in_with_the_code(client: FlaskClient, outbox: Outbox) -> None:
    answer = ask(client)
    assert (answer.status_code, answer.location) == (303, "/code")
    assert "on its way" in client.get("/code").text
    [sent] = outbox.to(NUMBER)
    assert (sent.provider, sent.provider_options.expires) == ("primary", 5)
    assert sent.provider_options.status_report is True
    assert "logged in" in client.post("/verify", data={"code": digits(outbox)}).text


def test_a_code_is_good_once(client: FlaskClient, outbox: Outbox, app: Flask) -> None:
    ask(client)
    with client.session_transaction() as session:
        code = session["code"]
    assert verify(client, digits(outbox)) == 200
    with client.session_transaction() as session:
        session["code"] = code
    assert verify(client, digits(outbox)) == 403


def test_guessing_ends_after_a_few_times(client: FlaskClient, outbox: Outbox) -> None:
    ask(client)
    assert [verify(client, "wrong") for _ in range(codes.GUESSES)] == [403] * codes.GUESSES
    assert verify(client, digits(outbox)) == 403


def test_a_code_expires(
    client: FlaskClient, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(client)
    later = time.time() + codes.VALID_MINUTES * 60 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert verify(client, digits(outbox)) == 403


def test_the_code_is_stored_as_a_hash(client: FlaskClient, outbox: Outbox, app: Flask) -> None:
    ask(client)
    with sqlite3.connect(app.config["DATABASE"]) as database:
        dump = "\n".join(database.iterdump())
    database.close()
    assert "codes" in dump
    assert f"'{digits(outbox)}'" not in dump


def test_a_double_click_sends_one_code(client: FlaskClient, outbox: Outbox) -> None:
    form = open_page(client)
    assert ask(client, form=form).status_code == ask(client, form=form).status_code == 303
    assert len(outbox) == 1
    assert verify(client, digits(outbox)) == 200


def test_a_new_page_sends_another_code_but_not_many(client: FlaskClient, outbox: Outbox) -> None:
    answers = [ask(client).status_code for _ in range(codes.CODES + 1)]
    assert answers == [303] * codes.CODES + [429]
    assert len({sent.body for sent in outbox}) == codes.CODES
    assert ask(client, "+1 555 000 0202").status_code == 303


@pytest.mark.parametrize("number", ["", "hello", "12345", "1" * 16])
def test_what_is_no_number_is_refused(client: FlaskClient, outbox: Outbox, number: str) -> None:
    assert ask(client, number).status_code == 400
    assert outbox == []


def test_a_form_of_somebody_else_is_refused(client: FlaskClient, outbox: Outbox) -> None:
    assert ask(client, form="made up").status_code == 400
    assert client.get("/code").location == "/"
    assert verify(client, "000000") == 403
    assert outbox == []


def test_without_the_queue_the_customer_may_press_again(
    client: FlaskClient, outbox: Outbox
) -> None:
    outbox.fail(QueueUnavailable("Redis is away"))
    form = open_page(client)
    answer = ask(client, form=form)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "press the button again" in answer.text
    assert form in answer.text
    assert outbox == []
    assert ask(client, form=form).status_code == 303
    assert len(outbox) == 1


def test_the_page_tells_what_became_of_the_message(client: FlaskClient, outbox: Outbox) -> None:
    ask(client)
    outbox.report(outbox.last, "accepted")
    assert client.get("/code/state").json == {"state": "on its way"}
    outbox.report(outbox.last, "delivered")
    outbox.report(outbox.last, "expired")  # too late
    assert client.get("/code/state").json == {"state": "delivered"}
    assert "was delivered" in client.get("/code").text
    ask(client)
    outbox.report(outbox.last, "failed")
    assert "could not be delivered" in client.get("/code").text


def test_stop_and_start(client: FlaskClient, outbox: Outbox) -> None:
    ask(client)
    outbox.reply(outbox.last, " stop ")
    assert "no more messages" in outbox.last.body
    assert ask(client).status_code == 403
    outbox.report(outbox.last, "delivered")  # of the answer: nobody waits for that
    outbox.reply(NUMBER, "START")
    assert ask(client).status_code == 303


def test_words_are_answered_and_chatter_is_not(outbox: Outbox) -> None:
    outbox.reply(NUMBER, "Help")
    assert [sent.dst for sent in outbox] == ["15550000101"]
    assert outbox.last.provider == "primary"
    outbox.reply(NUMBER, "Thank you!")
    assert len(outbox) == 1
