"""The contract of ``tasks.model.ports.Hypervisor``: which domains use a file, a device or an address."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tasks.hypervisor.adapter import LibvirtHypervisor
from tests.contract.conftest import addresses
from tests.contract.rigs import Rig, new_identity
from tests.lab import Lab
from tests.lab.devices import add_device, remove_device

LOADER = "<loader readonly='yes' type='pflash'>/firmware/CODE.fd</loader>"
FIRMWARE = LOADER + "<nvram>{}</nvram></os><features><acpi/></features>"


def disk(kind: str, source: str) -> str:
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type='raw'/><source {source}/>"
        "<target dev='vdx' bus='virtio'/></disk>"
    )


def users(rig: Rig, value: str) -> list[str]:
    return [name for name in rig.hypervisor.find_users(rig.source, value) if name.startswith("contract-")]


def name_of(rig: Rig, uuid: str) -> str:
    view = rig.hypervisor.find_domain(rig.source, uuid)
    assert view is not None
    return view.name


@pytest.mark.parametrize("running", [False, True])
def test_a_file_is_used_by_whoever_names_it(rig: Rig, running: bool) -> None:
    """By its path, and by pool and volume, of which libvirt does not even show the path of a disk that runs."""
    folder = rig.make_pool(rig.source)
    for name in ("a.raw", "b.raw"):
        rig.write_file(rig.source, folder / name, bytes(65536))
        assert rig.hypervisor.find_volume(rig.source, folder.name, name) is not None
    by_path = rig.make(rig.source, running=running, inside=disk("file", f"file='{folder}/a.raw'"))
    by_name = rig.make(rig.source, running=running, inside=disk("volume", f"pool='{folder.name}' volume='b.raw'"))
    assert users(rig, f"{folder}/a.raw") == [name_of(rig, by_path)]
    assert users(rig, f"{folder}/b.raw") == [name_of(rig, by_name)]
    assert users(rig, f"{folder}/c.raw") == []
    assert users(rig, f"{folder.parent}//{folder.name}/./a.raw") == [name_of(rig, by_path)]


def test_a_file_that_is_gone_is_still_named(rig: Rig) -> None:
    """The volume cannot be looked up, and would be there."""
    folder = rig.make_pool(rig.source)
    uuid = rig.make(rig.source, running=False, inside=disk("volume", f"pool='{folder.name}' volume='gone.raw'"))
    other = rig.make(rig.source, running=False, inside=disk("volume", "pool='no-such-pool' volume='gone.raw'"))
    assert users(rig, f"{folder}/gone.raw") == [name_of(rig, uuid)]
    rig.hypervisor.undefine(rig.source, other)


def test_variables_of_the_firmware(rig: Rig) -> None:
    """Their path is a text, not an attribute."""
    name, uuid = new_identity()
    path = f"/firmware/{name}_VARS.fd"
    rig.hypervisor.define(rig.source, rig.xml(name, uuid).replace("</os>", FIRMWARE.format(path)))
    assert users(rig, path) == [name]
    rig.hypervisor.undefine(rig.source, uuid)


def test_an_address(rig: Rig) -> None:
    mac = "52:54:00:ab:cd:ef"
    card = f"<interface type='user'><mac address='{mac}'/></interface>"
    uuid = rig.make(rig.source, running=False, inside=card)
    assert users(rig, mac) == [name_of(rig, uuid)]
    assert users(rig, "52:54:00:ab:cd:e0") == []


@contextlib.contextmanager
def device_with_two_names(lab: Lab, host: str) -> Iterator[tuple[str, str, str]]:
    """A directory below /dev that a pool shall show, the device's name there, and another one."""
    name = f"vmferry-{uuid.uuid4().hex[:8]}"
    folder = Path("/dev", name)
    there = lab.host(host)
    path = add_device(there, name, 8)
    try:
        folder.mkdir()
        node = there.root / path.lstrip("/")
        os.mknod(folder / "web", node.stat().st_mode, node.stat().st_rdev)
        Path(f"{folder}-link").symlink_to(folder / "web")
        yield str(folder), f"{folder}/web", f"{folder}-link"
    finally:
        Path(f"{folder}-link").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        remove_device(there, name)


@pytest.mark.lab
def test_a_device_by_any_of_its_names(lab: Lab) -> None:
    """What a pool below /dev shows is found by links as well: whoever names one of them uses the device."""
    host = lab.spec.hosts[0]
    hypervisor = LibvirtHypervisor(addresses(lab))
    with device_with_two_names(lab, host) as (folder, path, link), lab.host(host).connect() as connection:
        name, _ = new_identity()
        pool = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
        made = connection.storagePoolCreateXML(pool, 0)
        other = f"<domain type='qemu'><name>{name}</name><memory>32768</memory><os><type>hvm</type></os><devices>"
        domain = connection.defineXML(f"{other}{disk('block', f'dev={link!r}')}</devices></domain>")
        try:
            volume = hypervisor.find_volume_at(host, link)
            assert volume is not None
            assert volume.path == path
            assert list(hypervisor.find_users(host, path)) == [name]
            assert list(hypervisor.find_users(host, link)) == [name]
        finally:
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
            made.destroy()
            hypervisor.close()
