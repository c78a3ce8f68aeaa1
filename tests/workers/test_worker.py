"""Messages through a real worker process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.message.states import EventState, State

LOOPBACK = """
from smsqueue import Gateway, OutgoingMessage, RetryPolicy
from smsqueue.providers import LoopbackProvider
gateway = Gateway(retry=RetryPolicy(base=0.05, cap=0.2, pause=0.1, pause_max=0.2))
phone = gateway.add_provider("phone", LoopbackProvider)
phone.subscribe("15550001", lambda message: message.reply("yes") if "?" in message.body else None)

def answer(message):
    gateway.send(OutgoingMessage(message.src, "thanks"))

gateway.onReceive += answer
"""

FLAKY = """
import itertools, os, signal, time
from smsqueue import Gateway, IProvider, RetryPolicy, exc

class Flaky(IProvider):
    calls = itertools.count(1)
    def send(self, message):
        n = next(self.calls)
        match message.body:
            case "twice" if n < 3:
                raise exc.ServerError("busy", code=503)
            case "lost":
                raise exc.ConnectionError("no answer", ambiguous=True)
            case "refused":
                raise exc.RequestError("secret text 15557654321", code="bad-number")
            case "bug":
                raise KeyError(message.dst)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "slow":
                time.sleep(1.5)
        message.msgid = f"f-{n}"
        return message

gateway = Gateway(retry=RetryPolicy(base=0.05, cap=0.2, attempts=5))
gateway.add_provider("flaky", Flaky)
"""


def test_a_message_is_sent_answered_and_the_answer_thanked_for_once(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    start_worker(LOOPBACK)
    sent = gateway.send(
        OutgoingMessage("+1 555 0001", "well?").options(status_report=True, context={"order": 7})
    )
    assert sent.id is not None
    until(lambda: gateway.lookup(sent.id or "").state == State.DELIVERED)
    until(lambda: len(gateway.find("15550001")) == 2)
    until(lambda: gateway.find("15550001")[0].state == State.SENT)
    assert [record.message.body for record in gateway.find("15550001")] == ["thanks", "well?"]


def test_a_provider_that_failed_twice_gets_the_message_a_third_time(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    start_worker(FLAKY)
    sent = gateway.send(OutgoingMessage("15550002", "twice"))
    until(lambda: gateway.lookup(sent.id or "").state == State.SENT)
    record = gateway.lookup(sent.id or "")
    assert (record.attempts, record.msgid) == (3, "f-3")
    assert [line["state"] for line in record.timeline] == (
        ["queued", "sending", "retrying", "sending", "retrying", "sending", "sent"]
    )


def test_a_lost_answer_is_unknown_and_nobody_sends_again(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    start_worker(FLAKY)
    lost = gateway.send(OutgoingMessage("15550003", "lost"))
    bug = gateway.send(OutgoingMessage("15550003", "bug"))
    until(lambda: gateway.lookup(lost.id or "").state == State.UNKNOWN)
    until(lambda: gateway.lookup(bug.id or "").state == State.UNKNOWN)
    assert gateway.lookup(lost.id or "").attempts == 1
    assert gateway.settle(lost.id or "", "delivered") is True
    assert gateway.lookup(lost.id or "").state == State.DELIVERED
    assert gateway.settle(lost.id or "", "delivered") is False


def test_what_a_killed_worker_was_sending_is_unknown_and_the_rest_goes_on(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    short = "Flaky.deadline = -29.0\n"  # the lease ends one second after the call began
    worker = start_worker(FLAKY + short)
    deadly = gateway.send(OutgoingMessage("15550004", "die"))
    worker.process.wait(timeout=60)
    other = gateway.send(OutgoingMessage("15550004", "fine"))
    second = start_worker()
    until(lambda: gateway.lookup(deadly.id or "").state == State.UNKNOWN)
    until(lambda: gateway.lookup(other.id or "").state == State.SENT)
    assert gateway.lookup(deadly.id or "").attempts == 1
    assert second.process.poll() is None


def test_sigterm_finishes_what_is_running(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    worker = start_worker(FLAKY)
    sent = gateway.send(OutgoingMessage("15550005", "slow"))
    until(lambda: gateway.lookup(sent.id or "").state == State.SENDING)
    worker.stop(signal.SIGTERM)
    assert gateway.lookup(sent.id or "").state == State.SENT


def test_a_lost_trigger_is_published_again(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    sent = gateway.send(OutgoingMessage("15550006", "fine"))
    gateway.ledger.redis.delete(gateway.settings.send_key)  # as celery purge does
    gateway.ledger.redis.zadd(f"{gateway.settings.namespace}:due:send", {sent.id or "": 0})
    start_worker(FLAKY)
    until(lambda: gateway.lookup(sent.id or "").state == State.SENT)


def test_logs_show_no_number_and_no_text(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    worker = start_worker(FLAKY)
    refused = gateway.send(OutgoingMessage("15557654321", "refused"))
    bug = gateway.send(OutgoingMessage("15557654321", "bug"))
    until(lambda: gateway.lookup(refused.id or "").state == State.FAILED)
    until(lambda: gateway.lookup(bug.id or "").state == State.UNKNOWN)
    worker.stop()
    text = worker.text()
    assert "15557654321" not in text
    assert "secret text" not in text
    assert "RequestError" in text


def test_an_incoming_message_without_a_handler_is_kept_and_can_be_replayed(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    deaf = LOOPBACK.replace("gateway.onReceive += answer", "")
    worker = start_worker(deaf)
    gateway.send(OutgoingMessage("15550001", "well?"))
    until(lambda: gateway.ledger.ids_in(EventState.UNHEARD))
    worker.stop()
    start_worker(LOOPBACK)
    assert gateway.replay(gateway.ledger.ids_in(EventState.UNHEARD)[0]) is True
    until(lambda: len(gateway.find("15550001")) == 2)


def test_a_worker_without_a_usable_gateway_says_why_and_ends(
    start_worker: Callable[..., Any],
) -> None:
    cases = {
        "": "SMSQUEUE_GATEWAY is not set",
        "nowhere.sms:gateway": "there is no 'nowhere'",
        "app_sms:nothing": "did you mean 'gateway'?",
        "app_sms:empty": "has no provider",
    }
    module = FLAKY + "\nempty = lambda: Gateway()\n"
    for name, words in cases.items():
        worker = start_worker(module, wait=False, SMSQUEUE_GATEWAY=name)
        assert worker.process.wait(timeout=60) != 0
        assert words in worker.text()
        assert "Traceback" not in worker.text()


def test_a_worker_on_queues_of_another_namespace_says_so_and_ends(
    start_worker: Callable[..., Any],
) -> None:
    worker = start_worker(LOOPBACK, "-Q", "other.send", wait=False)
    assert worker.process.wait(timeout=60) != 0
    assert "this worker consumes other.send" in worker.text()
    assert "correct -Q or SMSQUEUE_NAMESPACE" in worker.text()
    assert "Traceback" not in worker.text()


def test_all_that_is_kept_in_redis_has_the_namespace(
    redis_server: Callable[..., Any], start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    settings = Settings(redis_url=redis_server().url, namespace="shop")
    given = {"SMSQUEUE_REDIS_URL": settings.redis_url, "SMSQUEUE_NAMESPACE": "shop"}
    start_worker(LOOPBACK, **given)
    with Gateway(settings) as gateway:
        sent = gateway.send(OutgoingMessage("15550001", "well?"))
        until(lambda: gateway.lookup(sent.id or "").state == State.SENT)
        keys = {str(key) for key in gateway.ledger.redis.scan_iter(count=1000)}
        channels = {str(name) for name in gateway.ledger.redis.pubsub_channels()}
    assert keys
    assert [name for name in keys | channels if not name.startswith("shop:")] == []


ASKED = """
from smsqueue import Gateway, IProvider, exc
from smsqueue.message import statuses
from smsqueue.delivery import outcomes

