"""Delivering messages: claim, route, begin, call, judge, settle. Needs no Celery."""

from smsqueue.delivery.outcomes import TriggerResult
from smsqueue.delivery.pipeline import Delivery
from smsqueue.delivery.slots import Slots

__all__ = ["Delivery", "Slots", "TriggerResult"]
