"""The pages. None of them waits for an SMS: the message is taken in, and the answer given."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, current_app, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from shop.codes import Codes, TooMany
from shop.sms import code_message
from smsqueue import Gateway
from smsqueue.exc import QueueUnavailable
from smsqueue.lib import digits_only

__all__ = ["pages"]

pages = Blueprint("pages", __name__)


def sms() -> Gateway:
    """The gateway of this application."""
    made: Gateway = current_app.extensions["sms"]
    return made


def codes() -> Codes:
    """The codes of this application."""
    made: Codes = current_app.extensions["codes"]
    return made


def phone_page(status: int = 200, **shown: Any) -> ResponseReturnValue:
    """The form for the number. Its hidden field ties it to the session, and makes all clicks on
    one form the same request."""
    form = session.setdefault("form", secrets.token_urlsafe(16))
    return render_template("phone.html", form=form, **shown), status


@pages.get("/")
def start() -> ResponseReturnValue:
    """A new form, and so a new code."""
    session["form"] = secrets.token_urlsafe(16)
    return phone_page()


@pages.post("/code")
def send() -> ResponseReturnValue:
    """Take a number and send it a code."""
    number, form = digits_only(request.form.get("number", "")), request.form.get("form", "")
    if form != session.get("form"):
        return phone_page(400, problem="This page was too old. Please try again.")
    if not 8 <= len(number) <= 15:
        return phone_page(400, problem="That is not a number with its country code.")
    if codes().stopped(number):
        return phone_page(403, problem="This number asked us for no more messages.")
    try:
        code = codes().make(form, number)
        sms().send(code_message(code))
    except TooMany:
        return phone_page(429, problem="That were many codes. Please wait a few minutes.")
    except QueueUnavailable:
        # It may be in the queue or not. The same form again is the same message: one SMS.
        problem = "We cannot send a code right now. Please press the button again in a moment."
        page, status = render_template("phone.html", form=form, number=number, problem=problem), 503
        return page, status, {"Retry-After": "5"}
    session["code"] = code.id
    return redirect(url_for("pages.enter"), 303)


@pages.get("/code")
def enter() -> ResponseReturnValue:
    """The form for the code."""
    if "code" not in session:
        return redirect(url_for("pages.start"))
    return render_template("code.html", state=codes().state(session["code"]))


@pages.get("/code/state")
def state() -> ResponseReturnValue:
    """What the status hook noted, as JSON: for a script that waits."""
    return {"state": codes().state(session.get("code", ""))}


@pages.post("/verify")
def verify() -> ResponseReturnValue:
    """Take a code."""
    id = session.get("code", "")
    if not codes().check(id, request.form.get("code", "")):
        problem = "That is not the code, or it is too old."
        return render_template("code.html", state=codes().state(id), problem=problem), 403
    session.clear()
    session["customer"] = True
    return render_template("done.html")
