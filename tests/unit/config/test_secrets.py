"""Settings that come as secret files: their rank, and what is said when they cannot be read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import settings
from config.settings import load_settings
from tasks.model.errors import ConfigurationError

URL = "redis://:of-the-secret@redis:6379/0"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One that others than root may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="vmferry-") as folder:
        yield Path(folder)


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an engine's secrets, with a URL in it; the configuration file has another one."""
    monkeypatch.setattr(settings, "DEFAULT_SECRETS", tmp_path / "secrets")
    monkeypatch.delenv("VMFERRY_BROKER_URL", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("VMFERRY_CONFIG", str(tmp_path / "vmferry.toml"))
    (tmp_path / "vmferry.toml").write_text('broker_url = "redis://of-the-file/0"\n')
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ssh_key").write_text("is not for the settings\n")
    (tmp_path / "secrets" / "vmferry_broker_url").write_text(URL + "\n")
    return tmp_path / "secrets"


def test_a_secret_wins_over_the_file(secrets: Path) -> None:
    assert load_settings().broker_url == URL


def test_the_environment_wins_over_a_secret(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFERRY_BROKER_URL", "redis://of-the-environment/0")
    assert load_settings().broker_url == "redis://of-the-environment/0"


def test_systemd_credentials_win_over_the_engines_secrets(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "vmferry_broker_url").write_text("redis://of-systemd/0")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert load_settings().broker_url == "redis://of-systemd/0"


def test_without_secrets_the_file_counts(secrets: Path) -> None:
    (secrets / "vmferry_broker_url").unlink()
    assert load_settings().broker_url == "redis://of-the-file/0"
    (secrets / "ssh_key").unlink()
    secrets.rmdir()
    assert load_settings().broker_url == "redis://of-the-file/0"


def test_a_bad_value_is_refused_without_being_shown(secrets: Path) -> None:
    (secrets / "vmferry_broker_url").write_text("hunter2")
    with pytest.raises(ConfigurationError, match="broker_url") as caught:
        load_settings()
    assert caught.value.code == "CONFIG_INVALID"
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes an identity that may not read the file")
def test_an_unreadable_secret_is_an_error(secrets: Path) -> None:
    (secrets / "vmferry_broker_url").chmod(0)
    secrets.parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match="vmferry_broker_url: Permission denied") as caught:
            load_settings()
    finally:
        os.seteuid(0)
    assert caught.value.code == "SECRET_UNREADABLE"
