"""Finding the application's gateway, and what is said if that fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smsqueue.configuration.loader import LoaderError, load_gateway
from smsqueue.gateway import Gateway
from smsqueue.settings import Settings

Write = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A foreign folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in ("SMSQUEUE_GATEWAY", "SMSQUEUE_EAGER", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in list(sys.modules):
        if name.partition(".")[0] in ("shop", "shop_sms", "django"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def load(where: str, *, queued: bool = False) -> Gateway:
    return load_gateway(Settings(gateway=where), queued=queued)


def refusal(where: str, *, queued: bool = False) -> str:
    with pytest.raises(LoaderError) as caught:
        load(where, queued=queued)
    # Nothing but the text is to be shown.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def one_line(where: str, *, queued: bool = False) -> str:
    text = refusal(where, queued=queued)
    assert "\n" not in text
    return text


GATEWAY = "from smsqueue.gateway import Gateway\ngateway = Gateway(eager=True)\n"
QUEUED = "from smsqueue.gateway import Gateway\ngateway = Gateway(eager=False)\n"


def test_a_gateway_of_a_module_in_the_current_folder(write: Write) -> None:
    write("shop/sms.py", GATEWAY)
    gateway = load("shop.sms:gateway")
    assert gateway is sys.modules["shop.sms"].gateway


def test_a_function_that_makes_the_gateway(write: Write) -> None:
    write("shop_sms.py", "from smsqueue.gateway import Gateway\ndef make(): return Gateway()")
    assert isinstance(load("shop_sms:make"), Gateway)


def test_the_current_folder_is_added_once(write: Write, tmp_path: Path) -> None:
    write("shop_sms.py", GATEWAY)
    load("shop_sms:gateway")
    load("shop_sms:gateway")
    assert sys.path.count(str(tmp_path)) == 1


def test_a_file_of_the_current_folder_does_not_take_the_place_of_an_installed_package(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("shop_sms.py", f"import this_is_installed\n{GATEWAY}")
    write("installed/this_is_installed.py", "")
    write("this_is_installed.py", "raise RuntimeError('the one of the current folder')")
    monkeypatch.setattr(sys, "path", [*sys.path, os.path.abspath("installed")])
    assert load("shop_sms:gateway")
    assert sys.path[-1] == os.getcwd()


def test_not_set() -> None:
    assert one_line("").startswith("SMSQUEUE_GATEWAY is not set: set it to")


@pytest.mark.parametrize("where", ["shop.sms", "shop.sms:", ":gateway", ".sms:gateway"])
def test_not_a_place(where: str) -> None:
    text = one_line(where)
    assert repr(where) in text
    assert "package.module:attribute" in text


def test_no_such_module(tmp_path: Path) -> None:
    text = one_line("shop.sms:gateway")
    assert "'shop.sms'" in text
    assert "there is no 'shop'" in text
    assert str(tmp_path) in text


def test_no_such_module_in_the_package(write: Write) -> None:
    write("shop/__init__.py", "")
    assert "there is no 'shop.sms'" in one_line("shop.sms:gateway")


def test_a_module_as_if_it_were_a_package(write: Write) -> None:
    write("shop.py", "")
    assert "there is no 'shop.sms'" in one_line("shop.sms:gateway")


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("import missing_thing", "ModuleNotFoundError: No module named 'missing_thing'"),
        ("import os\nos.environ['CARRIER_KEY']", "KeyError: 'CARRIER_KEY'"),
        ("from json import nothing", "ImportError: cannot import name 'nothing'"),
        ("def broken(:", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_fails_shows_its_own_traceback_only(
    write: Write, code: str, last: str
) -> None:
    write("shop/sms.py", code + "\n")
    text = refusal("shop.sms:gateway")
    lines = text.splitlines()
    assert "'shop.sms'" in lines[0]
    assert "fails when it is imported" in lines[0]
    assert lines[-1].startswith(last)
    assert "shop/sms.py" in text
    assert "loader.py" not in text
    assert "importlib" not in text


def test_a_cause_in_another_module_is_shown(write: Write) -> None:
    write("shop/__init__.py", "")
    write("shop/carrier.py", "int('x')")
    write(
        "shop/sms.py",
        "try:\n    import shop.carrier\nexcept ValueError as e:\n    raise OSError from e",
    )
    text = refusal("shop.sms:gateway")
    assert "shop/carrier.py" in text
    assert "direct cause" in text
    assert text.splitlines()[-1] == "OSError"


@pytest.mark.parametrize("name", ["gatway", "Gateway_", "gateway()"])
def test_a_misspelt_name(write: Write, name: str) -> None:
    write("shop_sms.py", "from smsqueue.gateway import Gateway\n\ndef gateway(): return Gateway()")
    text = one_line(f"shop_sms:{name}")
    assert f"{name!r}, which 'shop_sms' does not have: did you mean" in text
    assert "'gateway'" in text or "'Gateway'" in text


def test_another_name_than_the_gateways(write: Write) -> None:
    write("shop_sms.py", GATEWAY.replace("gateway =", "outbound ="))
    assert one_line("shop_sms:gateway").endswith("did you mean 'outbound'?")


def test_nothing_like_it(write: Write) -> None:
    write("shop_sms.py", "")
    assert "does not have" in one_line("shop_sms:gateway")


def test_something_else_than_a_gateway(write: Write) -> None:
    write("shop_sms.py", "gateway = 7")
    assert "of type 'int', not a Gateway" in one_line("shop_sms:gateway")


@pytest.mark.parametrize(("code", "shown"), [("pass", "None"), ("return 7", "'int'")])
def test_a_function_that_makes_something_else(write: Write, code: str, shown: str) -> None:
    write("shop_sms.py", f"def make(): {code}")
    assert f"returns {shown}: it must return the Gateway" in one_line("shop_sms:make")


def test_a_function_that_raises(write: Write) -> None:
    write("shop_sms.py", "def make():\n    raise RuntimeError('no carrier')")
    text = refusal("shop_sms:make")
    assert "fails when it is called:\nTraceback" in text
    assert "in make\n" in text
    assert text.endswith("RuntimeError: no carrier")
    assert "loader.py" not in text


def test_a_function_that_wants_arguments(write: Write) -> None:
    write("shop_sms.py", "def make(settings): ...")
    assert refusal("shop_sms:make").splitlines()[1:] == [
        "TypeError: make() missing 1 required positional argument: 'settings'"
    ]


ADDING = """
from smsqueue.gateway import Gateway
from smsqueue.providers.africastalking import AfricasTalkingProvider
gateway = Gateway()
gateway.add_provider("africa", AfricasTalkingProvider, username="u", api_key="key-of-ours", {})
"""


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("webhook_sources='nowhere'", "webhook_sources of the provider 'africa'"),
        ("webhook_prefix='a b'", "webhook_prefix of the provider 'africa'"),
        ("webhook_prefix=7", "webhook_prefix of the provider 'africa' must be a string or several"),
        ("url='key-of-ours'", "the url of provider 'africa' must begin with http"),
        ("read_timeout='key-of-ours'", "AfricasTalkingProvider: read_timeout must be a number"),
        ("webhook_source='1.2.3.4'", "not take 'webhook_source' (did you mean webhook_sources?)"),
        ("colour=1", "does not take 'colour'; it takes: api_key, "),
        ("read_timeout=0", "timeouts and pool_size of provider 'africa' must be more than 0"),
    ],
)
def test_a_mistake_in_add_provider_is_one_line_with_its_place_and_without_secrets(
    write: Write, argument: str, said: str
) -> None:
    write("shop_sms.py", ADDING.format(argument))
    text = one_line("shop_sms:gateway")
    assert said in text
    assert "shop_sms.py:5: " in text
    assert "key-of-ours" not in text


def test_a_mistake_in_a_setting_of_the_module_is_one_line(write: Write) -> None:
    write("shop_sms.py", "from smsqueue.settings import Settings\nSettings(retention='never')\n")
    assert "shop_sms.py:2: " in one_line("shop_sms:gateway")


OWN = """
from smsqueue.gateway import Gateway
from smsqueue.providers.base import IProvider
class Own(IProvider):
    def __init__(self, gateway, name, *, key): self.key = {}
