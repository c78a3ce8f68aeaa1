"""Media and group messages, with the examples of the providers' documentation."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from smsqueue import Media
from smsqueue.message.media import MOST_MEDIA
from smsqueue.testing.examples import Examples, Received, Webhook
from smsqueue.testing.webhook_checks import distorted_webhooks, post_webhook, receiver
from tests.providers import test_aws_messaging as aws
from tests.providers import test_bird as bird
from tests.providers import test_clickatell as clickatell
from tests.providers import test_infobip as infobip
from tests.providers import test_messagebird as messagebird
from tests.providers import test_plivo as plivo
from tests.providers import test_sinch as sinch
from tests.providers import test_telnyx as telnyx
from tests.providers import test_twilio as twilio
from tests.providers import test_vonage_messages as vonage_messages

CAT, DOG, SONG = (f"https://media.example/{name}" for name in ("cat", "dog?size=2", "song"))
JPEG, PNG, MP3 = "image/jpeg", "image/png", "audio/mpeg"
TYPED = [(CAT, JPEG), (DOG, PNG), (SONG, MP3)]
BARE = [(CAT, None), (DOG, None), (SONG, None)]
OTHERS = ["15550009999", "15557770001", "15557770002"]

Case = tuple[Examples, Webhook]


def twilio_hook(**more: Any) -> Webhook:
    form = twilio.INCOMING | {"Body": "look", "NumMedia": "3"}
    for n, (url, kind) in enumerate(TYPED):
        form |= {f"MediaUrl{n}": url, f"MediaContentType{n}": kind}
    wanted = Received("15551234567", "look", "15550009999", twilio.SM9, TYPED, None, True)
    return twilio.hook("", "/im", [wanted], form=form | more)


def telnyx_hook(**more: Any) -> Webhook:
    media = [{"url": u, "content_type": k, "sha256": "0", "size": 9} for u, k in TYPED]
    told = telnyx.INBOUND | {"text": "look", "type": "MMS", "media": media, "cc": []} | more
    wanted = Received("15551234567", "look", "15550009999", "T9", TYPED)
    return telnyx.hook("", "/im", [wanted], json=telnyx.event("message.received", told))


def infobip_hook(**more: Any) -> Webhook:
    """As Infobip's OpenAPI description shows it for webhooks of the kind MO_MMS_2."""
    told = {k: v for k, v in infobip.INCOMING.items() if "ext" not in k}
    parts: list[Any] = [{"contentType": kind, "url": url} for url, kind in TYPED]
    told["message"] = [*parts[:2], {"contentType": "text/plain", "value": "look"}, parts[2]]
    wanted = Received("15551234567", "look", "15550009999", infobip.INCOMING["messageId"], TYPED)
    return infobip.hook("", "/im", [wanted], json={"results": [told | more], "messageCount": 1})


def vonage_hook(kind: str, value: Any, body: str, media: Any, **more: Any) -> Webhook:
    told = {k: v for k, v in vonage_messages.INCOMING.items() if k not in ("text", "sms")}
    told |= {"channel": "mms", "message_type": kind, kind: value} | more
    uuid = vonage_messages.UUID
    wanted = Received("15551234567", body, "15550009999", uuid, media, None, True)
    return vonage_messages.hook("", "/im", [wanted], json=told)


def messagebird_hook(name: str = "mediaUrls") -> Webhook:
    form: dict[str, Any] = messagebird.MO | {"body": "look"}
    form |= (
        {name: [CAT, DOG, SONG]}
        if "0" not in name
        else {f"mediaUrls[{n}]": url for n, url in enumerate((CAT, DOG, SONG))}
    )
    wanted = Received("15551234567", "look", "15550009999", "mb9", BARE)
    return messagebird.hook("", "/im", [wanted], form=form)


def sinch_hook() -> Webhook:
    media: list[dict[str, Any]] = [
        {"url": url, "content_type": kind, "status": "Uploaded", "code": 0} for url, kind in TYPED
    ]
    media.insert(1, {"content_type": PNG, "status": "Failed", "code": 2})
    body = {"subject": "Re: hello", "message": "look", "media": media}
    wanted = Received("15551234567", "look", "15550009999", "01XX", TYPED)
    told = sinch.INCOMING | {"type": "mo_media", "body": body}
    return sinch.hook("", "/im", [wanted], json=told)


def sinch_mms_hook() -> Webhook:
    told = {"origin": "MMS_MO", "code": "N401", "from": "15551234567", "to": "15550009999"}
    told |= {"tracking-id": "mo1", "timestamp": "2026-04-24T18:34:00Z", "message-subject": "Q"}
    content = [{"file": url} for url in (CAT, DOG, SONG)]
    more = {"content": content, "copy-to": [{"number": number} for number in OTHERS[1:]]}
    wanted = Received("15551234567", "", "15550009999", "mo1", BARE, OTHERS)
    return sinch.hook("", "/im", [wanted], json=told | more)


