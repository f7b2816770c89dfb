"""Small definitions and situations; each test changes only what it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tasks.model.domain import DomainState, DomainView
from tasks.model.host import HostFacts, Network, Pool
from tasks.model.request import Method, MigrationRequest, Storage
from tasks.planning.domain_xml import parse_domain
from tasks.planning.preflight import Situation

UUID = "6a2f5c1e-0000-4000-8000-000000000001"
OTHER_UUID = "6a2f5c1e-0000-4000-8000-000000000002"
SHARED = "/srv/shared"
SHARED_DISK = f"<disk type='file' device='disk'><source file='{SHARED}/a.img'/><target dev='vda'/></disk>"
POOL = Pool("shared", "netfs", active=True, target=SHARED, source="storage:/export")
LOCAL_POOL = Pool("default", "dir", active=True, target="/var/lib/libvirt/images")


def domain_xml(devices: str = SHARED_DISK, *, extra: str = "", os: str = "", machine: str = "pc-q35-7.2") -> str:
    return (
        f"<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><memory unit='MiB'>512</memory><vcpu>2</vcpu>"
        f"<os><type arch='x86_64' machine='{machine}'>hvm</type>{os}</os>{extra}"
        f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices></domain>"
    )


def file_disk(path: str, *, target: str = "vda", device: str = "disk", inside: str = "", policy: str = "") -> str:
    startup = f" startupPolicy='{policy}'" if policy else ""
    return (
        f"<disk type='file' device='{device}'><source file='{path}'{startup}/><target dev='{target}'/>{inside}</disk>"
    )


def facts(name: str, **changes: Any) -> HostFacts:
    host = HostFacts(
        name=name,
        hostname=f"{name}.example",
        uuid=f"host-{name}",
        libvirt_version=9_000_000,
        hypervisor_version=7_002_022,
        arch="x86_64",
        cpus=4,
        memory_total_kib=8 * 1024**2,
        memory_free_kib=4 * 1024**2,
        pools=(POOL, LOCAL_POOL),
        networks=(Network("default", active=True, bridge="virbr0"),),
        interfaces=frozenset({"br0", "eth0"}),
        machines=frozenset({"pc-q35-7.2"}),
        virt_types=frozenset({"kvm", "qemu"}),
        emulators=frozenset({"/usr/bin/qemu-system-x86_64"}),
        cpu_xml="<cpu><model>Skylake</model></cpu>",
    )
    return replace(host, **changes)


def view(host: str = "alpha", **changes: Any) -> DomainView:
    seen = DomainView(
        host=host,
        name="web",
        uuid=UUID,
        state=DomainState.RUNNING,
        reason=1,
        active=True,
        persistent=True,
        autostart=False,
        managed_save=False,
        memory_kib=512 * 1024,
        vcpus=2,
    )
    return replace(seen, **changes)


def off(host: str = "alpha", **changes: Any) -> DomainView:
    return view(host, state=DomainState.SHUTOFF, reason=1, active=False, **changes)


def request(**changes: Any) -> MigrationRequest:
    return MigrationRequest(vm="web", destination="beta", **changes)


def situation(
    xml: str | None = None, *, offline: bool = False, inactive: str | None = None, **changes: Any
) -> Situation:
    """A VM that may move, live unless ``offline``, but for the changes."""
    text = xml if xml is not None else domain_xml()
    seen = off() if offline else view()
    base = Situation(
        request=request(),
        run_id="m1",
        method=Method.OFFLINE if offline else Method.LIVE,
        storage=Storage.SHARED,
        domain=parse_domain(text),
        inactive=parse_domain(inactive or text),
        view=seen,
        on_destination=(),
        elsewhere=(),
        source=facts("alpha"),
        destination=facts("beta"),
    )
    return replace(base, **changes)