def make():
    gateway = Gateway()
    gateway.add_provider("own", Own, key="key-of-ours")
"""


@pytest.mark.parametrize(
    ("where", "code", "last"),
    [
        ("gateway", "token = 'key-of-ours'; import missing_thing", "ModuleNotFoundError: No mod"),
        ("gateway", "token = 'key-of-ours' 7", "SyntaxError: invalid syntax"),
        ("gateway", "try: int('x' or 'key-of-ours')\nexcept ValueError as e: raise OSError from e"
         " or 'key-of-ours'", "OSError"),
        ("make", OWN.format("int(key)"), "ValueError: invalid literal for int() with base 10: '.."),
        ("make", OWN.format("{key: 'key-of-ours'}.missing"), "AttributeError: 'dict' object"),
    ],
)  # fmt: skip
def test_no_source_line_and_no_argument_of_a_provider_is_shown(
    write: Write, where: str, code: str, last: str
) -> None:
    write("shop_sms.py", code + "\n")
    text = refusal(f"shop_sms:{where}")
    assert 'shop_sms.py", line' in text
    assert text.splitlines()[-1].startswith(last)
    assert "key-of-ours" not in text


def test_an_eager_gateway_has_nothing_for_a_worker(write: Write) -> None:
    write("shop_sms.py", GATEWAY)
    assert isinstance(load("shop_sms:gateway"), Gateway)
    assert "eager" in one_line("shop_sms:gateway", queued=True)


def test_a_queued_gateway_for_a_worker(write: Write) -> None:
    write("shop_sms.py", QUEUED)
    assert isinstance(load("shop_sms:gateway", queued=True), Gateway)


def test_django_is_set_up_first(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, os.path.abspath("installed"))  # before the one that is installed
    write(
        "installed/django/__init__.py",
        "ready = False\ndef setup():\n    global ready\n    ready = True",
    )
    write("shop_sms.py", "import django\nassert django.ready\n" + GATEWAY)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
    load("shop_sms:gateway")


def test_django_that_fails(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, os.path.abspath("installed"))  # before the one that is installed
    write("installed/django/__init__.py", "def setup():\n    raise ValueError('bad settings')")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
    text = refusal("shop_sms:gateway")
    assert text.startswith("Django could not be set up:\nTraceback")
    assert text.endswith("ValueError: bad settings")


def test_django_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
    monkeypatch.setitem(sys.modules, "django", None)
    text = one_line("shop_sms:gateway")
    assert "'shop.settings'" in text
    assert "Django is not installed" in text