def plivo_hook(first: int) -> Webhook:
    form = {k: v for k, v in plivo.INBOUND.items() if k != "Text"}
    form |= {"Body": "look", "Type": "mms", "MediaCount": "3"}
    form |= {f"Media{n}": url for n, url in enumerate((CAT, DOG, SONG), first)}
    wanted = Received("15551234567", "look", "15550009999", "P9", BARE)
    return plivo.hook("", "/im", [wanted], form=form)


def clickatell_hook() -> Webhook:
    files = [{"contentType": kind, "downloadUrl": url, "byteSize": 9} for url, kind in TYPED]
    told = {"channel": "whatsapp ", "messageId": "m9", "from": "15551234567", "to": "15550009999"}
    told |= {"timestamp": 1506607698000}
    more = {"files": files, "caption": "look"}
    # WhatsApp: an SMS would reach the number, but not the conversation.
    wanted = Received("15551234567", "look", "15550009999", "m9", TYPED, None, False)
    text = Received("15551234567", "hi + there", "15550009999", "m9", (), None, True)
    event = {"moText": [clickatell.MO], "moMedia": [told | more]}
    return Webhook("", "/im", [text, wanted], json={"event": event})


def bird_hook() -> Webhook:
    told = copy.deepcopy(bird.RECEIVED)
    told["data"]["media_urls"] = [CAT, DOG, SONG]
    wanted = Received("15551234567", "hi", "15550009999", "sms_9", BARE)
    return bird.hook("", "/im", [wanted], told)


GROUP = [{"phone_number": f"+{number}", "status": ""} for number in OTHERS]

CASES: dict[str, Case] = {
    "twilio": (twilio.EXAMPLES, twilio_hook()),
    "twilio, without a text": (twilio.EXAMPLES, twilio_hook(Body="")),
    "twilio, ten and more": (
        twilio.EXAMPLES,
        twilio_hook(**{f"MediaUrl{n}": f"{CAT}{n}" for n in range(3, 12)}),
    ),
    "twilio, a group": (
        twilio.EXAMPLES,
        twilio_hook(OtherRecipients0="+15557770001", OtherRecipients1="+15557770002"),
    ),
    "telnyx": (telnyx.EXAMPLES, telnyx_hook()),
    "telnyx, a group": (telnyx.EXAMPLES, telnyx_hook(to=GROUP[:1], cc=GROUP[1:])),
    "infobip": (infobip.EXAMPLES, infobip_hook()),
    "infobip, a group": (
        infobip.EXAMPLES,
        infobip_hook(group=[{"to": OTHERS[0]}, {"cc": OTHERS[1]}, {"cc": OTHERS[2]}]),
    ),
    "infobip, text under another name": (
        infobip.EXAMPLES,
        infobip_hook(message=[{"url": u, "contentType": k} for u, k in TYPED] + [{"text": "look"}]),
    ),
    "infobip, as JSON text": (
        infobip.EXAMPLES,
        infobip_hook(
            message='{"mms_parts":[{"origin":"text","contentType":"text/plain; charset=utf-8",'
            '"contentId":"content0","value":"look"}],"userAgent":"phone","subject":null}'
        ),
    ),
    "vonage messages, image": (
        vonage_messages.EXAMPLES,
        vonage_hook("image", {"url": CAT, "caption": "look"}, "look", BARE[:1]),
    ),
    "vonage messages, audio": (
        vonage_messages.EXAMPLES,
        vonage_hook("audio", {"url": SONG}, "", BARE[2:]),
    ),
    "vonage messages, vcard and a text": (
        vonage_messages.EXAMPLES,
        vonage_hook("vcard", {"url": CAT}, "look", BARE[:1], text="look"),
    ),
    "vonage messages, several": (
        vonage_messages.EXAMPLES,
        vonage_hook(
            "content",
            [
                {"type": "image", "url": CAT, "caption": "look"},
                {"type": "file", "url": DOG},
                {"type": "audio", "url": SONG},
            ],
            "look",
            BARE,
        ),
    ),
    "vonage messages, as it was before version 1": (
        vonage_messages.EXAMPLES,
        vonage_hook(
            "message",
            {"content": {"type": "image", "image": {"url": CAT, "caption": "look"}}},
            "look",
            BARE[:1],
        ),
    ),
    "messagebird": (messagebird.EXAMPLES, messagebird_hook()),
    "messagebird, numbered": (messagebird.EXAMPLES, messagebird_hook("mediaUrls[0]")),
    "sinch": (sinch.EXAMPLES, sinch_hook()),
    "sinch, MMS API, a group": (sinch.EXAMPLES, sinch_mms_hook()),
    "plivo": (plivo.EXAMPLES, plivo_hook(0)),
    "plivo, counted from one": (plivo.EXAMPLES, plivo_hook(1)),
    "clickatell": (clickatell.EXAMPLES, clickatell_hook()),
    "bird": (bird.EXAMPLES, bird_hook()),
}
#: What differs from the hook's own expectation.
WANTED: dict[str, dict[str, Any]] = {
    "twilio, without a text": {"body": ""},
    "twilio, ten and more": {"media": TYPED + [(f"{CAT}{n}", None) for n in range(3, 12)]},
    "twilio, a group": {"recipients": OTHERS},
    "telnyx, a group": {"recipients": OTHERS},
    "infobip, a group": {"recipients": OTHERS},
    "infobip, as JSON text": {"media": []},
}


