"""One look says all that is wrong, also when what was asked for cannot be had at all."""

from __future__ import annotations

from tasks.model.request import Method, MigrationRequest, Storage
from tasks.steps.survey import survey
from tests.fakes.hypervisor import FakeHypervisor
from tests.unit.planning.builders import SHARED_DISK, domain_xml

BAD = domain_xml(f"{SHARED_DISK}<teleporter to='mars'/><shmem name='s'/>")


def look(*, running: bool, **asked: object) -> tuple[set[str], Method | None, Storage | None, bool]:
    hypervisor = FakeHypervisor("alpha", "beta")
    hypervisor.add_domain("alpha", BAD, running=running)
    request = MigrationRequest.model_validate({"vm": "web", "destination": "beta", **asked})
    plan = survey(hypervisor, ["alpha", "beta"], request)
    return {f.code for f in plan.findings}, plan.method, plan.storage, plan.allowed


def test_a_method_that_does_not_fit_hides_nothing_else() -> None:
    codes, method, _, allowed = look(running=True, method="offline")
    assert codes >= {"METHOD_NEEDS_SHUT_OFF_VM", "RESOURCE_UNKNOWN", "SHARED_MEMORY"}
    assert (method, allowed) == (Method.LIVE, False)
    codes, method, _, allowed = look(running=False, method="live")
    assert codes >= {"METHOD_NEEDS_RUNNING_VM", "RESOURCE_UNKNOWN"}
    assert (method, allowed) == (Method.OFFLINE, False)


def test_nor_does_a_storage_that_the_method_cannot_have() -> None:
    codes, _, storage, allowed = look(running=True, method="saved", storage="incremental")
    assert codes >= {"STORAGE_NOT_SUPPORTED", "RESOURCE_UNKNOWN"}
    assert storage is not None
    assert not allowed
