"""smsqueue check, smsqueue providers"""

from __future__ import annotations

import importlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from smsqueue import Gateway, OutgoingMessage, Settings

_modules = itertools.count(1)

MODULE = """
from smsqueue import Gateway
from smsqueue.providers import LogProvider
from smsqueue.providers.simulator import SimulatorProvider

print("noise")


def route(message, kind):
    return None


def on_receive(message):
    pass


gateway = Gateway()
gateway.add_provider("main", SimulatorProvider, url="http://127.0.0.1:1", token="hush")
gateway.add_provider("backup", LogProvider)
gateway.router = route
gateway.onReceive += on_receive
"""
PREFIX = "hard-to-guess"


@pytest.fixture
def app(tmp_path: Path, monkeypatch) -> Iterator[Callable[[str], str]]:
    """Writes a module of an application; the value of SMSQUEUE_GATEWAY for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("GATEWAY", "RECEIVER_PREFIX", "PUBLIC_URL"):
        monkeypatch.delenv(f"SMSQUEUE_{name}", raising=False)

    def write(text: str = MODULE) -> str:
        name = f"shop_sms_{next(_modules)}"
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
        importlib.invalidate_caches()
        return f"{name}:gateway"

    yield write
    for name in [name for name in sys.modules if name.startswith("shop_sms_")]:
        del sys.modules[name]


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_findings_of_a_complete_configuration(run, run_json, app, live, settings) -> None:
    live()
    env = {
        "SMSQUEUE_GATEWAY": app(),
        "SMSQUEUE_RECEIVER_PREFIX": f"{PREFIX}, the-older-one",
        "SMSQUEUE_PUBLIC_URL": "https://sms.example.org/",
    }
    result = run("check", **env)
    lines = _lines(result.stdout)
    module = env["SMSQUEUE_GATEWAY"].partition(":")[0]
    for line in (
        f"ok gateway {module}:gateway",
        "ok provider main: smsqueue.providers.simulator.SimulatorProvider, the default",
        "ok provider backup: smsqueue.providers.log.LogProvider",
        f"ok router {module}:route",
        f"ok onReceive {module}:on_receive",
        "note onStatus no handler",
        f"ok workers 1 live worker for {settings.send_queue} and {settings.hook_queue}",
        "note receivers 2 prefixes are served: enter the first one at the providers",
        "ok webhook main: POST https://sms.example.org/***/main/im",
        "ok webhook main: POST https://sms.example.org/***/main/status",
        "1 warning",
    ):
        assert line in lines, line
    assert "AOF with appendfsync everysec, no RDB snapshots, eviction policy noeviction" in (
        result.stdout
    )
    assert f"warning redis Redis at {settings.redis_url} has no maxmemory: set it below" in (
        " ".join(lines)
    )
    redis = run_json("check", **env)["redis"]
    assert (redis["name"], redis["aof"], redis["fsync"], redis["role"]) == (
        *("Redis", True, "everysec", "primary"),
    )
    assert PREFIX not in result.output
    assert "hush" not in result.output
    revealed = run("check", "--reveal", **env).stdout
    assert f"https://sms.example.org/{PREFIX}/main/im" in revealed
    document = run_json("check", **env)
    assert document["ok"] is True
    assert [p["name"] for p in document["gateway"]["providers"]] == ["main", "backup"]
    assert document["gateway"]["handlers"]["onReceive"] == [f"{module}:on_receive"]
    assert document["webhooks"][0] == {
        **{"provider": "main", "url": "https://sms.example.org/***/main/im", "methods": ["POST"]},
    }
    assert PREFIX not in str(document)


def test_webhooks_that_can_be_forged_are_a_warning(run_json, app) -> None:
    """The provider cannot sign, does not verify, or its class says that it does not."""
    text = MODULE + (
        "\n\nclass Own(SimulatorProvider):\n    authenticates = False\n\n\n"
        "gateway.add_provider('own', Own, url='http://127.0.0.1:9')\n"
    )
    accounts = {
        "SMSQUEUE_PROVIDER_AT": "africastalking://sandbox:key@default",
        "SMSQUEUE_PROVIDER_TW": "twilio://AC0:token@default?from=+15550001",
        "SMSQUEUE_PROVIDER_OPEN": "twilio://AC1:token@default?from=+15550001&insecure=1",
        "SMSQUEUE_PROVIDER_CLICK": "clickatell://key@default?secret=user:password",
        "SMSQUEUE_PROVIDER_BARE": "clickatell://key@default",
        "SMSQUEUE_DEFAULT_PROVIDER": "tw",
    }
    where = {"SMSQUEUE_PUBLIC_URL": "https://sms.example.org", "SMSQUEUE_RECEIVER_PREFIX": PREFIX}
    document = run_json("check", SMSQUEUE_GATEWAY=app(text), **accounts, **where)
    assert document["gateway"], document["points"][0]
    levels: dict[str, set[str]] = {}
    for point in document["points"]:
        if point["about"] == "webhook":
            levels.setdefault(point["what"].partition(":")[0], set()).add(point["level"])
            if point["level"] == "warning":
                assert (
                    "anybody who knows" in point["what"]
                    or "does not say that it authenticates" in point["what"]
                )
                assert point["do"].startswith("keep the prefix secret")
    assert levels == {
        **{"main": {"ok"}, "tw": {"ok"}, "click": {"ok"}},
        **{"at": {"warning"}, "open": {"warning"}, "bare": {"warning"}, "own": {"warning"}},
    }


def test_existing_protection_of_unsigned_webhooks_is_not_recommended_again(run) -> None:
    africa, own = "africastalking://sandbox:key@default", "webhook_prefix=hard-to-guess-own"
    env = {"SMSQUEUE_PUBLIC_URL": "https://sms.example.org", "SMSQUEUE_RECEIVER_PREFIX": PREFIX}

    def check(address: str) -> str:
        text: str = run("check", SMSQUEUE_PROVIDER_AT=address, **env).stdout
        return " ".join(text.split())

    document = check(africa)
    assert "ok gateway its providers are from SMSQUEUE_PROVIDER_AT ok provider" in document
    assert (
        "secret, give the provider one of its own (webhook_prefix), and admit only the" in document
    )
    document = check(f"{africa}?{own}")
    assert "keep the prefix secret, and admit only the provider's networks" in document
    assert "(webhook_prefix)" not in document
    document = check(f"{africa}?{own}&webhook_sources=192.0.2.0/24")
    assert (
        "from 1 network only (from there: its webhooks are not signed: anybody who knows"
        in document
    )
    assert "their address can forge them): keep the prefix secret" in document


def test_plain_http_and_a_short_prefix_are_warnings(run_json, app) -> None:
    env = {
        "SMSQUEUE_GATEWAY": app(),
        "SMSQUEUE_PROVIDER_TW": "twilio://AC0:token@default?url=http://api.example.org/&from=+15550001",
        "SMSQUEUE_PROVIDER_SAFE": "twilio://AC0:token@default?from=+15550001",
        "SMSQUEUE_PROVIDER_SI": "sinch://default?project_id=p&key_id=k&key_secret=s"
        "&auth_url=http://auth.example.org/token&secret=u:p",
        "SMSQUEUE_DEFAULT_PROVIDER": "tw",
        "SMSQUEUE_PUBLIC_URL": "http://sms.example.org",
        "SMSQUEUE_RECEIVER_PREFIX": "hidden",
    }
    points = run_json("check", **env)["points"]
    warned = [point["what"] for point in points if point["level"] == "warning"]
    assert any(what.startswith("tw: ") and "api.example.org over plain" in what for what in warned)
    assert any(what.startswith("si: ") and "auth.example.org over plain" in what for what in warned)
    assert not any(what.startswith(("safe: ", "main: ")) for what in warned)
    assert any("SMSQUEUE_PUBLIC_URL is plain http://" in what for what in warned)
    assert any("a prefix has less than 12 characters" in what for what in warned)
    assert not any("hidden" in str(point) for point in points)


def test_missing_settings(run, app) -> None:
    lines = _lines(run("check", SMSQUEUE_GATEWAY=app()).stdout)
    assert any("SMSQUEUE_PUBLIC_URL is not set: set it to" in line for line in lines)
    assert any("SMSQUEUE_RECEIVER_PREFIX is not set" in line for line in lines)
    assert any(line.startswith("warning workers no worker is consuming") for line in lines)
    assert "ok webhook main: POST /PREFIX/main/im" in lines
    assert lines[-1] == "4 warnings"
    without_handler = app(MODULE.replace("gateway.onReceive += on_receive", ""))
    text = run("check", SMSQUEUE_GATEWAY=without_handler).stdout
    assert "incoming messages have no handler: add one with gateway.onReceive += handler" in text


def test_a_gateway_that_cannot_be_loaded(run, run_json, app) -> None:
    result = run("check", code=1)
    assert "problem  gateway    SMSQUEUE_GATEWAY is not set" in result.stdout
    assert "ok       redis" in result.stdout
    document = run_json("check", code=1, SMSQUEUE_GATEWAY="shop_sms_none:gateway")
    assert (document["ok"], document["gateway"]) == (False, None)
    assert "there is no 'shop_sms_none'" in document["points"][0]["what"]


def test_problems_of_a_gateway(run, app) -> None:
    text = "from smsqueue import Gateway, Settings\n"
    text += "gateway = Gateway(Settings(namespace='other', redis_url='redis://:hush@x'))\n"
    result = run("check", code=1, SMSQUEUE_GATEWAY=app(text))
    assert "another namespace than SMSQUEUE_NAMESPACE" in result.stdout
    assert "another redis_url than SMSQUEUE_REDIS_URL" in result.stdout
    assert "the gateway has none, so workers do not start: add one" in result.stdout
    assert "no provider has webhooks" in result.stdout
    assert "3 problems" in result.stdout
    assert "hush" not in result.output


def test_problems_of_redis(run, app, redis_server) -> None:
    url = redis_server("--appendonly", "no").url
    result = run("check", code=1, SMSQUEUE_GATEWAY=app(), SMSQUEUE_REDIS_URL=url)
    assert "problem  redis" in result.stdout
    assert "has no AOF" in result.stdout
    url = redis_server("--maxmemory", "1gb", "--appendfsync", "no").url
    result = run("check", SMSQUEUE_GATEWAY=app(), SMSQUEUE_REDIS_URL=url)
    assert "appendfsync no): a power cut loses about the last 30 s" in result.stdout
    assert "has no maxmemory" not in result.stdout
    result = run("check", code=1, SMSQUEUE_GATEWAY=app(), SMSQUEUE_REDIS_URL="redis://127.0.0.1:1")
    assert "cannot be reached: start it" in result.stdout


def test_without_flask(run, run_json, app, monkeypatch) -> None:
    where = app()
    for name in [name for name in sys.modules if name.partition(".")[0] == "flask"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flask", None)
    text = run("check", SMSQUEUE_GATEWAY=where).stdout
    assert "note     receivers  the receivers extra is not installed: pip install" in text
    document = run_json("providers", SMSQUEUE_GATEWAY=where)["providers"]
    assert [provider["receives"] for provider in document] == [None, False]


def test_a_misspelled_variable(run, app) -> None:
    others = {"SMSQUEUE_REDIS_SERVER": "/bin/redis", "SMSQUEUE_SIMULATOR_URL": "http://x"}
    document = run("check", SMSQUEUE_GATEWAY=app(MODULE), SMSQUEUE_PUBLICURL="secret", **others)
    assert (
        "SMSQUEUE_PUBLICURL is not a known setting: did you mean SMSQUEUE_PUBLIC_URL?"
        in document.stdout
    )
    assert document.stdout.count("did you mean") == 1
    assert "secret" not in document.output


def test_a_provider_whose_webhooks_fail(run, app) -> None:
    text = MODULE + (
        "\n\ndef fail(self):\n    raise ValueError('hush')\n\n\n"
        "LogProvider = type('Own', (LogProvider,), {'make_receiver_blueprint': fail})\n"
        "gateway.add_provider('own', LogProvider)\n"
    )
    result = run("check", code=1, SMSQUEUE_GATEWAY=app(text))
    assert "own cannot make its webhooks (ValueError)" in result.stdout
    assert "hush" not in result.output


def test_a_provider_with_a_missing_module_does_not_hide_the_others(run, app) -> None:
    text = MODULE + (
        "\n\ndef fail(self):\n    import nowhere_to_be_found\n\n\n"
        "LogProvider = type('Own', (LogProvider,), {'make_receiver_blueprint': fail})\n"
        "gateway.add_provider('own', LogProvider)\n"
    )
    accounts = {
        "SMSQUEUE_PROVIDER_INFO": "infobip://key@default?url=https://x.api.infobip.com",
        "SMSQUEUE_PROVIDER_TW": "twilio://AC0:token@default?from=+15550001",
        "SMSQUEUE_DEFAULT_PROVIDER": "tw",
    }
    where = {"SMSQUEUE_PUBLIC_URL": "https://sms.example.org", "SMSQUEUE_RECEIVER_PREFIX": PREFIX}
    document = run("check", code=1, SMSQUEUE_GATEWAY=app(text), **accounts, **where).stdout
    assert "own cannot receive, as there is no module 'nowhere_to_be_found'" in document
    assert "'info' (InfobipProvider) has no secret" in document
    assert "https://sms.example.org/***/tw/status" in document
    assert "no delivery reports are requested" not in document
    assert "ends with the prefix" not in document
    where["SMSQUEUE_PUBLIC_URL"] += f"/{PREFIX}/"
    document = run("check", code=1, SMSQUEUE_GATEWAY=app(text), **accounts, **where).stdout
    assert "SMSQUEUE_PUBLIC_URL ends with the prefix: leave the prefix out" in document
    document = run("check", code=1, SMSQUEUE_GATEWAY=app(text), **accounts).stdout
    assert "no delivery reports are requested from info, tw: set SMSQUEUE_PUBLIC_URL" in document


@pytest.fixture
def serve() -> Iterator[Callable[[int, bytes], str]]:
    """A server that answers everything the same; its address."""
    servers = []

    def start(status: int, body: bytes) -> str:
        def application(environ, start_response):
            start_response(f"{status} x", [("Content-Type", "text/plain")])
            return [body]

        server = make_server("127.0.0.1", 0, application)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_probe(run, app, serve) -> None:
    def probe(url: str | None, code: int = 0) -> str:
        env = {"SMSQUEUE_GATEWAY": app(), "SMSQUEUE_RECEIVER_PREFIX": PREFIX}
        if url:
            env["SMSQUEUE_PUBLIC_URL"] = url
        text: str = run("check", "--probe", code=code, **env).stdout
        return text

    assert "probe      skipped" in probe(None)
    url = serve(200, b"ok\n")
    assert f"ok       probe      {url}/healthz answers as the receivers do" in probe(url)
    for status, body in ((404, b"not found"), (200, b"<h1>welcome</h1>")):
        url = serve(status, body)
        text = f"warning  probe      {url}/healthz answers {status}, not as the receivers"
        assert text in probe(url)
    text = "problem  probe      http://127.0.0.1:1/healthz does not answer"
    assert text in probe("http://127.0.0.1:1", code=1)


def test_providers(run, run_json, app, make) -> None:
    make("retrying", error="CreditError", pause_ms=60_000, pause_max_ms=60_000)
    make("sent", "backup")
    where = app()
    lines = _lines(run("providers", SMSQUEUE_GATEWAY=where).stdout)
    main = next(line for line in lines if line.startswith("main"))
    assert main.startswith("main (default) SimulatorProvider send, receive ")
    assert " 1 0 ? 1 CreditError until " in main  # no worker has taken a sample
    assert main.endswith("(CreditError, 1 in a row): top up the account")
    assert any(line.startswith("backup LogProvider send 60 s 1 1") for line in lines)
    one, two = run_json("providers", SMSQUEUE_GATEWAY=where)["providers"]
    assert (one["name"], one["default"], one["receives"], one["sends"]) == (
        "main",
        True,
        True,
        True,
    )
    assert (one["attempts"], one["sent"], one["errors"]) == (1, 0, {"CreditError": 1})
    assert one["paused"]["do"] == "top up the account"
    assert two["paused"] is None
    assert "SMSQUEUE_GATEWAY is not set" in run("providers", code=1).stderr


def test_the_providers_that_are_installed(run, run_json) -> None:
    document = run_json("providers", "--installed")["installed"]
    assert {"twilio", "vonage", "forward-client", "log"} <= set(document)
    assert run("providers", "--installed").stdout.split() == document


def test_unpacked_records_are_a_warning(run, app, redis_server, settings) -> None:
    text = "the record of a message takes twice the memory that it needs: set"
    for value, warned in (("64", True), ("4096", False)):
        server = redis_server("--hash-max-ziplist-value", value)
        lines = _lines(run("check", SMSQUEUE_GATEWAY=app(), SMSQUEUE_REDIS_URL=server.url).stdout)
        assert any(text in line for line in lines) is warned
        if warned:
            assert any("hash-max-listpack-value 4096" in line for line in lines)


def test_unpacked_records_are_found_without_config(
    run, app, redis_server, settings: Settings
) -> None:
    """A managed Redis has no CONFIG: the encoding of a record shows whether it is packed."""
    server = redis_server("--hash-max-ziplist-value", "64")
    with Gateway(replace(settings, redis_url=server.url)) as gateway:
        gateway.ledger.redis.acl_setuser(
            "app", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all", "-config"]
        )
        url = server.url.replace("//", "//app:any@")
        what = "takes twice the memory"
        assert what not in run("check", SMSQUEUE_GATEWAY=app(), SMSQUEUE_REDIS_URL=url).stdout
        gateway.send(OutgoingMessage("15550001", "x" * 100))
        assert what in run("check", SMSQUEUE_GATEWAY=app(), SMSQUEUE_REDIS_URL=url).stdout