@pytest.mark.parametrize("name", CASES)
def test_all_pictures_the_text_and_all_recipients_are_kept(name: str) -> None:
    examples, hook = CASES[name]
    client, heard = receiver(examples)
    assert post_webhook(client, hook).status_code in (200, 204)
    assert len(heard) == len(hook.events)
    for found, wanted in zip(heard, hook.events, strict=True):
        assert isinstance(wanted, Received)
        wanted = replace(wanted, **WANTED.get(name, {}))
        told = (found.src, found.body, found.dst, found.msgid)
        assert told == (wanted.src, wanted.body, wanted.dst, wanted.msgid)
        assert found.media == tuple(wanted.media or ())
        assert all(isinstance(each, Media) for each in found.media)
        assert found.meta.get("recipients") == (list(wanted.recipients or ()) or None)
        assert wanted.replyable in (None, found.replyable)


@pytest.mark.parametrize("name", CASES)
def test_a_distorted_picture_is_never_our_fault(name: str) -> None:
    examples, hook = CASES[name]
    client, heard = receiver(examples)
    for each in distorted_webhooks(hook):
        assert post_webhook(client, each).status_code < 500
    assert heard


MALFORMED: list[Any] = [
    *(None, 5, [], {}, "", "look", "javascript:alert(1)", "file:///etc/passwd", "https://"),
    *(CAT + "\r\nX: y", CAT + " x", "https://" + "a" * 5000, {"url": CAT}, "\ud800"),
]


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: repr(value)[:40])
def test_a_malformed_picture_does_not_lose_the_text_nor_the_others(value: Any) -> None:
    media = [{"url": CAT, "content_type": JPEG}, {"url": value}, {"url": SONG, "content_type": 5}]
    client, heard = receiver(telnyx.EXAMPLES)
    assert post_webhook(client, telnyx_hook(media=media)).status_code == 204
    assert (heard[0].body, heard[0].media) == ("look", ((CAT, JPEG), (SONG, None)))


@pytest.mark.parametrize("value", [None, 5, "x", {}, {"url": CAT}, [[]], [None], [CAT]])
def test_invalid_media_do_not_lose_the_text(value: Any) -> None:
    client, heard = receiver(telnyx.EXAMPLES)
    assert post_webhook(client, telnyx_hook(media=value, cc=value)).status_code == 204
    assert heard[0].body == "look"


def test_more_pictures_than_any_provider_allows_are_cut_off() -> None:
    media = [{"url": f"{CAT}{n}"} for n in range(5000)]
    client, heard = receiver(telnyx.EXAMPLES)
    assert post_webhook(client, telnyx_hook(media=media)).status_code == 204
    assert heard[0].media == tuple((f"{CAT}{n}", None) for n in range(MOST_MEDIA))


def test_aws_without_a_text_is_recorded() -> None:
    told = {name: value for name, value in aws.INBOUND.items() if name != "messageBody"}
    client, heard = receiver(aws.EXAMPLES, insecure=True)
    hook = aws.hook("", aws.delivery(told))
    assert post_webhook(client, hook, signed=False).status_code == 204
    assert (heard[0].src, heard[0].body, heard[0].media) == ("15551234567", "", ())


def test_telnyx_recipients_of_a_group_are_distinct() -> None:
    client, heard = receiver(telnyx.EXAMPLES)
    assert post_webhook(client, telnyx_hook(to=GROUP[:1], cc=GROUP)).status_code == 204
    assert post_webhook(client, telnyx_hook()).status_code == 204
    assert heard[0].meta["recipients"] == OTHERS
    assert "recipients" not in heard[1].meta
