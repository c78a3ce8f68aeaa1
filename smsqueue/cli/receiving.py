"""What is to be checked of the receivers: prefix, addresses, and whether they answer."""

from __future__ import annotations

from collections.abc import Iterator

from smsqueue.cli.points import Point
from smsqueue.cli.webhooks import Webhook, webhooks
from smsqueue.cli.words import clean
from smsqueue.gateway import Gateway
from smsqueue.settings import Settings

__all__ = ["address", "found_webhooks", "of_receivers", "probed"]

#: Seconds that the receivers may take to answer.
_TIMEOUT = 5.0


def found_webhooks(gateway: Gateway) -> tuple[list[Webhook], Point | None]:
    """The webhooks, and what kept them from being found."""
    try:
        found = webhooks(gateway)
    except ModuleNotFoundError as error:
        if error.name not in ("flask", "werkzeug"):
            raise
        do = "pip install 'smsqueue-gateway[receivers]' where webhooks are taken"
        return [], Point("note", "receivers", "the receivers extra is not installed", do)
    except Exception as error:  # the application's own providers: their text may hold anything
        what = f"a provider cannot make its webhooks ({type(error).__name__})"
        return [], Point("problem", "receivers", what, "correct its make_receiver_blueprint()")
    return found, None


def of_receivers(gateway: Gateway, found: list[Webhook], *, reveal: bool) -> Iterator[Point]:
    """Where the webhooks are."""
    if not found:
        yield Point("note", "receivers", "no provider takes webhooks")
        return
    if not gateway.onReceive:
        do = "connect one: gateway.onReceive += handler"
        yield Point("warning", "receivers", "no handler hears incoming messages", do)
    settings = gateway.settings
    prefixes = settings.receiver_prefix
    if not prefixes:
        do = "the bundled receivers do not start without it"
        yield Point("warning", "receivers", "SMSQUEUE_RECEIVER_PREFIX is not set", do)
    elif len(prefixes) > 1:
        do = "the first is the one to enter at the providers"
        yield Point("note", "receivers", f"{len(prefixes)} prefixes are served", do)
    if not settings.public_url:
        do = "set it to where the internet reaches the receivers, as https://sms.example.org"
        yield Point("warning", "receivers", "SMSQUEUE_PUBLIC_URL is not set", do)
    for webhook in found:
        where = address(settings, webhook, reveal=reveal)
        yield Point(
            "ok", "webhook", f"{clean(webhook.provider)}: {'|'.join(webhook.methods)} {where}"
        )


def address(settings: Settings, webhook: Webhook, *, reveal: bool) -> str:
    """What is to be entered at the provider; the prefix is a secret."""
    prefix = settings.receiver_prefix[0].strip("/") if settings.receiver_prefix else "PREFIX"
    shown = prefix if reveal or not settings.receiver_prefix else "***"
    return f"{settings.public_url.rstrip('/')}/{shown}{clean(webhook.path)}"


def probed(settings: Settings) -> Point:
    """Do the receivers answer at their public address?"""
    import requests  # takes a while

    if not settings.public_url:
        return Point("warning", "probe", "not done, SMSQUEUE_PUBLIC_URL is not set")
    url = f"{settings.public_url.rstrip('/')}/healthz"
    try:
        response = requests.get(url, timeout=_TIMEOUT)
    except requests.RequestException as error:
        do = "start the receivers, and look at the proxy in front of them and at its certificate"
        return Point("problem", "probe", f"{url} does not answer ({type(error).__name__})", do)
    if response.status_code == 200 and response.text.strip() == "ok":
        return Point("ok", "probe", f"{url} answers as the receivers do")
    do = "does the proxy pass this address on to them?"
    what = f"{url} answers {response.status_code}, not as the receivers do"
    return Point("warning", "probe", what, do)
