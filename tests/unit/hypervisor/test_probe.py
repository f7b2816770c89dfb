"""Probe VMs: the only domains that are ever destroyed, and what the errors of their way mean."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tasks.hypervisor.eventloop import start_event_loop
from tasks.hypervisor.probe import NotAProbe, Probe, classify, destroy_probe, probe_xml
from tasks.model.doctor import PairEnd


@pytest.fixture
def connection() -> Iterator[Any]:
    """libvirt's own test driver: domains in memory, by the real API."""
    start_event_loop()
    with contextlib.closing(libvirt.open("test:///default")) as made:
        yield made


def names(connection: Any) -> list[str]:
    return sorted(domain.name() for domain in connection.listAllDomains())


def test_a_probe_is_removed_and_its_neighbours_stay(connection: Any) -> None:
    probe, before = Probe(), names(connection)
    connection.createXML(probe_xml(probe, "test", "i686"), 0)
    assert probe.name in names(connection)
    destroy_probe(connection, probe)
    destroy_probe(connection, probe)
    assert names(connection) == before


@pytest.mark.parametrize("persistent", [False, True])
def test_nothing_else_is_ever_destroyed(connection: Any, persistent: bool) -> None:
    """Even if a domain had our UUID: its name decides as well."""
    probe = Probe()
    xml = probe_xml(probe, "test", "i686")
    if persistent:
        connection.defineXML(xml).create()
    else:
        connection.createXML(xml.replace(probe.name, "web-1"), 0)
    with pytest.raises(NotAProbe):
        destroy_probe(connection, probe)
    assert connection.lookupByUUIDString(probe.uuid).isActive()


def test_no_other_code_destroys_a_domain() -> None:
    tasks = Path(__file__).parents[3] / "tasks"
    others = r"(?<!virStoragePool)(?<!virNetwork)(?<!pool)\.destroy(?:Flags)?\("
    calls = {path: len(re.findall(others, path.read_text())) for path in tasks.rglob("*.py")}
    found = {str(path.relative_to(tasks)): count for path, count in calls.items() if count}
    assert found == {"hypervisor/paused.py": 1, "hypervisor/probe.py": 1}


def made_error(code: int, domain: int) -> libvirt.libvirtError:
    error = libvirt.libvirtError("")
    error.err = (code, domain, "text", 2, None, None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("code", "domain", "prepared", "end"),
    [
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, False, PairEnd.NO_PEER),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, True, PairEnd.NO_PORT),
        (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_FROM_AUTH, False, PairEnd.NO_PEER),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, True, PairEnd.REFUSED),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, False, PairEnd.REFUSED),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_FROM_QEMU, True, PairEnd.REFUSED),
    ],
)
def test_where_it_broke(code: int, domain: int, prepared: bool, end: PairEnd) -> None:
    assert classify(made_error(code, domain), prepared=prepared) is end
