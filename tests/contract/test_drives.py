"""The contract of ``tasks.model.ports.Hypervisor``: what is in a drive."""

from __future__ import annotations

import pytest

from tasks.model.errors import OperatorMustFix
from tasks.planning.medium import drive_of, medium_in, without_medium
from tests.contract.acting import code_of
from tests.contract.rigs import Rig, new_identity

CDROM = "<disk type='file' device='cdrom'><source file='{}'/><target dev='hdc' bus='ide'/><readonly/></disk>"

FLOPPY = "<disk type='file' device='floppy'><source file='{}'/><target dev='fdb' bus='fdc'/></disk>"


def drive(rig: Rig, uuid: str, target: str, *, inactive: bool) -> str:
    found = drive_of(rig.hypervisor.fetch_xml(rig.source, uuid, inactive=inactive), target)
    assert found is not None
    return found


def test_of_a_definition(rig: Rig) -> None:
    folder = rig.make_pool(rig.source)
    rig.put_file(rig.source, folder / "disk.iso")
    name, uuid = new_identity()
    rig.hypervisor.define(rig.source, rig.xml(name, uuid, CDROM.format(folder / "disk.iso")))
    try:
        full = drive(rig, uuid, "hdc", inactive=True)
        assert medium_in(full) == str(folder / "disk.iso")
        for _ in range(2):
            rig.hypervisor.update_drive(rig.source, uuid, without_medium(full), live=False)
            assert medium_in(drive(rig, uuid, "hdc", inactive=True)) is None
        rig.hypervisor.update_drive(rig.source, uuid, full, live=False)
        assert medium_in(drive(rig, uuid, "hdc", inactive=True)) == str(folder / "disk.iso")
        call = lambda: rig.hypervisor.update_drive(rig.source, uuid, full, live=True)  # noqa: E731
        assert code_of(call, OperatorMustFix) == "OPERATION_INVALID"
    finally:
        rig.hypervisor.undefine(rig.source, uuid)


@pytest.mark.parametrize("live", [True, False])
def test_of_a_running_vm_and_of_its_definition_apart(rig: Rig, live: bool) -> None:
    folder = rig.make_pool(rig.source)
    rig.put_file(rig.source, folder / "medium.img")
    uuid = rig.make(rig.source, running=True, inside=FLOPPY.format(folder / "medium.img"))
    full = {inactive: drive(rig, uuid, "fdb", inactive=inactive) for inactive in (True, False)}
    assert all(medium_in(text) for text in full.values())
    for _ in range(2):
        rig.hypervisor.update_drive(rig.source, uuid, without_medium(full[not live]), live=live)
    assert medium_in(drive(rig, uuid, "fdb", inactive=not live)) is None
    assert drive(rig, uuid, "fdb", inactive=live) == full[live]
    rig.hypervisor.update_drive(rig.source, uuid, full[not live], live=live)
    assert medium_in(drive(rig, uuid, "fdb", inactive=not live)) == medium_in(full[not live])
