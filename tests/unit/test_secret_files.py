"""Secrets that stand in files, as Docker's and Kubernetes' do."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smsqueue import Gateway, Settings
from smsqueue.cli import main
from smsqueue.configuration.environment_providers import add_providers
from smsqueue.settings import SettingsError, secret_text

SECRETS = [f.metadata["variable"] for f in dataclasses.fields(Settings) if f.metadata["secret"]]
VALUES = {"SMSQUEUE_REDIS_URL": "redis://:hush-hush@h/0"}


def value_of(variable: str) -> str:
    return VALUES.get(variable, "hush-hush-and-more-of-it-0123456789")


def attribute(settings: Settings, variable: str) -> Any:
    found = getattr(settings, variable.removeprefix("SMSQUEUE_").lower())
    return found[0] if isinstance(found, tuple) else found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("variable", SECRETS)
def test_every_secret_setting_can_stand_in_a_file(
    variable: str, end: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    file.write_bytes(f"{value_of(variable)}{end}".encode())
    assert attribute(Settings.from_mapping({f"{variable}_FILE": str(file)}), variable) == value_of(
        variable
    )
    monkeypatch.setenv(f"{variable}_FILE", str(file))
    assert attribute(Settings(), variable) == value_of(variable)
    monkeypatch.setenv(variable, "")  # as Compose sets what is not there
    assert attribute(Settings(), variable) == value_of(variable)
    monkeypatch.setenv(variable, value_of(variable))
    with pytest.raises(SettingsError, match=f"{variable} and {variable}_FILE are both set"):
        Settings()
    # What the program itself says goes first.
    other = (
        "redis://other/0"
        if variable == "SMSQUEUE_REDIS_URL"
        else "other-and-longer-of-it-0123456789"
    )
    given = Settings(**{variable.removeprefix("SMSQUEUE_").lower(): other})
    assert attribute(given, variable) == other


def test_the_secrets_are_those_that_the_representation_hides() -> None:
    hidden = {f.metadata["variable"] for f in dataclasses.fields(Settings) if not f.repr}
    assert set(SECRETS) == hidden
    assert {"SMSQUEUE_REDIS_URL", "SMSQUEUE_RECEIVER_PREFIX"} <= hidden


@pytest.mark.parametrize("variable", [*SECRETS, "SMSQUEUE_PROVIDER_MAIN"])
def test_a_file_that_cannot_be_read_is_named_without_a_value(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> None:
        add_providers(Gateway(Settings(eager=True)), {f"{variable}_FILE": path})

    monkeypatch.delenv(variable, raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"hush-hush\xff\xfe")
    (tmp_path / "long").write_text("hush-hush" * 10_000)
    for name in ("missing", "empty", "bytes", "long", "."):
        path = str(tmp_path / name)
        monkeypatch.setenv(f"{variable}_FILE", path)
        with pytest.raises(SettingsError) as caught:
            load() if variable.startswith("SMSQUEUE_PROVIDER") else Settings()
        text = str(caught.value)
        assert f"{variable}_FILE" in text
        assert path in text
        assert "hush" not in text
        assert caught.value.__cause__ is None
    # Somebody wrote the secret where its file's name should be.
    path = "twilio://AC0:hush-hush@default"
    monkeypatch.setenv(f"{variable}_FILE", path)
    with pytest.raises(SettingsError, match="must be the path of a file") as caught:
        load() if variable.startswith("SMSQUEUE_PROVIDER") else Settings()
    assert "hush" not in str(caught.value)


def test_a_provider_can_stand_in_a_file(file: Path) -> None:
    file.write_text("twilio://AC0:token@default?from=+15550001\n")
    gateway = Gateway(Settings(eager=True))
    add_providers(gateway, {"SMSQUEUE_PROVIDER_MAIN_FILE": str(file)})
    assert list(gateway.providers) == ["main"]
    assert gateway.default_provider == "main"
    both = {"SMSQUEUE_PROVIDER_MAIN_FILE": str(file), "SMSQUEUE_PROVIDER_MAIN": "log://default"}
    with pytest.raises(SettingsError, match="are one name: remove one"):
        add_providers(Gateway(Settings(eager=True)), both)


def test_an_empty_variable_beside_the_other_one_is_none(file: Path) -> None:
    """Compose sets what is not there to an empty text."""
    file.write_text("log://default")
    name = "SMSQUEUE_PROVIDER_MAIN"
    for given in (
        {name: "", f"{name}_FILE": str(file)},
        {name: "log://default", f"{name}_FILE": ""},
    ):
        gateway = Gateway(Settings(eager=True))
        add_providers(gateway, given)
        assert list(gateway.providers) == ["main"]


def test_a_mark_of_the_encoding_is_no_part_of_a_secret(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfredis://:hush-hush@h/0\r\n")
    given = Settings.from_mapping({"SMSQUEUE_REDIS_URL_FILE": str(file)})
    assert given.redis_url == "redis://:hush-hush@h/0"


def test_passwords_of_accounts_and_the_simulators_token_can_stand_in_files(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("hush-hush-0123456789-hush\n")
    roles = ("SENDER", "WORKER", "RECEIVERS", "FLOWER", "OPERATOR", "MONITOR", "ADMIN")
    files = {f"REDIS_PASSWORD_{role}_FILE": str(tmp_path / role) for role in roles}
    for role in roles:
        (tmp_path / role).write_text(f"hush-hush-0123456789-{role}\n")
    result = CliRunner().invoke(main, ["acl"], env=files)
    assert result.exit_code == 0, result.output
    for role in roles:
        hashed = hashlib.sha256(f"hush-hush-0123456789-{role}".encode()).hexdigest()
        assert result.output.count(f"#{hashed}") == 1
    gone = {"REDIS_PASSWORD_WORKER_FILE": str(tmp_path / "gone")}
    result = CliRunner().invoke(main, ["acl"], env=files | gone)
    assert result.exit_code == 1
    assert "REDIS_PASSWORD_WORKER_FILE is" in result.output
    assert "correct the path" in result.output
    monkeypatch.setenv("SMSQUEUE_SIMULATOR_TOKEN_FILE", str(file))
    assert secret_text(os.environ, "SMSQUEUE_SIMULATOR_TOKEN") == "hush-hush-0123456789-hush"


def test_the_command_line_reads_the_files(file: Path, settings: Settings, tmp_path: Path) -> None:
    file.write_text(f"{settings.redis_url}\n")
    provider = tmp_path / "provider"
    provider.write_text("log://default\n")
    environment = {
        "SMSQUEUE_REDIS_URL": None,
        "SMSQUEUE_EAGER": None,
        "SMSQUEUE_REDIS_URL_FILE": str(file),
        "SMSQUEUE_PROVIDER_MAIN_FILE": str(provider),
        "SMSQUEUE_NAMESPACE": settings.namespace,
    }
    result = CliRunner().invoke(main, ["check"], env=environment)
    assert result.exit_code == 0, result.output
    assert "main: smsqueue.providers.log.LogProvider" in result.output
    assert "did you mean" not in result.output
    assert "SMSQUEUE_REDIS_URL" not in result.output
