"""Names of all provider classes: the bundled ones, and those that other packages install.

A package registers its own in the entry-point group ``smsqueue.providers``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

__all__ = ["BUNDLED", "ENTRY_POINT_GROUP", "load", "provider_names"]

ENTRY_POINT_GROUP = "smsqueue.providers"

#: Module and class by name. A module is imported when its class is loaded.
BUNDLED = {
    "null": "smsqueue.providers.null:NullProvider",
    "log": "smsqueue.providers.log:LogProvider",
    "loopback": "smsqueue.providers.loopback:LoopbackProvider",
    "simulator": "smsqueue.providers.simulator:SimulatorProvider",
    "forward-client": "smsqueue.providers.forward:ForwardClientProvider",
    "forward-server": "smsqueue.providers.forward:ForwardServerProvider",
    "twilio": "smsqueue.providers.twilio:TwilioProvider",
    "vonage": "smsqueue.providers.vonage:VonageProvider",
    "vonage-messages": "smsqueue.providers.vonage_messages:VonageMessagesProvider",
    "infobip": "smsqueue.providers.infobip:InfobipProvider",
    "telnyx": "smsqueue.providers.telnyx:TelnyxProvider",
    "plivo": "smsqueue.providers.plivo:PlivoProvider",
    "sinch": "smsqueue.providers.sinch:SinchProvider",
    "clickatell": "smsqueue.providers.clickatell:ClickatellProvider",
    "gatewayapi": "smsqueue.providers.gatewayapi:GatewayApiProvider",
    "messagebird": "smsqueue.providers.messagebird:MessageBirdProvider",
    "bird": "smsqueue.providers.bird:BirdProvider",
    "aws-sns": "smsqueue.providers.aws_sns:AwsSnsProvider",
    "aws-messaging": "smsqueue.providers.aws_messaging:AwsMessagingProvider",
    "africastalking": "smsqueue.providers.africastalking:AfricasTalkingProvider",
    "vianett": "smsqueue.providers.vianett:VianettProvider",
}


def provider_names() -> list[str]:
    """Names of all installed providers, sorted."""
    return sorted({*BUNDLED, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load(name: str) -> type[Any]:
    """The class of a provider.

    Raises:
        LookupError: no provider has that name.
    """
    target = BUNDLED.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        provider_class: type[Any] = getattr(import_module(module), attribute)
        return provider_class
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        provider_class = point.load()
        return provider_class
    raise LookupError(f"there is no provider {name!r} (installed: {', '.join(provider_names())})")
