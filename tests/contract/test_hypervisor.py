"""The contract of ``tasks.model.ports.Hypervisor``: looking, marks and definitions."""

from __future__ import annotations

import pytest

from tasks.model.domain import NO_JOB, DomainState, Mark
from tasks.model.errors import HostUnreachable, OperatorMustFix
from tasks.model.mark_xml import parse_mark
from tasks.planning.mark_xml import with_mark
from tests.contract.acting import MARK, code_of
from tests.contract.rigs import GONE, Rig, new_identity


class TestLooking:
    def test_finds_by_uuid_and_by_name(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=False)
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.uuid == uuid
        assert rig.hypervisor.find_domain(rig.source, view.name) == view
        assert rig.hypervisor.find_domain(rig.destination, uuid) is None
        assert rig.hypervisor.find_domain(rig.source, "no-such-vm") is None

    def test_shut_off_and_running_are_told_apart(self, rig: Rig) -> None:
        off = rig.hypervisor.find_domain(rig.source, rig.make(rig.source, running=False))
        on = rig.hypervisor.find_domain(rig.source, rig.make(rig.source, running=True))
        assert off is not None
        assert on is not None
        assert (off.state, off.active, off.persistent, off.host) == (DomainState.SHUTOFF, False, True, rig.source)
        assert (on.state, on.active, on.persistent) == (DomainState.RUNNING, True, True)
        assert (on.memory_kib, on.vcpus, on.job, on.mark) == (65536, 1, NO_JOB, None)
        assert (on.autostart, on.managed_save) == (False, False)

    def test_a_transient_domain_is_not_persistent(self, rig: Rig) -> None:
        view = rig.hypervisor.find_domain(rig.source, rig.make(rig.source, running=True, persistent=False))
        assert view is not None
        assert (view.active, view.persistent, view.autostart, view.managed_save) == (True, False, False, False)

    def test_the_list_agrees_with_the_single_look(self, rig: Rig) -> None:
        for running in (True, False):
            rig.make(rig.source, running=running)
        listed = rig.hypervisor.list_domains(rig.source)
        assert len(listed) >= 2
        assert [rig.hypervisor.find_domain(rig.source, view.uuid) for view in listed] == list(listed)

    def test_managed_save_is_seen(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        rig.make_managed_save(rig.source, uuid)
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert (view.managed_save, view.active) == (True, False)

    def test_a_host_that_does_not_answer(self, rig: Rig) -> None:
        assert code_of(lambda: rig.hypervisor.find_domain(GONE, "x"), HostUnreachable) == "HOST_UNREACHABLE"
        assert code_of(lambda: rig.hypervisor.fetch_facts(GONE), HostUnreachable) == "HOST_UNREACHABLE"

    def test_a_host_that_is_not_in_the_inventory(self, rig: Rig) -> None:
        assert code_of(lambda: rig.hypervisor.find_domain("nobody", "x"), OperatorMustFix) == "UNKNOWN_HOST"

    def test_facts_of_two_hosts(self, rig: Rig) -> None:
        here, there = (rig.hypervisor.fetch_facts(host) for host in (rig.source, rig.destination))
        assert (here.name, there.name) == (rig.source, rig.destination)
        assert here.uuid
        assert here.uuid != there.uuid
        assert here.hostname != there.hostname
        assert here.arch == "x86_64"
        assert "qemu" in here.virt_types
        assert any(machine.startswith("pc-i440fx-") for machine in here.machines)
        assert 0 < here.memory_free_kib <= here.memory_total_kib
        assert here.libvirt_version >= 9_000_000

    def test_an_emulator_that_the_host_lacks_is_not_listed(self, rig: Rig) -> None:
        facts = rig.hypervisor.fetch_facts(rig.source, virt_type="qemu", arch="x86_64", emulator="/opt/none/qemu")
        assert "/opt/none/qemu" not in facts.emulators

    def test_files_of_a_pool(self, rig: Rig) -> None:
        folder = rig.make_pool(rig.source)
        file = folder / "disk.img"
        assert rig.hypervisor.file_exists(rig.source, str(file)) is False
        rig.put_file(rig.source, file)
        assert rig.hypervisor.file_exists(rig.source, str(file)) is True
        rig.remove_file(rig.source, file)
        assert rig.hypervisor.file_exists(rig.source, str(file)) is False

    def test_a_path_that_no_pool_covers(self, rig: Rig) -> None:
        folder = rig.make_pool(rig.source)
        assert rig.hypervisor.file_exists(rig.source, f"{folder}-other/disk.img") is None
        assert rig.hypervisor.file_exists(rig.source, "pool/volume") is None

    def test_a_pool_is_among_the_facts(self, rig: Rig) -> None:
        folder = rig.make_pool(rig.source)
        pools = [pool for pool in rig.hypervisor.fetch_facts(rig.source).pools if pool.target == str(folder)]
        assert [(pool.type, pool.active) for pool in pools] == [("dir", True)]


class TestDefinition:
    def test_passwords_only_when_asked_for(self, rig: Rig) -> None:
        name, uuid = new_identity()
        xml = rig.xml(name, uuid, "<graphics type='vnc' autoport='yes' passwd='hunter2'/>")
        rig.hypervisor.define(rig.source, xml)
        try:
            assert "hunter2" not in rig.hypervisor.fetch_xml(rig.source, uuid)
            assert "hunter2" not in rig.hypervisor.fetch_xml(rig.source, uuid, inactive=True)
            assert "hunter2" in rig.hypervisor.fetch_xml(rig.source, uuid, inactive=True, secure=True)
            # libvirt's migratable form has them always: never store or log that one either.
            assert "hunter2" in rig.hypervisor.fetch_xml(rig.source, uuid, migratable=True)
        finally:
            rig.hypervisor.undefine(rig.source, uuid)

    def test_xml_of_a_domain_that_is_not_there(self, rig: Rig) -> None:
        _, uuid = new_identity()
        assert code_of(lambda: rig.hypervisor.fetch_xml(rig.source, uuid), OperatorMustFix) == "NO_DOMAIN"

    @pytest.mark.parametrize("running", [True, False])
    def test_the_mark_comes_and_goes(self, rig: Rig, running: bool) -> None:
        uuid = rig.make(rig.source, running=running)
        rig.hypervisor.write_mark(rig.source, uuid, Mark("older", 1, 1))
        rig.hypervisor.write_mark(rig.source, uuid, MARK)
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.mark == MARK
        for inactive in (True, False):
            assert parse_mark(rig.hypervisor.fetch_xml(rig.source, uuid, inactive=inactive)) == MARK
        for _ in range(2):
            rig.hypervisor.remove_mark(rig.source, uuid)
            assert "vmferry" not in rig.hypervisor.fetch_xml(rig.source, uuid)
            assert "vmferry" not in rig.hypervisor.fetch_xml(rig.source, uuid, inactive=True)

    def test_the_mark_of_a_transient_domain_is_live(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True, persistent=False)
        rig.hypervisor.write_mark(rig.source, uuid, MARK)
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.mark == MARK
        rig.hypervisor.remove_mark(rig.source, uuid)
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.mark is None

    def test_autostart(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=False)
        for enabled in (True, False, False):
            rig.hypervisor.set_autostart(rig.source, uuid, enabled=enabled)
            view = rig.hypervisor.find_domain(rig.source, uuid)
            assert view is not None
            assert view.autostart is enabled

    def test_a_transient_domain_has_no_autostart(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True, persistent=False)
        call = lambda: rig.hypervisor.set_autostart(rig.source, uuid, enabled=True)  # noqa: E731
        assert code_of(call, OperatorMustFix) == "OPERATION_INVALID"

    def test_defines_and_defines_its_own_again(self, rig: Rig) -> None:
        name, uuid = new_identity()
        xml = with_mark(rig.xml(name, uuid), MARK)
        for text in (xml, with_mark(xml, Mark(MARK.id, MARK.attempt + 1, 9))):
            rig.hypervisor.define(rig.destination, text)
        view = rig.hypervisor.find_domain(rig.destination, uuid)
        rig.hypervisor.undefine(rig.destination, uuid)
        assert view is not None
        assert (view.persistent, view.active, view.mark) == (True, False, Mark(MARK.id, MARK.attempt + 1, 9))
        assert rig.hypervisor.find_domain(rig.destination, uuid) is None

    @pytest.mark.parametrize("theirs", [None, Mark("somebody-else", 1, 1)])
    @pytest.mark.parametrize("ours", [None, MARK])
    def test_never_overwrites_what_is_not_its_own(self, rig: Rig, theirs: Mark | None, ours: Mark | None) -> None:
        uuid = rig.make(rig.destination, running=False, mark=theirs)
        before = rig.hypervisor.fetch_xml(rig.destination, uuid)
        name = before.split("<name>")[1].split("<")[0]
        xml = rig.xml(name, uuid).replace("65536", "32768")
        xml = xml if ours is None else with_mark(xml, ours)
        assert code_of(lambda: rig.hypervisor.define(rig.destination, xml), OperatorMustFix) == "DOMAIN_EXISTS"
        assert rig.hypervisor.fetch_xml(rig.destination, uuid) == before

    def test_refuses_half_an_identity_even_with_the_mark(self, rig: Rig) -> None:
        uuid = rig.make(rig.destination, running=False, mark=MARK)
        other_name, other_uuid = new_identity()
        view = rig.hypervisor.find_domain(rig.destination, uuid)
        assert view is not None
        for name, identity in ((view.name, other_uuid), (other_name, uuid)):
            xml = with_mark(rig.xml(name, identity), MARK)
            call = lambda xml=xml: rig.hypervisor.define(rig.destination, xml)  # noqa: E731
            assert code_of(call, OperatorMustFix) == "DOMAIN_EXISTS"
        assert rig.hypervisor.find_domain(rig.destination, uuid) == view

    def test_undefine_is_idempotent(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=False)
        for _ in range(2):
            rig.hypervisor.undefine(rig.source, uuid)
            assert rig.hypervisor.find_domain(rig.source, uuid) is None

    @pytest.mark.parametrize("persistent", [True, False])
    def test_undefine_refuses_an_active_domain(self, rig: Rig, persistent: bool) -> None:
        uuid = rig.make(rig.source, running=True, persistent=persistent)
        before = rig.hypervisor.find_domain(rig.source, uuid)
        assert code_of(lambda: rig.hypervisor.undefine(rig.source, uuid), OperatorMustFix) == "DOMAIN_ACTIVE"
        assert rig.hypervisor.find_domain(rig.source, uuid) == before

    def test_hostname(self, rig: Rig) -> None:
        for host in (rig.source, rig.destination, rig.source):
            assert rig.hypervisor.fetch_hostname(host) == rig.hypervisor.fetch_facts(host).hostname
        assert code_of(lambda: rig.hypervisor.fetch_hostname(GONE), HostUnreachable) == "HOST_UNREACHABLE"

    def test_undefine_refuses_to_lose_a_snapshot(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=False)
        rig.make_snapshot(rig.source, uuid)
        seen = rig.hypervisor.find_domain(rig.source, uuid)
        assert seen is not None
        assert (seen.snapshots, seen.checkpoints) == (1, 0)
        assert code_of(lambda: rig.hypervisor.undefine(rig.source, uuid), OperatorMustFix) == "HAS_SNAPSHOTS"
        assert rig.hypervisor.find_domain(rig.source, uuid) is not None

    def test_undefine_refuses_to_lose_a_saved_state(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        rig.make_managed_save(rig.source, uuid)
        assert code_of(lambda: rig.hypervisor.undefine(rig.source, uuid), OperatorMustFix) == "HAS_MANAGED_SAVE"
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.managed_save

    def test_resume(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        rig.suspend(rig.source, uuid)
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.state is DomainState.PAUSED
        for _ in range(2):
            rig.hypervisor.resume(rig.source, uuid)
            view = rig.hypervisor.find_domain(rig.source, uuid)
            assert view is not None
            assert view.state is DomainState.RUNNING

    @pytest.mark.parametrize("running", [True, False])
    def test_an_agent_that_is_not_there_does_not_answer(self, rig: Rig, running: bool) -> None:
        uuid = rig.make(rig.source, running=running)
        assert rig.hypervisor.ping_agent(rig.source, uuid, 1) is False

    def test_suspend(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        for _ in range(2):
            rig.hypervisor.suspend(rig.source, uuid)
            view = rig.hypervisor.find_domain(rig.source, uuid)
            assert view is not None
            assert (view.state, view.reason) == (DomainState.PAUSED, 1)

    def test_suspend_of_what_is_shut_off(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=False)
        assert code_of(lambda: rig.hypervisor.suspend(rig.source, uuid), OperatorMustFix) == "OPERATION_INVALID"

    def test_resume_does_not_start(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=False)
        assert code_of(lambda: rig.hypervisor.resume(rig.source, uuid), OperatorMustFix) == "OPERATION_INVALID"
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert not view.active
