"""What libvirt sends, as values. The samples are shortened from libvirt 9.0's own output."""

from __future__ import annotations

from lxml import etree

from tasks.hypervisor.capabilities import parse_guests
from tasks.hypervisor.job import parse_job
from tasks.hypervisor.storage import parse_pool
from tasks.model.domain import Mark
from tasks.model.mark_xml import mark_element, parse_mark
from tasks.planning.mark_xml import with_mark

CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
<guest><os_type>hvm</os_type><arch name='i686'><emulator>/usr/bin/qemu-system-i386</emulator>
<machine>isapc</machine><domain type='qemu'/></arch></guest>
<guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
<machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine><machine maxCpus='1'>isapc</machine>
<domain type='qemu'/><domain type='kvm'><emulator>/usr/bin/kvm</emulator><machine>pc-kvm</machine></domain>
</arch></guest></capabilities>"""


def test_machines_are_those_of_the_architecture_with_what_an_alias_stands_for() -> None:
    guests = parse_guests(etree.fromstring(CAPABILITIES), "x86_64")
    assert guests.virt_types == {"qemu", "kvm"}
    assert guests.emulators == {"/usr/bin/qemu-system-x86_64", "/usr/bin/kvm"}
    assert guests.machines_of("qemu") == {"pc", "pc-i440fx-7.2", "isapc"}
    assert guests.machines_of("kvm") == {"pc-kvm"}
    assert parse_guests(etree.fromstring(CAPABILITIES), "riscv64").machines == frozenset()


def test_a_network_pools_source_is_host_and_directory() -> None:
    pool = parse_pool(
        "<pool type='netfs'><name>vm</name><capacity unit='bytes'>100</capacity><available unit='bytes'>40</available>"
        "<source><host name='10.0.0.5'/><dir path='/export/vm'/><format type='nfs'/></source>"
        "<target><path>/srv/vm</path></target>"
        "<a:mount_opts xmlns:a='http://libvirt.org/schemas/storagepool/fs/1.0'><a:option name='soft'/>"
        "<a:option name='nolock'/></a:mount_opts></pool>",
        active=True,
    )
    assert pool.options == ("soft", "nolock")
    assert (pool.source, pool.target, pool.type) == ("10.0.0.5:/export/vm", "/srv/vm", "netfs")
    assert (pool.capacity_bytes, pool.available_bytes) == (100, 40)


def test_local_pools_have_a_local_source_or_none() -> None:
    logical = "<pool type='logical'><name>vg</name><source><device path='/dev/sdb'/><name>vg0</name></source></pool>"
    directory = "<pool type='dir'><name>d</name><source/><target><path>/images</path></target></pool>"
    assert parse_pool(logical, active=True).source == "vg0"
    assert parse_pool(directory, active=False).source == ""


def test_job_statistics_that_libvirt_leaves_out_are_zero() -> None:
    job = parse_job({"type": 2, "operation": 5, "memory_total": 7, "downtime": 3})
    assert (job.active, job.is_migration, job.memory_total, job.disk_total, job.downtime_ms) == (True, True, 7, 0, 3)
    saving = parse_job({"type": 2, "operation": 2})
    assert (saving.active, saving.is_migration, saving.downtime_ms) == (True, False, None)
    assert not parse_job({"type": 3, "operation": 5}).active


def test_the_mark_survives_both_of_its_forms() -> None:
    mark = Mark("a_b-1", 2, 30)
    assert parse_mark(mark_element(mark)) == mark
    assert parse_mark(with_mark("<domain><name>x</name></domain>", mark)) == mark


def test_what_is_no_mark_of_ours() -> None:
    for text in (
        "",
        "no xml",
        "<domain/>",
        "<migration id='a b' attempt='1' fence='1'/>",
        "<migration id='a' attempt='-1' fence='1'/>",
        "<migration id='a' attempt='1'/>",
        "<domain><migration id='a' attempt='1' fence='1'/></domain>",
        "<!DOCTYPE m [<!ENTITY e 'a'>]><migration id='&e;' attempt='1' fence='1'/>",
    ):
        assert parse_mark(text) is None, text
