"""Shifted boundaries between signed fields. Each of these was once accepted."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from smsqueue.testing.contract import PREFIX
from smsqueue.testing.webhook_checks import receiver
from tests.providers import test_plivo as plivo
from tests.providers import test_twilio as twilio

#: Address, what is signed, and what becomes of it.
TWILIO: list[tuple[str, dict[str, str], dict[str, str | None]]] = [
    ("status", {}, {"MessageStatus": "d", "eliveredTo": "+15551234567", "To": None}),
    ("status", {"ErrorCode": "30007"}, {"ErrorCode": None, "Error": "Code30007"}),
    ("im", {"Body": "hi Dear friend"}, {"Body": "hi ", "Dear": " friend"}),
    ("im", {"Body": "see DoorDash now"}, {"Body": "see ", "DoorDash": " now"}),
    ("im", {"Body": "hello"}, {"Body": None, "Bodyhello": ""}),
    ("im", {"ButtonText": "Yes"}, {"Body": "hi thereButtonTextYes", "ButtonText": None}),
    ("im", {"From": "Acme Home"}, {"From": "Acme ", "Home": ""}),
    ("im", {"From": "MyHomeDepot"}, {"From": "My", "HomeDepot": ""}),
]
PLIVO: list[tuple[str, dict[str, str], dict[str, str | None]]] = [
    ("im", {"Text": "a=b"}, {"Text": None, "Texta=": "b"}),
    ("im", {"Text": "hi Tiffany!"}, {"Text": "hi ", "Tiffany": "!"}),
    ("im", {"Text": "see TikTok now"}, {"Text": "see ", "TikTok": " now"}),
    ("status", {"ErrorCode": "30"}, {"ErrorCode": None, "Erro": "rCode30"}),
    ("status", {"ErrorCode": "30"}, {"ErrorCode": None, "ErrorCode3": "0"}),
]


def changed(form: dict[str, Any], what: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in (form | what).items() if value is not None}


def text_of(form: dict[str, str]) -> str:
    return "".join(name + value for name, value in sorted(form.items()))


@pytest.mark.parametrize(("path", "genuine", "what"), TWILIO)
def test_shifted_boundaries_of_twilio_are_refused(
    path: str, genuine: dict[str, str], what: dict[str, str | None]
) -> None:
    form = {"im": twilio.INCOMING, "status": twilio.REPORT}[path] | genuine
    other = changed(form, what)
    assert text_of(form) == text_of(other), "it is signed, too"
    url = f"{twilio.URL.rpartition('/')[0]}/{path}"
    headers = {"X-Twilio-Signature": twilio.signed(url, urlencode(form).encode())}
    for sent, taken in ((other, False), (form, True)):
        client, heard = receiver(twilio.EXAMPLES)
        answer = client.post(f"/{PREFIX}/main/{path}", data=sent, headers=headers)
        assert answer.status_code in ((200, 204) if taken else (400,))
        assert len(heard) == taken


@pytest.mark.parametrize(("path", "genuine", "what"), PLIVO)
def test_shifted_boundaries_of_plivo_are_refused(
    path: str, genuine: dict[str, str], what: dict[str, str | None]
) -> None:
    report = {"MessageUUID": "P1", "Status": "failed", "To": "15551234567"}
    form = {"im": plivo.INBOUND, "status": report}[path] | genuine
    other = changed(form, what)
    assert text_of(form) == text_of(other), "it is signed, too"
    url = f"{plivo.PUBLIC_URL}/{PREFIX}/main/{path}"
    headers = plivo.signed("POST", url, {}, urlencode(form).encode())
    for sent, taken in ((other, False), (form, True)):
        client, heard = receiver(plivo.EXAMPLES)
        answer = client.post(f"/{PREFIX}/main/{path}", data=sent, headers=headers)
        assert answer.status_code == (200 if taken else 400)
        assert len(heard) == taken


@pytest.mark.parametrize(("given", "code"), [(["BrandNew"], 200), ([], 400)])
def test_a_field_of_twilios_that_is_new_can_be_named(given: list[str], code: int) -> None:
    form = twilio.INCOMING | {"BrandNew": "1", "Zebra": "x"}
    headers = {"X-Twilio-Signature": twilio.signed(twilio.URL, urlencode(form).encode())}
    client, heard = receiver(twilio.EXAMPLES, fields=given)
    assert client.post(f"/{PREFIX}/main/im", data=form, headers=headers).status_code == code
    assert len(heard) == (code == 200)
