"""The machines are what they should be: nothing else here would notice if they were not."""

from __future__ import annotations

import pytest

from tests.lab.guest import POOL_PATHS
from tests.lab.nested import NestedLab

pytestmark = pytest.mark.nested


def test_hosts_virtualize(nested: NestedLab) -> None:
    for name in nested.spec.hosts:
        capabilities = nested.host(name).virsh("capabilities")
        assert "<domain type='kvm'/>" in capabilities


def test_pools_are_the_kernels_own(nested: NestedLab) -> None:
    for name in nested.spec.hosts:
        host = nested.host(name)
        mounted = host.run(["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", POOL_PATHS["shared"]])
        assert mounted.split()[0] == "nfs4"
        assert "vers=4.2" in mounted
        assert host.run(["vgs", "--noheadings", "--options", "vg_name"]).split() == ["vg0"]
