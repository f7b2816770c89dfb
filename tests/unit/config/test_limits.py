"""Limits in the configuration: those that can never be used are refused, and it is said why."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import load_settings
from tasks.commands import programs
from tasks.model.errors import ConfigurationError

ALPHA = '[hosts.alpha]\nuri = "qemu+tcp://alpha/system"\n'


def refused(tmp_path: Path, text: str) -> str:
    file = tmp_path / "vmferry.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    assert caught.value.code == "CONFIG_INVALID"
    return caught.value.message


def test_a_webhook_for_states_that_do_not_exist_is_refused(tmp_path: Path) -> None:
    hook = '[webhooks.chat]\nurl = "http://127.0.0.1/"\nsecret = "0123456789abcdef"\nstates = ["empty", "%s"]\n'
    assert "need_attention: no state of" in refused(tmp_path, hook % "need_attention")
    file = tmp_path / "vmferry.toml"
    file.write_text(hook % "needs_attention")
    assert load_settings(file).webhooks["chat"].states == ["empty", "needs_attention"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("max_total = 33\n", "max_total = 33"),
        ("step_concurrency = 4\nmax_total = 4\nstep_workers = 1\n" + ALPHA + "max_outgoing = 5\n", "max_outgoing = 5"),
        (ALPHA + "max_incoming = 33\n", "hosts.alpha.max_incoming = 33"),
        (ALPHA + '[links.rack]\nhosts = ["alpha"]\nmax_transfers = 40\n', "links.rack.max_transfers = 40"),
        ("[pools.images]\nmax_transfers = 40\n", "pools.images.max_transfers = 40"),
    ],
)
def test_a_limit_above_the_workers_threads_is_refused(tmp_path: Path, text: str, key: str) -> None:
    message = refused(tmp_path, text)
    assert key in message
    assert "step_workers × step_concurrency" in message


def test_more_workers_have_more_threads(tmp_path: Path) -> None:
    file = tmp_path / "vmferry.toml"
    file.write_text("max_total = 64\nstep_workers = 2\n")
    assert load_settings(file).max_total == 64


def test_a_pool_of_a_host_that_there_is_not_is_refused(tmp_path: Path) -> None:
    assert "beta is not in the inventory" in refused(tmp_path, ALPHA + '[pools."beta/images"]\nmax_transfers = 1\n')


@pytest.mark.parametrize(("role", "starts"), [("steps", False), ("all", False), ("control", True)])
def test_the_only_worker_does_not_start_with_too_few_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, *, starts: bool
) -> None:
    file = tmp_path / "vmferry.toml"
    file.write_text("max_total = 16\n")
    monkeypatch.setenv("VMFERRY_CONFIG", str(file))
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr("os.execv", lambda _, command: started.append(tuple(command)))
    if starts:
        programs.worker(role=role, concurrency=8, name="")
    else:
        with pytest.raises(ConfigurationError, match="CAP_ABOVE_SLOTS"):
            programs.worker(role=role, concurrency=8, name="")
    assert bool(started) is starts
    programs.worker(role=role, concurrency=16, name="")
    assert started
