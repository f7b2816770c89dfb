"""A real Celery worker on a real Redis whose hosts are the fake ones: ``celery --app tests.fakes.worker``.

The fake lives in this one process, so that it must serve both queues. ``VMFERRY_TEST_VMS`` says how many VMs there are,
spread over the inventory's hosts.
"""

from __future__ import annotations

import os

from tasks import wiring
from tasks.app import app, settings
from tests.fakes.hypervisor import FakeHypervisor, domain_xml

__all__ = ["app"]


def uuid_of(number: int) -> str:
    """Of the VM with this number."""
    return f"00000000-4444-4000-8000-{number:012d}"


def host_of(number: int, hosts: list[str]) -> str:
    """Where it is at first."""
    return hosts[number % len(hosts)]


def _build() -> None:
    runtime = wiring.build_runtime(settings, app)
    hosts = list(settings.hosts)
    fake = FakeHypervisor(*hosts)
    for number in range(int(os.environ.get("VMFERRY_TEST_VMS", "0"))):
        fake.add_domain(host_of(number, hosts), domain_xml(f"vm-{number}", uuid_of(number)), running=True)
    runtime.hypervisor = fake
    wiring._runtime = runtime


if "VMFERRY_TEST_VMS" in os.environ:
    _build()