outcomes.FIRST_ASK = 0.1

class Asked(IProvider):
    def send(self, message):
        raise exc.ConnectionError("no answer", ambiguous=True)

    def look_up(self, message, since):
        return statuses.MessageDelivered("a-1")

gateway = Gateway()
gateway.add_provider("asked", Asked)
"""


def test_a_lost_answer_is_asked_for(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    start_worker(ASKED)
    sent = gateway.send(OutgoingMessage("15550001", "hello"))
    until(lambda: gateway.lookup(sent.id or "").state == State.DELIVERED)
    assert gateway.lookup(sent.id or "").attempts == 1


TOLD = """
from smsqueue import Gateway
from smsqueue.providers import TwilioProvider

gateway = Gateway()
gateway.add_provider("tw", TwilioProvider, account_sid="AC0", auth_token="t", sender="+15550001")
"""


def test_a_worker_says_that_it_asks_for_no_reports(start_worker: Callable[..., Any]) -> None:
    warning = "no delivery reports are asked of tw with a message: set SMSQUEUE_PUBLIC_URL"
    address = {
        "SMSQUEUE_PUBLIC_URL": "https://x.org",
        "SMSQUEUE_RECEIVER_PREFIX": "a-prefix-for-tests",
    }
    assert warning in start_worker(TOLD, SMSQUEUE_PUBLIC_URL="https://x.org").text()
    assert warning not in start_worker(TOLD, **address).text()
