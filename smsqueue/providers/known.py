"""The providers there are, by name: the bundled ones, and those that other packages install.

A package announces its own under the entry-point group ``smsqueue.providers``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

__all__ = ["BUNDLED", "GROUP", "load", "names"]

GROUP = "smsqueue.providers"

#: Name to module and class. Nothing of them is imported before it is asked for.
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


def names() -> list[str]:
    """Names of all providers that are installed."""
    return sorted({*BUNDLED, *(found.name for found in entry_points(group=GROUP))})


def load(name: str) -> type[Any]:
    """The class of a provider.

    Raises:
        LookupError: there is none of that name.
    """
    where = BUNDLED.get(name)
    if where is not None:
        module, _, attribute = where.partition(":")
        found: type[Any] = getattr(import_module(module), attribute)
        return found
    for point in entry_points(group=GROUP, name=name):
        found = point.load()
        return found
    raise LookupError(f"there is no provider {name!r} (there are: {', '.join(names())})")
