"""``import smsframework`` imports smsqueue; each test runs a new process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL = "from smsqueue.compat import install_as_smsframework as install; install()\n"

#: Modules that applications and plugins import, and the real ones.
MODULES = {
    "smsframework": "smsqueue",
    "smsframework.Gateway": "smsqueue.gateway",
    "smsframework.IProvider": "smsqueue.providers.base.provider",
    "smsframework.exc": "smsqueue.exc",
    "smsframework.data": "smsqueue.data",
    "smsframework.data.IncomingMessage": "smsqueue.message.messages",
    "smsframework.data.MessageStatus": "smsqueue.message.statuses",
    "smsframework.data.OutgoingMessage": "smsqueue.message.messages",
    "smsframework.data.OutgoingMessageOptions": "smsqueue.data.OutgoingMessageOptions",
    "smsframework.lib": "smsqueue.lib",
    "smsframework.lib.events": "smsqueue.lib.events",
    "smsframework.providers": "smsqueue.providers",
    "smsframework.providers.forward": "smsqueue.providers.forward",
    "smsframework.providers.forward.provider": "smsqueue.providers.forward.provider",
    "smsframework.providers.forward.jsonex": "smsqueue.providers.forward.jsonex",
    "smsframework.providers.log": "smsqueue.providers.log",
    "smsframework.providers.loopback": "smsqueue.providers.loopback",
    "smsframework.providers.null": "smsqueue.providers.null",
}


def run(code: str, folder: Path, *, succeeds: bool = True, warnings: str = "error") -> str:
    completed = subprocess.run(
        [sys.executable, "-W", warnings, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (completed.returncode == 0) is succeeds, completed.stderr
    return (completed.stdout if succeeds else completed.stderr).strip()


@pytest.mark.parametrize("first", ["alias first", "ours first"])
def test_every_module_is_the_same_object_and_none_is_loaded_twice(
    tmp_path: Path, first: str
) -> None:
    code = INSTALL + (
        "import importlib, sys\n"
        f"modules = {MODULES!r}\n"
        f"order = {1 if first == 'alias first' else -1}\n"
        "for pair in reversed(modules.items()):\n"
        "    for name in pair[::order]: importlib.import_module(name)\n"
        "for alias, ours in modules.items():\n"
        "    assert sys.modules[alias] is sys.modules[ours], alias\n"
        "    assert sys.modules[ours].__spec__.name == ours, alias\n"
        "twice = [n for n, m in sys.modules.items() if n.startswith('smsqueue')"
        " and m.__name__ != n]\n"
        "assert not twice, twice\n"
        "import smsqueue\n"
        "assert isinstance(smsqueue.Gateway, type) and isinstance(smsqueue.IProvider, type)\n"
        "assert isinstance(smsqueue.data.OutgoingMessage, type)\n"
        "print(smsqueue.__name__)\n"
    )
    assert run(code, tmp_path) == "smsqueue"


def test_the_imports_of_the_manual_and_of_plugins(tmp_path: Path) -> None:
    code = INSTALL + (
        "from smsframework import Gateway, IProvider, OutgoingMessage, exc\n"
        "from smsframework.Gateway import Gateway as same\n"
        "from smsframework.IProvider import IProvider as also\n"
        "from smsframework.data import *\n"
        "from smsframework.data.OutgoingMessageOptions import OutgoingMessageOptions\n"
        "from smsframework.exc import *\n"
        "from smsframework.lib import digits_only\n"
        "from smsframework.lib.events import EventHook\n"
        "from smsframework.providers import NullProvider, LogProvider, LoopbackProvider\n"
        "from smsframework.providers.loopback import LoopbackProvider as lo\n"
        "import smsframework.exc, smsqueue\n"
        "assert same is Gateway is smsqueue.Gateway and also is IProvider is smsqueue.IProvider\n"
        "assert CreditError is exc.CreditError is smsqueue.exc.CreditError\n"
        "assert smsframework.exc is smsqueue.exc and lo is LoopbackProvider\n"
        "gateway = Gateway(eager=True)\n"
        "gateway.add_provider('null', NullProvider)\n"
        "print(gateway.send(OutgoingMessage('+1', 'x')).msgid, MessageDelivered.__module__)\n"
    )
    assert run(code, tmp_path) == "1 smsqueue.message.statuses"


def test_the_jsonex_functions_have_smsframeworks_path(tmp_path: Path) -> None:
    code = INSTALL + (
        "from datetime import datetime\n"
        "from smsframework import OutgoingMessage, exc\n"
        "from smsframework.providers.forward.provider import jsonex_dumps, jsonex_loads\n"
        "message = OutgoingMessage('+1555', 'hi').options(senderId='me').params(a=1).route(1)\n"
        "at = datetime(2026, 2, 3, 4, 5, 6)\n"
        "written = jsonex_dumps({'message': message, 'error': exc.CreditError('no'), 'at': at})\n"
        "assert isinstance(written, bytes)\n"
        "read = jsonex_loads(written)\n"
        "loaded = read['message']\n"
        "assert type(loaded) is OutgoingMessage and type(read['error']) is exc.CreditError\n"
        "assert read['error'].args == ('no',) and read['at'] == at\n"
        "print(loaded.dst, loaded.body, loaded.provider_options.senderId, loaded.provider_params)\n"
    )
    assert run(code, tmp_path) == "1555 hi me {'a': 1}"


def test_installing_it_again_has_no_effect(tmp_path: Path) -> None:
    code = "import sys\n" + INSTALL * 2 + "install(); print(len(sys.meta_path))"
    assert run(code, tmp_path) == run("import sys; print(len(sys.meta_path) + 1)", tmp_path)


@pytest.mark.parametrize("early", ["smsframework", "smsframework.exc", "smsframework_pswin"])
def test_installing_it_after_an_import_of_smsframework_is_an_error(
    tmp_path: Path, early: str
) -> None:
    code = f"import {early}\n" + INSTALL
    error = run(code, tmp_path, succeeds=False, warnings="ignore").splitlines()[-1]
    assert error.startswith("RuntimeError: smsframework was imported already, from ")
    assert "before anything imports smsframework or its plugins" in error


def test_a_module_that_does_not_exist(tmp_path: Path) -> None:
    error = run(INSTALL + "import smsframework.nothing", tmp_path, succeeds=False).splitlines()[-1]
    assert error == (
        "ModuleNotFoundError: no module named 'smsframework.nothing': "
        "smsframework is an alias of smsqueue here, which has no 'smsqueue.nothing'"
    )


def test_network_errors_of_plugins_are_translated_as_with_smsframework(tmp_path: Path) -> None:
    """Their errors are instances of our classes already; ``ambiguous`` is still set."""
    code = INSTALL + (
        "import socket, threading\n"
        "from smsframework import Gateway, OutgoingMessage, exc, IProvider\n"
        "from smsframework_pswin import PswinProvider\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "here = '127.0.0.1:%d' % server.getsockname()[1]\n"
        "gateway = Gateway(eager=True)\n"
        "config = dict(user='u', password='p', hostname=here)\n"
        "provider = gateway.add_provider('main', PswinProvider, **config)\n"
        "assert isinstance(provider, (PswinProvider, IProvider))\n"
        "def hang_up(): c = server.accept()[0]; c.recv(9); c.close()\n"
        "thread = threading.Thread(target=hang_up); thread.start()\n"
        "def send():\n"
        "    try: gateway.send(OutgoingMessage('1', 'x'))\n"
        "    except exc.ConnectionError as error: print(error.ambiguous)\n"
        "send(); thread.join(); server.close(); send()\n"
    )
    assert run(code, tmp_path, warnings="ignore").split() == ["True", "False"]


def test_smsframework_need_not_be_installed(tmp_path: Path) -> None:
    """An import hook hides the real one."""
    (tmp_path / "hidden.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'smsframework':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    code = (
        "import hidden\n"
        + INSTALL
        + (
            "import jwt, smsframework_gatewayapi.receiver, smsframework_clickatell.receiver\n"
            "from smsframework_gatewayapi import GatewayAPIProvider\n"
            "from smsframework import Gateway\n"
            "gateway = Gateway(eager=True)\n"
            "gateway.add_provider('main', GatewayAPIProvider, key='k', secret='s')\n"
            "from flask import Flask\n"
            "client = gateway.receiver_blueprints_register(Flask('app')).test_client()\n"
            "reports = []\n"
            "gateway.onStatus += reports.append\n"
            "webhook = {'id': 1, 'time': 1, 'status': 'DELIVERED'}\n"
            "print(client.post('/main/callback', json=webhook).text, reports[0].state)\n"
        )
    )
    assert run(code, tmp_path, warnings="ignore") == "okay, thanks! delivered"
