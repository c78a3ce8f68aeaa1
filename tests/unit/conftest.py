"""What every unit test starts from: no SMSQUEUE_* variable of the caller."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SMSQUEUE_"):
            monkeypatch.delenv(name)
