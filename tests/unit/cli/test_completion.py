"""Completion in a real bash, by what ``--show-completion`` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VMFERRY = Path(sys.executable).parent / "vmferry"


def completed(words: list[str], config: Path) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        'eval "$(vmferry --show-completion)"\n'
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
        "$(complete -p vmferry | sed 's/.*-F \\([^ ]*\\) .*/\\1/') vmferry\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    env = os.environ | {"PATH": f"{VMFERRY.parent}:{os.environ['PATH']}", "VMFERRY_CONFIG": str(config)}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "vmferry.toml"
    hosts = "".join(f'[hosts.{name}]\nuri = "qemu+ssh://{name}/system"\n' for name in ("alpha", "alpine", "beta"))
    path.write_text(hosts + "[policies.gentle]\n")
    return path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["vmferry", "doc"], ["doctor"]),
        (["vmferry", "vms", "al"], ["alpha", "alpine"]),
        (["vmferry", "migrate", "web-1", "--to", "b"], ["beta"]),
        (["vmferry", "plan", "web-1", "--policy", "g"], ["gentle"]),
        (["vmferry", "doctor", "--all"], ["--all-pairs"]),
    ],
)
def test_bash_completes(words: list[str], found: list[str], config: Path) -> None:
    assert completed(words, config) == found


def test_a_broken_configuration_completes_nothing_and_says_nothing(config: Path) -> None:
    config.write_text("= nonsense")
    assert completed(["vmferry", "vms", "al"], config) == []
