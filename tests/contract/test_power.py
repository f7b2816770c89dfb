"""The contract of the port: guests are asked to shut down, and booted."""

from __future__ import annotations

import time

import pytest

from tasks.model.domain import DomainState
from tasks.model.errors import OperatorMustFix
from tests.contract.acting import code_of
from tests.contract.rigs import Rig, new_identity

SHUTOFF_UNKNOWN, SHUTOFF_FAILED = 0, 6
MISSING = """<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/gone/disk.img'/>
<target dev='hda' bus='ide'/></disk>"""


def test_a_guest_that_is_asked_and_does_not_hear_goes_on(rig: Rig) -> None:
    uuid = rig.make(rig.source, running=True)
    rig.make_deaf(uuid)
    began = time.monotonic()
    rig.hypervisor.shut_down(rig.source, uuid)
    assert time.monotonic() - began < 5, "it is a request, not a wait"
    rig.hypervisor.shut_down(rig.source, uuid)
    view = rig.hypervisor.find_domain(rig.source, uuid)
    assert view is not None
    assert (view.active, view.state) == (True, DomainState.RUNNING)


def test_one_that_is_off_need_not_be_asked(rig: Rig) -> None:
    uuid = rig.make(rig.source, running=False)
    rig.hypervisor.shut_down(rig.source, uuid)
    view = rig.hypervisor.find_domain(rig.source, uuid)
    assert view is not None
    assert (view.active, view.reason) == (False, SHUTOFF_UNKNOWN)


def test_it_is_booted_once(rig: Rig) -> None:
    uuid = rig.make(rig.source, running=False)
    for _ in range(2):
        rig.hypervisor.start(rig.source, uuid)
    view = rig.hypervisor.find_domain(rig.source, uuid)
    assert view is not None
    assert (view.active, view.persistent, view.state) == (True, True, DomainState.RUNNING)


def test_one_that_cannot_be_booted_is_off_and_says_that_it_failed(rig: Rig) -> None:
    """Which tells it from one that has run."""
    uuid = rig.make(rig.source, running=False, inside=MISSING)
    with pytest.raises(OperatorMustFix):
        rig.hypervisor.start(rig.source, uuid)
    view = rig.hypervisor.find_domain(rig.source, uuid)
    assert view is not None
    assert (view.active, view.reason) == (False, SHUTOFF_FAILED)


def test_domains_that_are_not_there(rig: Rig) -> None:
    _, uuid = new_identity()
    assert code_of(lambda: rig.hypervisor.shut_down(rig.source, uuid), OperatorMustFix) == "NO_DOMAIN"
    assert code_of(lambda: rig.hypervisor.start(rig.source, uuid), OperatorMustFix) == "NO_DOMAIN"
