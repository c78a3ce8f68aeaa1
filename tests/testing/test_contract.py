"""The checks of the contract detect the faults of a provider, and name them."""

from __future__ import annotations

import importlib.util
import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.providers.account import AccountProvider
from smsqueue.providers.capabilities import Can
from smsqueue.testing.contract import checks
from smsqueue.testing.examples import Examples

FOLDER = Path(__file__).parents[2] / "examples" / "pigeon"


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def examples() -> Examples:
    """The examples of a provider without faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        found: Examples = module(FOLDER / "tests" / "test_pigeon_sms.py").EXAMPLES
    return found


def test_the_example_provider_passes_all_checks(examples: Examples) -> None:
    found = checks(examples)
    assert len(found) > 40
    for check in found:
        check()


def shows(good: type[Any]) -> dict[str, Any]:
    return {"__repr__": lambda self: f"<{self._headers}>"}


def tells(good: type[Any]) -> dict[str, Any]:
    def error(self: Any, answer: Any) -> Exception:
        return exc.RequestError(answer.body.decode(), provider=self.name)

    return {"error": error}


def logs(good: type[Any]) -> dict[str, Any]:
    def submit(self: Any, message: OutgoingMessage) -> None:
        logging.getLogger("pigeon").debug("calling with %s", self._headers)
        good.submit(self, message)

    return {"submit": submit}


def chains(good: type[Any]) -> dict[str, Any]:
    """Its own error shows nothing, but the error that a traceback shows above it does."""

    def error(self: Any, answer: Any) -> Exception:
        refusal = exc.RequestError(provider=self.name)
        refusal.__cause__ = ValueError(answer.body.decode())
        return refusal

    return {"error": error}


def boasts(good: type[Any]) -> dict[str, Any]:
    return {"capabilities": good.capabilities | {Can.LOOKUP}}


def hides(good: type[Any]) -> dict[str, Any]:
    return {"capabilities": good.capabilities - {Can.BALANCE}}


def varies(good: type[Any]) -> dict[str, Any]:
    def submit(self: Any, message: OutgoingMessage) -> None:
        message.provider_params = {"nonce": str(uuid.uuid4())}
        good.submit(self, message)

    capabilities = good.capabilities | {Can.DEDUPLICATION}
    return {"submit": submit, "capabilities": capabilities, "dedup_window": 60.0}


def trusts(good: type[Any]) -> dict[str, Any]:
    def told(self: Any) -> Any:
        from flask import request

        return request.get_json()

    return {"_told": told}


def mixes(good: type[Any]) -> dict[str, Any]:
    """Reads the query of what Flask takes for a GET, and verifies the body."""

    def told(self: Any) -> Any:
        from flask import request

        found = good._told(self)
        return found | request.args.to_dict()

    return {"_told": told}


def opens(good: type[Any]) -> dict[str, Any]:
    return {"need_secret": lambda self: None}


def loses(good: type[Any]) -> dict[str, Any]:
    def submit(self: Any, message: OutgoingMessage) -> None:
        try:
            good.submit(self, message)
        except exc.ConnectionError:
            raise exc.ConnectionError("try again", provider=self.name) from None

    return {"submit": submit}


def forgets(good: type[Any]) -> dict[str, Any]:
    return {"_receive_message": lambda self, message: message}


def swaps(good: type[Any]) -> dict[str, Any]:
    def receive(self: Any, message: IncomingMessage) -> IncomingMessage:
        message.src, message.dst = message.dst or "", message.src
        received: IncomingMessage = AccountProvider._receive_message(self, message)
        return received

    return {"_receive_message": receive}


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        (shows, "secrets are not shown", "secrets[0] is shown in the provider's repr"),
        (tells, "secrets are not shown", "the number is shown in the error"),
        (logs, "secrets are not shown", "secrets[0] is shown in the log"),
        (chains, "secrets are not shown", "the number is shown in the error"),
        (boasts, "capabilities match the class", "claims lookup, and lacks it"),
        (hides, "capabilities match the class", "does not claim balance, and has it"),
        (varies, "a repeated call makes the same request", "another body"),
        (trusts, "unsigned: incoming", ""),
        (trusts, "tampered: status landed", ""),
        (mixes, "relocated: incoming", "155512345679"),
        (opens, "no secret, no receiver", "without its secret it makes a receiver"),
        (loses, "error: the answer is lost", "ambiguous=False"),
        (forgets, "webhook: incoming", ""),
        (swaps, "webhook: incoming", ""),
    ],
)
def test_a_fault_is_detected(
    examples: Examples, fault: Callable[[type[Any]], dict[str, Any]], check: str, said: str
) -> None:
    good = examples.provider
    faulty = replace(examples, provider=type("Faulty", (good,), fault(good)))
    [found] = [each for each in checks(faulty) if str(each) == check]
    with pytest.raises(AssertionError) as caught:
        found()
    assert said in str(caught.value)
