"""A VM with everything wrong at once: one look, and all of it is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

MAC = "52:54:00:20:20:20"
KEY_ID = "7d1c0f6e-0000-4000-8000-000000000021"
UUID = "7d1c0f6e-0000-4000-8000-000000000020"
XML = f"""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>twenty</name><uuid>{UUID}</uuid><memory unit='GiB'>3000</memory><vcpu cpuset='0,63'>64</vcpu>
<memoryBacking><hugepages/></memoryBacking>
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><kernel>/var/lib/libvirt/images/no-kernel</kernel></os>
<cpu mode='host-model'/>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><source file='/var/lib/libvirt/images/twenty.raw'/><target dev='vda'/>
<encryption format='luks'><secret type='passphrase' uuid='{KEY_ID}'/></encryption></disk>
<disk type='block' device='disk'><source dev='/dev/sdz'/><target dev='vdb'/></disk>
<disk type='volume' device='disk'><source pool='nowhere' volume='x'/><target dev='vdc'/></disk>
<disk type='file' device='disk'><source file='/var/lib/libvirt/images/many.raw'/><target dev='vdd'/><shareable/></disk>
<disk type='file' device='disk'><source file='/var/lib/libvirt/images/gone.raw'/><target dev='vde'/><transient/></disk>
<disk type='network' device='disk'><source protocol='nbd' name='x'><host name='10.88.0.9'/></source>
<target dev='vdf'/></disk>
<disk type='file' device='cdrom'><source file='/var/lib/libvirt/images/no.iso'/><target dev='sda' bus='sata'/></disk>
<disk type='block' device='cdrom'><source dev='/dev/sr0'/><target dev='sdb' bus='sata'/></disk>
<filesystem type='mount' accessmode='passthrough'><source dir='/srv/9p'/><target dir='x'/></filesystem>
<interface type='network'><mac address='{MAC}'/><source network='no-network'/>
<filterref filter='none-such'/></interface>
<interface type='bridge'><source bridge='no-bridge'/></interface>
<interface type='direct'><source dev='no-device' mode='bridge'/></interface>
<serial type='file'><source path='/var/log/libvirt/twenty.log'/></serial>
<channel type='unix'><source mode='bind' path='/run/twenty.sock'/><target type='virtio' name='org.x.0'/></channel>
<graphics type='vnc' listen='192.0.2.7'/>
<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='0x3f' slot='1' function='0'/>
</source></hostdev>
<rng model='virtio'><backend model='random'>/dev/other</backend></rng>
<shmem name='twenty'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>
<vsock><cid auto='no' address='77'/></vsock>
</devices>
<qemu:commandline><qemu:arg value='-name'/><qemu:arg value='twenty'/></qemu:commandline></domain>"""
TWIN = f"""<domain type='qemu'><name>twin</name><memory>32768</memory><os><type>hvm</type></os><devices>
<interface type='network'><mac address='{MAC}'/><source network='lab'/></interface></devices></domain>"""
WRONG = {
    "MAC_IN_USE",
    "NWFILTER_MISSING",
    "SECRET_MISSING",
    "DISK_NOT_SHARED",
    "DISK_SHARING_UNPROVEN",
    "POOL_MISSING",
    "DISK_ON_NETWORK",
    "DISK_TRANSIENT",
    "DISK_SHAREABLE",
    "MEDIUM_MISSING",
    "MEDIUM_IS_HOST_DEVICE",
    "BOOT_FILE_MISSING",
    "FILESYSTEM_NOT_SHARED",
    "NETWORK_MISSING",
    "BRIDGE_MISSING",
    "INTERFACE_MISSING",
    "GRAPHICS_LISTEN_ADDRESS",
    "CONSOLE_FILE",
    "HOST_DEVICE",
    "RANDOM_DEVICE",
    "SHARED_MEMORY",
    "VSOCK_ADDRESS",
    "QEMU_COMMANDLINE",
    "MEMORY_TOO_SMALL",
    "VCPUS_OVERCOMMITTED",
    "PINNED_CPU_MISSING",
    "HUGEPAGES_UNSEEN",
    "CPU_FOLLOWS_HOST",
    "AUTOSTART_MOVES",
}


@pytest.fixture
def odd(lab: Lab) -> Iterator[None]:
    """Defined on alpha by hand, never started."""
    for host, name, xml in (("alpha", "twenty", XML), ("beta", "twin", TWIN)):
        file = lab.host(host).root / f"{name}.xml"
        file.write_text(xml)
        lab.host(host).virsh("define", str(file))
    lab.host("alpha").virsh("autostart", "twenty")
    yield
    lab.host("alpha").virsh("undefine", "twenty")
    lab.host("beta").virsh("undefine", "twin")


def test_all_of_it_is_said_at_once(lab: Lab, tmp_path: Path, odd: None) -> None:
    assert len(WRONG) > 20
    with stack(lab, tmp_path) as own:
        assert isinstance(own, Stack)
        said = own.cli("plan", "twenty", "--to", "beta", "--storage", "shared", "--json")
        shown = own.cli("plan", "twenty", "--to", "beta", "--storage", "shared")
    assert said.returncode == shown.returncode == 3, said.stderr
    plan = json.loads(said.stdout)
    assert WRONG - {finding["code"] for finding in plan["findings"]} == set()
    assert [code for code in sorted(WRONG) if code not in shown.stdout] == []
    assert all(f["message"] and (f["hint"] or f["severity"] != "blocker") for f in plan["findings"])
