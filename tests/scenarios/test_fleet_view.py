"""``vmferry hosts`` and ``vmferry vms`` while hosts hang: the others are shown, and each that is not is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import Guest, Lab, faults
from tests.scenarios.stack import Stack

pytestmark = pytest.mark.lab


def test_hosts_that_hang(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest]) -> None:
    make_guest("web-1")
    make_guest("db-1", start="off")
    with (
        Stack(lab, tmp_path, connect_timeout_s=2.0) as stack,
        faults.link_down(lab.host("beta")),
        faults.libvirtd_frozen(lab.host("gamma")),
    ):
        hosts = json.loads(stack.cli("hosts", "--json").stdout)
        vms = stack.cli("vms", "--json", "--match", "web-*", "--state", "running")
        table = stack.cli("vms")
    assert {host["name"]: host["reachable"] for host in hosts} == {"alpha": True, "beta": False, "gamma": False}
    assert all("did not answer within 2 s" in host["error"] for host in hosts if not host["reachable"])
    assert (hosts[0]["running_vms"], hosts[0]["defined_vms"], hosts[0]["outgoing"]) == (1, 2, 0)
    found = json.loads(vms.stdout)
    assert [vm["name"] for vm in found["vms"]] == ["web-1"]
    assert set(found["unreachable"]) == {"beta", "gamma"}
    assert [line.split("\t")[0] for line in table.stdout.splitlines()] == [
        "VM",
        "db-1",
        "web-1",
        "UNREACHABLE",
        "beta",
        "gamma",
    ]
    assert (vms.returncode, table.returncode) == (0, 0)


def test_a_queue_that_is_away_hides_only_the_limits(lab: Lab, tmp_path: Path) -> None:
    with Stack(lab, tmp_path) as stack:
        stack.redis.kill()
        hosts = json.loads(stack.cli("hosts", "--json").stdout)
    assert [(host["reachable"], host["outgoing"]) for host in hosts] == [(True, None)] * 3


def test_a_misspelt_state_is_wrong_usage(lab: Lab, tmp_path: Path) -> None:
    with Stack(lab, tmp_path) as stack:
        done = stack.cli("vms", "--state", "frozen")
    assert done.returncode == 2
    assert "frozen is no state of a VM" in done.stderr
