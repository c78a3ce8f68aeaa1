"""What is to be checked of the receivers: prefix, addresses, and whether they answer."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from smsqueue.cli.check import Point
from smsqueue.cli.webhooks import Webhook, webhooks
from smsqueue.cli.words import clean, counted
from smsqueue.gateway import Gateway
from smsqueue.providers.base import IProvider
from smsqueue.providers.forward.auth import Guard
from smsqueue.providers.receiving import Receiving
from smsqueue.settings import Settings, SettingsError

__all__ = ["address", "found_webhooks", "of_receivers", "probed"]

#: Seconds that the receivers may take to answer.
_TIMEOUT = 5.0
#: A prefix with less is refused only if it can be tried, and should have more.
_LONG_PREFIX = 12
#: Those who can forge webhooks that are not signed, as Receiving.unsigned() has it.
_ANYBODY = "anybody who knows their address"


def found_webhooks(gateway: Gateway) -> tuple[list[Webhook], list[Point]]:
    """The webhooks, and what kept some from being found."""
    found: list[Webhook] = []
    troubles: list[Point] = []
    for name in gateway.providers:
        try:
            found += webhooks(gateway, name)
        except ModuleNotFoundError as error:
            if error.name in ("flask", "werkzeug"):
                do = "pip install 'smsqueue-gateway[receivers]' where webhooks are taken"
                return [], [Point("note", "receivers", "the receivers extra is not installed", do)]
            what = f"{name} cannot receive, as there is no module {error.name!r}"
            troubles.append(Point("problem", "receivers", what, "install it"))
        except SettingsError as error:
            what, _, do = str(error).partition(": ")
            troubles.append(Point("problem", "receivers", what, do))
        except Exception as error:  # the application's own providers: their text may hold anything
            what = f"{name} cannot make its webhooks ({type(error).__name__})"
            troubles.append(
                Point("problem", "receivers", what, "correct its make_receiver_blueprint()")
            )
    return found, troubles


def of_receivers(gateway: Gateway, found: list[Webhook], *, reveal: bool) -> Iterator[Point]:
    """Where the webhooks are."""
    if not found:
        yield Point("note", "receivers", "no provider takes webhooks")
        return
    if not gateway.onReceive:
        do = "connect one: gateway.onReceive += handler"
        yield Point("warning", "receivers", "no handler hears incoming messages", do)
    settings = gateway.settings
    names = dict.fromkeys(webhook.provider for webhook in found)
    lacking = [name for name in names if not gateway.webhook_prefixes(name)]
    own = [prefix for name in names for prefix in gateway.webhook_access(name).prefixes]
    prefixes = (*settings.receiver_prefix, *own)
    if lacking:
        do = "the bundled receivers do not start without it"
        yield Point("warning", "receivers", "SMSQUEUE_RECEIVER_PREFIX is not set", do)
    if any(len(prefix.strip("/")) < _LONG_PREFIX for prefix in prefixes):
        do = "what `openssl rand -hex 16` prints is good"
        what = f"a prefix has less than {_LONG_PREFIX} characters, and may be guessed"
        yield Point("warning", "receivers", what, do)
    if len(settings.receiver_prefix) > 1:
        do = "the first is the one to enter at the providers"
        what = f"{len(settings.receiver_prefix)} prefixes are served"
        yield Point("note", "receivers", what, do)
    sources = [name for name in names if gateway.webhook_access(name).sources]
    if sources and not settings.trusted_proxies:
        what = f"webhook_sources of {clean(', '.join(sources))} are compared with who connects"
        do = "behind a proxy set SMSQUEUE_TRUSTED_PROXIES to its address, or all are refused"
        yield Point("note", "receivers", what, do)
    if not settings.public_url:
        do = (
            "set it to where the internet reaches the receivers, as https://sms.example.org; "
            "behind a proxy webhooks whose address is signed are refused without it"
        )
        yield Point("warning", "receivers", "SMSQUEUE_PUBLIC_URL is not set", do)
    elif any(urlsplit(settings.public_url).path.strip("/") == p.strip("/") for p in prefixes):
        do = "leave the prefix out, it is put behind it"
        yield Point("warning", "receivers", "SMSQUEUE_PUBLIC_URL ends with the prefix", do)
    if settings.public_url.lower().startswith("http:"):
        what = "SMSQUEUE_PUBLIC_URL is plain http://: numbers, texts and the prefix can be read"
        yield Point("warning", "receivers", what, "use https://")
    if gateway.unreported():
        what = f"no delivery reports are asked of {clean(', '.join(gateway.unreported()))}"
        do = "set SMSQUEUE_PUBLIC_URL and SMSQUEUE_RECEIVER_PREFIX for the workers, too"
        yield Point("warning", "receivers", what, do)
    for webhook in found:
        where = address(gateway, webhook, reveal=reveal)
        what = f"{clean(webhook.provider)}: {'|'.join(webhook.methods)} {where}"
        why = unsigned(gateway.providers[webhook.provider])
        access = gateway.webhook_access(webhook.provider)
        if access.sources:
            what += f", from {counted(len(access.sources), 'network')} only"
            why = why.replace(_ANYBODY, f"{_ANYBODY} and calls from there")
        if not why:
            yield Point("ok", "webhook", what)
        elif access.sources:
            yield Point("note", "webhook", f"{what} ({why})", "keep the prefix secret")
        else:
            do = "keep the prefix secret"
            do += "" if access.prefixes else ", give it one of its own (webhook_prefix)"
            do += ", and let only the provider's addresses in (webhook_sources), if it tells them"
            yield Point("warning", "webhook", f"{what} ({why})", do)


def unsigned(provider: IProvider) -> str:
    """Why somebody else than the provider can send its webhooks; "": nobody can."""
    if isinstance(provider, Receiving):
        return provider.unsigned()
    guard = getattr(provider, "guard", None)
    if isinstance(guard, Guard):
        return f"insecure=True takes webhooks of {_ANYBODY}" * guard.open
    if getattr(provider, "authenticates", False) is True:  # a class of the application's own
        return ""
    return (
        "nothing says that its webhooks are authenticated: authenticates = True in its class does"
    )


def address(gateway: Gateway, webhook: Webhook, *, reveal: bool) -> str:
    """What is to be entered at the provider; the prefix is a secret."""
    settings, prefixes = gateway.settings, gateway.webhook_prefixes(webhook.provider)
    prefix = prefixes[0].strip("/") if prefixes else "PREFIX"
    shown = prefix if reveal or not prefixes else "***"
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
