"""The systemd units: systemd finds nothing to complain about, and what they start is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.stack import REPOSITORY

UNITS = REPOSITORY / "config/systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
INSTALLED = "/opt/vmferry/bin/"
MOST_EXPOSURE = 20
"""Tenths of what ``systemd-analyze security`` calls the exposure level: up to 4.0 it says OK."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with the path of this installation."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have systemd-analyze: .ci/install-packages containers")
        pytest.skip("needs systemd-analyze: .ci/install-packages containers")
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace(INSTALLED, f"{Path(sys.executable).parent}/"))
    return folder


def analyze(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    command = ["systemd-analyze", *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_there_is_a_unit_for_each_program() -> None:
    assert {f"vmferry-{name}.service" for name in ("beat", "control", "flower", "steps")} == set(SERVICES)
    wanted = re.search(r"^Wants=(.*)$", (UNITS / "vmferry.target").read_text(), re.MULTILINE)
    assert wanted
    assert sorted(wanted[1].split()) == SERVICES


@pytest.mark.parametrize("unit", [*SERVICES, "vmferry.target"])
def test_systemd_has_nothing_to_say(units: Path, unit: str) -> None:
    done = analyze("verify", "--man=no", f"./{unit}", folder=units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_would_have_said_something(units: Path) -> None:
    common = units / "vmferry-.service.d/common.conf"
    common.write_text(common.read_text().replace("KillMode=", "KillMood="))
    unit = units / SERVICES[0]
    unit.write_text(unit.read_text().replace("/vmferry ", "/no-such-program "))
    done = analyze("verify", "--man=no", f"./{SERVICES[0]}", folder=units)
    assert "KillMood" in done.stderr
    assert "no-such-program" in done.stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_shut_in(units: Path, unit: str) -> None:
    done = analyze(
        "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", f"./{unit}", folder=units
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_what_a_unit_starts_exists(units: Path, unit: str) -> None:
    start = re.search(r"^ExecStart=(.*)$", (units / unit).read_text(), re.MULTILINE)
    assert start
    command = [*start[1].split(), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
