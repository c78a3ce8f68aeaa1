"""Parsers: whatever they are given, they return or raise what they say, in a bounded time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smsqueue import Gateway, IncomingMessage, OutgoingMessage, Settings, exc
from smsqueue.cli import main
from smsqueue.cli.options import parse_past_time, parse_zoned_time
from smsqueue.configuration.environment_providers import add_providers
from smsqueue.message import numbers, serialization
from smsqueue.message.media import media_of
from smsqueue.message.segments import segments_of
from smsqueue.providers import authentic, reading
from smsqueue.providers.base.provider_from_url import parse_provider_url
from smsqueue.providers.forward.jsonex import jsonex_loads
from smsqueue.providers.forward.peer_http import document_format
from smsqueue.providers.forward.protocol import ForwardedEvent, parse_document
from smsqueue.providers.http import MAX_RETRY_AFTER, Answer
from smsqueue.settings import SettingsError
from smsqueue.testing.webhook_checks import request_of
from tests.fuzz.budget import EXAMPLES, SECONDS
from tests.fuzz.mutations import TRAPS
from tests.fuzz.targets import TARGETS, facts
from tests.fuzz.test_webhooks import sent

#: Seconds of this thread's time for one input; what is bounded takes a thousandth of it.
LONGEST = 5.0
#: With FUZZ_SECONDS the examples are new ones each time, and many.
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize=SECONDS is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

TEXTS = st.one_of(
    st.text(max_size=60),
    st.text("+-0123456789 ().,:;x\u0661\uff0b\u200e", max_size=40),
    st.sampled_from((*TRAPS, "9" * 5000, "+" * 3000, "00" * 500, " " * 3000, "a@" * 500)),
    st.from_regex(r"\A(\+|00|tel:|whatsapp:)?[0-9 ()-]{0,20}\Z"),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.just(10**400), st.just(-1)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def bounded(function: Callable[[], Any], *allowed: type[BaseException]) -> Any:
    """What a function returns; None if it raises one of the errors that it documents."""
    began = time.thread_time()
    try:
        return function()
    except allowed:
        return None
    finally:
        assert time.thread_time() - began < LONGEST


# --- Webhooks --------------------------------------------------------------------------------


def spoiled(draw: Callable[[Any], Any], value: Any) -> Any:
    """A document in which some things are something else."""
    if isinstance(value, dict):
        found = {name: spoiled(draw, each) for name, each in value.items()}
        if found and draw(st.integers(0, 7)) == 0:
            del found[draw(st.sampled_from(sorted(found)))]
        return found
    if isinstance(value, list):
        return [spoiled(draw, each) for each in value] * draw(st.sampled_from((1, 1, 1, 1, 2, 0)))
    return draw(VALUES) if draw(st.integers(0, 7)) == 0 else value


@pytest.mark.parametrize("name", TARGETS)
def test_receivers_take_or_refuse_any_document(name: str) -> None:
    """As somebody would send it who has the secret: the signature is not what stops it."""
    target = TARGETS[name]
    hooks = [hook for hook in target.hooks if hook.json is not None or hook.form is not None]

    @fuzz
    @given(st.data())
    def run(data: st.DataObject) -> None:
        hook = data.draw(st.sampled_from(hooks))
        client, heard = target.receiver()
        if hook.form is not None:
            form = spoiled(data.draw, dict(hook.form))
            hook = replace(hook, form={k: _written(v) for k, v in form.items()})
        else:
            hook = replace(hook, json=spoiled(data.draw, hook.json))
        code = bounded(lambda: sent(client, request_of(hook)))
        # 501: a document of a version of ours that is not known.
        assert code < 500 or (code == 501 and name.startswith("forward"))
        if code >= 300:
            return
        for event in heard:
            facts(event)
            if isinstance(event, OutgoingMessage):
                continue
            incoming = isinstance(event, IncomingMessage)
            dumped = serialization.to_json(
                (serialization.dump_incoming if incoming else serialization.dump_status)(event)
            )
            again = json.loads(dumped)
            assert (
                serialization.load_incoming("1", again)
                if incoming
                else serialization.load_status(again)
            )

    run()


def _written(value: Any) -> Any:
    """As a field of a form has it."""
    if isinstance(value, list):
        return [_written(each) for each in value]
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


# --- Documents -------------------------------------------------------------------------------

OWN = {
    "smsqueue": 1,
    "id": "m1",
    "attempt": 1,
    "hops": ["a"],
    "message": {"dst": "15550001", "body": "hi", "src": "Shop", "options": {"expires": 5}},
    "status": {"class": "MessageDelivered", "msgid": "m1", "rtime": "2026-01-02T03:04:05Z"},
    "error": {"class": "ServerError", "text": "no", "code": 5, "ambiguous": True},
}
ORIGINAL = {
    "message": {"?": ["OutgoingMessage", {"dst": "15550001", "body": "hi", "src": "Shop"}]},
    "status": {"?": ["MessageDelivered", {"msgid": "m1", "rtime": "2026-01-02 03:04:05.000000"}]},
    "error": {"?E": ["ServerError", ["no"]]},
}


@fuzz
@given(st.data())
def test_forward_documents(data: st.DataObject) -> None:
    document = spoiled(data.draw, data.draw(st.sampled_from((OWN, ORIGINAL))))
    body = json.dumps(document).encode()
    parsed = bounded(lambda: parse_document(body), ValueError)
    if parsed is None:
        return
    form = bounded(lambda: document_format(parsed), exc.ProviderError)
    if form is None:
        return
    bounded(lambda: form.load_message(parsed), ValueError)
    for field in ("message", "status"):
        event = bounded(lambda f=field: form.load_event(f, parsed), ValueError)
        assert event is None or isinstance(event, ForwardedEvent)
    error = bounded(lambda: form.load_error(parsed), ValueError)
    assert error is None or isinstance(error, exc.ProviderError)


@fuzz
@given(st.one_of(VALUES.map(json.dumps), TEXTS, st.binary(max_size=60)), st.data())
def test_jsonex(text: Any, data: st.DataObject) -> None:
    bounded(lambda: jsonex_loads(text), ValueError)
    nested = json.dumps(spoiled(data.draw, ORIGINAL))
    bounded(lambda: jsonex_loads(nested), ValueError)


# --- Numbers and texts -----------------------------------------------------------------------

REGIONS = st.sampled_from((None, "US", "GB", "DE", "IT", "XX"))


@fuzz
@given(TEXTS, REGIONS)
def test_numbers(text: str, region: str | None) -> None:
    found = bounded(lambda: numbers.digits(text, region))
    assert found == "" or found.isdecimal()
    for function in (numbers.destination, numbers.resolved, numbers.number_problem):
        bounded(lambda f=function: f(text, region))
    bounded(lambda: numbers.plus(text, region), exc.RequestError)
    bounded(lambda: numbers.replyable(text, region))
    bounded(lambda: numbers.searched_address(text, region))
    bounded(lambda: numbers.sender(text, plus=True), exc.RequestError, exc.UnsupportedError)
    kept = bounded(lambda: numbers.incoming_address(text))
    assert numbers.incoming_address(kept) == kept, "it is what it was"
    segments = bounded(lambda: segments_of(text))
    assert segments.parts >= (1 if text else 0)


@fuzz
@given(VALUES, VALUES)
def test_reading(value: Any, other: Any) -> None:
    fields = {"a": value, "b": other}
    for function in (reading.text_of, reading.id_of, reading.address_of):
        bounded(lambda f=function: f(fields, "a"), ValueError)
    at = bounded(lambda: reading.time_of(value, 1000))
    assert at is None or at.tzinfo
    assert all(isinstance(each, dict) for each in reading.listed(value))
    bounded(lambda: reading.recipients_of(value, other))
    bounded(lambda: reading.json_object(json.dumps(value).encode()), ValueError)
    bounded(lambda: media_of([(value, other)]))
    bounded(lambda: media_of(value))
    if value is None or isinstance(value, str | float):
        assert authentic.fresh(value) in (True, False)


@fuzz
@given(st.one_of(TEXTS, st.integers().map(str), st.datetimes().map(str)), st.binary(max_size=40))
def test_answers_of_providers(text: str, body: bytes) -> None:
    header = text.encode("latin-1", "replace").decode("latin-1")
    answer = Answer("main", 200, {"Retry-After": header, "x": header}, body, safe=True)
    for wait in (bounded(lambda: answer.retry_after), bounded(lambda: answer.seconds("x", 1000))):
        assert wait is None or 0 <= wait <= MAX_RETRY_AFTER
    bounded(lambda: answer.get("a", 0, "b"))
    bounded(lambda: answer.amount("a"), exc.ServerError)
    bounded(lambda: answer.objects("a"), exc.ServerError)


# --- Settings and the command line -----------------------------------------------------------

VARIABLES = sorted(
    str(f.metadata["variable"])
    for f in Settings.__dataclass_fields__.values()
    if "variable" in f.metadata
)
SCHEMES = ("twilio", "plivo", "vonage", "telnyx", "aws-messaging", "null", "log", "forward-client")
PARTS = st.one_of(TEXTS, st.sampled_from(("?", "#", "@", ":", "/", "%", "&a=b", "from=1", "[::1]")))


@fuzz
@given(st.sampled_from(VARIABLES), TEXTS)
def test_settings_of_the_environment(variable: str, text: str) -> None:
    value = text.replace("\0", "")
    # What names a file or a module of this machine is not tried out.
    made = bounded(lambda: Settings.from_mapping({variable: value}), SettingsError)
    assert made is None or isinstance(made, Settings)


@fuzz
@given(st.sampled_from(SCHEMES), st.lists(PARTS, max_size=6))
def test_addresses_of_providers(scheme: str, parts: list[str]) -> None:
    address = f"{scheme}://{''.join(parts)}"
    bounded(lambda: parse_provider_url("SMSQUEUE_PROVIDER_MAIN", address), SettingsError)
    gateway = Gateway(Settings(eager=True))
    bounded(lambda: add_providers(gateway, {"SMSQUEUE_PROVIDER_MAIN": address}), SettingsError)


OPTION = click.Option(["--since"])


@fuzz
@given(st.one_of(TEXTS, st.datetimes().map(datetime.isoformat), st.from_regex(r"\A\d{1,9}[smhd]")))
def test_times_of_the_command_line(text: str) -> None:
    context = click.Context(main)
    for function in (parse_past_time, parse_zoned_time):
        found = bounded(lambda f=function: f(context, OPTION, text), click.BadParameter)
        assert found is None or found.tzinfo


@settings(fuzz, max_examples=max(10, EXAMPLES // 10))
@given(st.sampled_from(("send", "find", "show", "list", "status")), st.lists(TEXTS, max_size=3))
def test_arguments_of_the_command_line(command: str, words: list[str]) -> None:
    """A wrong one is said in words; nothing is a traceback."""
    arguments = [word.replace("\0", "") for word in words]
    environment = {"SMSQUEUE_REDIS_URL": "redis://127.0.0.1:9/0"}
    result = CliRunner().invoke(main, [command, *arguments], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit)
