"""What remedies do about findings, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from tasks.model.disks import Volume
from tasks.model.finding import Finding, Severity
from tasks.model.host import Network, Pool
from tasks.model.remedies import NO_REMEDIES, Medium, NetworkOrder
from tasks.model.request import parse_request
from tasks.planning.destination_xml import build_destination_xml
from tasks.planning.domain_xml import parse_domain
from tasks.planning.medium import drive_of, medium_in, without_medium
from tasks.planning.network_xml import copy_network_xml
from tasks.planning.preflight import DESCRIPTIONS
from tasks.planning.remedies import CODES, REMEDIES, apply_remedies, judge
from tasks.planning.situation import Situation
from tests.unit.planning.builders import SHARED_DISK, domain_xml, facts, file_disk, request, situation, view

ISO = "/isos/a.iso"
CDROM = file_disk(ISO, target="sda", device="cdrom")
OTHER_CDROM = file_disk("/isos/b.iso", target="sdb", device="cdrom")
ISOS = Pool("isos", "dir", active=True, target="/isos", available_bytes=1 << 30)
FILE = Volume("a.iso", ISO, 5000, 5000, "raw", length_bytes=5000, modified="7.5")
CARD = "<interface type='network'><source network='lan'/></interface>"
LAN = Network("lan", active=True, bridge="virbr5", mode="nat", ranges=("10.0.5.0/24",))
VNC = "<graphics type='vnc' listen='{0}'><listen type='address' address='{0}'/></graphics>"
B, W, I = Severity.BLOCKER, Severity.WARNING, Severity.INFO  # noqa: E741


def vm(devices: str, *remedies: str, **changes: object) -> Situation:
    """A VM with a disk that stays, and these devices."""
    changes = {"media": {ISO: False, "/isos/b.iso": False}, "media_files": {ISO: FILE}} | changes
    return situation(domain_xml(SHARED_DISK + devices), request=request(remedies=list(remedies)), **changes)  # type: ignore[arg-type]


def judged(s: Situation) -> list[Finding]:
    return list(judge(apply_remedies(s)))


def of(findings: list[Finding], code: str) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.hint) for finding in findings if finding.code == code]


def with_network(*remedies: str, source: Network | None = LAN, **changes: object) -> Situation:
    here = facts("alpha", networks=(source,) if source else ())
    there = facts("beta", **({"networks": ()} | changes))
    return vm(CARD, *remedies, source=here, destination=there)


class TestAll:
    def test_every_remedy_says_what_it_does(self) -> None:
        for remedy in REMEDIES.values():
            assert remedy.words
            assert remedy.undone
            assert set(remedy.codes) <= set(DESCRIPTIONS)
            assert parse_request({"vm": "a", "destination": "b", "remedies": [remedy.name]}).remedies == [remedy.name]
        assert not set(CODES) & set(DESCRIPTIONS)

    def test_none_asked_for_changes_nothing(self) -> None:
        s = vm(CDROM + VNC.format("10.0.0.1"))
        assert apply_remedies(s) is s
        assert s.remedied == NO_REMEDIES

    def test_an_empty_list_is_no_other_request(self) -> None:
        assert request(remedies=[]).fingerprint() == request().fingerprint()
        assert request(remedies=["eject-media"]).fingerprint() != request().fingerprint()

    @pytest.mark.parametrize("name", REMEDIES)
    def test_one_that_has_nothing_to_do_says_so(self, name: str) -> None:
        assert of(judged(vm("", name)), "REMEDY_UNUSED") == [(I, "")]

    def test_other_findings_are_left_alone(self) -> None:
        before = {f for f in judged(vm(CDROM + CARD)) if f.code != "MEDIUM_MISSING"}
        after = {f for f in judged(vm(CDROM + CARD, "eject-media")) if f.code != "MEDIUM_MISSING"}
        assert before == after


class TestMedia:
    def test_the_hint_names_what_would_help(self) -> None:
        s = vm(CDROM, destination=facts("beta", pools=(*facts("beta").pools, ISOS)))
        ((severity, hint),) = of(judged(s), "MEDIUM_MISSING")
        assert (severity, hint.partition(";")[0]) == (B, "--remedy copy-media or --remedy eject-media")
        ((_, hint),) = of(judged(vm(CDROM)), "MEDIUM_MISSING")
        assert hint.partition(";")[0] == "--remedy eject-media"

    @pytest.mark.parametrize("seen", [False, None])
    def test_one_that_is_missing_or_unseen_is_taken_out(self, seen: bool | None) -> None:
        s = apply_remedies(vm(CDROM, "eject-media", media={ISO: seen}, offline=True))
        assert s.remedied.ejected == (Medium(target="sda", source=ISO),)
        assert [d.source for d in s.domain.disks if d.target == "sda"] == [None]
        assert B not in {finding.severity for finding in judge(s)}

    def test_one_that_is_there_stays(self) -> None:
        s = apply_remedies(vm(CDROM + OTHER_CDROM, "eject-media", media={ISO: True, "/isos/b.iso": False}))
        assert s.remedied.ejected == (Medium(target="sdb", source="/isos/b.iso"),)

    def test_of_two_definitions_each_holds_what_it_holds(self) -> None:
        s = vm(CDROM, inactive=domain_xml(SHARED_DISK + OTHER_CDROM.replace("sdb", "sda")))
        s = apply_remedies(replace(s, request=request(remedies=["eject-media"])))
        assert [medium.source for medium in s.remedied.ejected] == [ISO, "/isos/b.iso"]

    def test_a_drive_of_the_host_is_emptied(self) -> None:
        drive = "<disk type='block' device='cdrom'><source dev='/dev/sr0'/><target dev='sda'/></disk>"
        s = apply_remedies(vm(drive, "eject-media"))
        assert s.remedied.ejected == (Medium(target="sda", source="/dev/sr0"),)
        assert of(list(judge(s)), "MEDIUM_IS_HOST_DEVICE") == [(I, "")]

    def test_a_disk_is_never_taken_out(self) -> None:
        disk = file_disk("/isos/data.img", target="vdb")
        assert apply_remedies(vm(disk, "eject-media", media={"/isos/data.img": False})).remedied.ejected == ()

    def test_what_is_in_a_saved_state_cannot_be_taken_out(self) -> None:
        findings = judged(vm(CDROM, "eject-media", view=view(managed_save=True)))
        assert [severity for severity, _ in of(findings, "REMEDY_REFUSED")] == [B]

    def test_a_copy_has_a_name_of_its_own(self) -> None:
        s = vm(CDROM, "copy-media", destination=facts("beta", pools=(*facts("beta").pools, ISOS)))
        s = apply_remedies(s)
        (file,) = s.files
        assert (file.key, file.source_path, file.length_bytes, file.modified) == ("medium-sda", ISO, 5000, "7.5")
        assert (file.pool, file.path) == ("isos", "/isos/a.vmferry-ID-1-0-sda.iso")
        assert of(list(judge(s)), "MEDIUM_MISSING") == [(I, "")]

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"media_files": {}},
            {"destination": facts("beta", pools=(replace(ISOS, active=False),))},
            {"destination": facts("beta", pools=(replace(ISOS, target="/isos2"),))},
            {"destination": facts("beta", pools=(replace(ISOS, type="logical"),))},
            {"destination": facts("beta", pools=(replace(ISOS, available_bytes=5100),))},
        ],
    )
    def test_a_copy_that_cannot_be_made_is_refused(self, changes: dict[str, object]) -> None:
        s = apply_remedies(vm(CDROM, "copy-media", **changes))
        findings = list(judge(s))
        assert s.files == ()
        assert [severity for severity, _ in of(findings, "MEDIUM_MISSING")] == [B]
        assert [(severity, bool(hint)) for severity, hint in of(findings, "REMEDY_REFUSED")] == [(B, True)]

    def test_what_cannot_be_copied_may_be_taken_out(self) -> None:
        there = facts("beta", pools=(*facts("beta").pools, ISOS))
        s = vm(CDROM + OTHER_CDROM, "eject-media", "copy-media", destination=there)
        s = apply_remedies(s)
        assert [file.source_path for file in s.files] == [ISO]
        assert [medium.source for medium in s.remedied.ejected] == ["/isos/b.iso"]
        assert B not in {finding.severity for finding in judge(s)}

    def test_the_definition_names_the_copy(self) -> None:
        s = vm(CDROM, "copy-media", destination=facts("beta", pools=(ISOS,)))
        files = apply_remedies(s).files
        xml = domain_xml(SHARED_DISK + CDROM + OTHER_CDROM)
        built = build_destination_xml(xml, mark=None, source="a", destination="b", media=files)
        sources = [disk.source for disk in parse_domain(built).disks]
        assert sources[1:] == ["/isos/a.vmferry-ID-1-0-sda.iso", "/isos/b.iso"]


class TestDrives:
    def test_emptied_and_nothing_else(self) -> None:
        xml = domain_xml(
            "<disk type='volume' device='cdrom'><driver name='qemu' type='raw'/><source pool='isos' volume='a.iso'/>"
            "<backingStore/><target dev='sda' bus='sata'/><readonly/><address type='drive' unit='0'/></disk>"
        )
        drive = drive_of(xml, "sda")
        assert drive is not None
        assert medium_in(drive) == "isos/a.iso"
        empty = etree.fromstring(without_medium(drive))
        assert medium_in(without_medium(drive)) is None
        assert (empty.get("type"), empty.get("device")) == ("file", "cdrom")
        assert [child.tag for child in empty] == ["driver", "target", "readonly", "address"]
        assert drive_of(xml, "sdb") is None


class TestNetworks:
    def test_one_that_is_missing_is_made(self) -> None:
        s = apply_remedies(with_network("create-network"))
        assert s.remedied.networks == (NetworkOrder(name="lan", action="make"),)
        assert of(list(judge(s)), "NETWORK_MISSING") == [(I, "")]

    def test_one_that_is_inactive_is_started(self) -> None:
        s = apply_remedies(with_network("create-network", networks=(replace(LAN, active=False),)))
        assert s.remedied.networks == (NetworkOrder(name="lan", action="start"),)
        assert of(list(judge(s)), "NETWORK_INACTIVE") == [(I, "")]

    def test_the_hint_names_it(self) -> None:
        ((severity, hint),) = of(judged(with_network()), "NETWORK_MISSING")
        assert (severity, hint.startswith("--remedy create-network;")) == (B, True)

    @pytest.mark.parametrize(
        ("source", "changes"),
        [
            (None, {}),
            (LAN, {"networks": (Network("other", active=True, bridge="virbr5"),)}),
            (LAN, {"interfaces": frozenset({"virbr5"})}),
            (LAN, {"networks": (Network("other", active=False, bridge="virbr6", ranges=("10.0.0.0/16",)),)}),
            (LAN, {"networks": (Network("other", active=True, bridge="virbr6", ranges=("10.0.5.128/25",)),)}),
            (replace(LAN, devices=("eth7",)), {}),
            (replace(LAN, mode="bridge", bridge="br7", ranges=()), {}),
            (replace(LAN, mode="vepa", bridge=None, devices=("eth7",)), {}),
            (replace(LAN, mode="hostdev", bridge=None), {}),
        ],
    )
    def test_what_clashes_is_refused(self, source: Network | None, changes: dict[str, object]) -> None:
        s = apply_remedies(with_network("create-network", source=source, **changes))
        findings = list(judge(s))
        assert s.remedied.networks == ()
        assert [severity for severity, _ in of(findings, "NETWORK_MISSING")] == [B]
        assert [(severity, bool(hint)) for severity, hint in of(findings, "REMEDY_REFUSED")] == [(B, True)]
        assert not any("create-network" in hint for _, hint in of(findings, "NETWORK_MISSING"))

    @pytest.mark.parametrize(
        "source",
        [
            LAN,
            replace(LAN, devices=("eth0",)),
            replace(LAN, mode="bridge", bridge="br0", ranges=()),
            replace(LAN, mode="", ranges=()),
            replace(LAN, ranges=("fd00::/64",)),
        ],
    )
    def test_what_does_not_clash_is_not(self, source: Network) -> None:
        others = (Network("other", active=True, bridge="virbr6", ranges=("10.0.6.0/24",)),)
        s = apply_remedies(with_network("create-network", source=source, networks=others))
        assert len(s.remedied.networks) == 1

    def test_the_definition_is_the_sources_under_another_uuid(self) -> None:
        xml = (
            "<network><name>lan</name><uuid>00000000-0000-4000-8000-000000000001</uuid><forward mode='nat'/>"
            "<bridge name='virbr5'/><mac address='52:54:00:00:00:01'/><ip address='10.0.5.1' prefix='24'/></network>"
        )
        root = etree.fromstring(copy_network_xml(xml, "new"))
        assert [child.tag for child in root] == ["name", "uuid", "forward", "bridge", "ip"]
        assert root.findtext("uuid") == "new"
        assert etree.fromstring(copy_network_xml("<network><name>a</name></network>", "new")).findtext("uuid") == "new"


class TestDisplays:
    @pytest.mark.parametrize(
        ("remedy", "old", "new"),
        [
            ("listen-anywhere", "10.0.0.1", "0.0.0.0"),
            ("listen-anywhere", "fd00::1", "::"),
            ("listen-locally", "10.0.0.1", "127.0.0.1"),
            ("listen-locally", "fd00::1", "::1"),
        ],
    )
    def test_another_address(self, remedy: str, old: str, new: str) -> None:
        xml = domain_xml(SHARED_DISK + VNC.format(old))
        s = apply_remedies(vm(VNC.format(old), remedy))
        assert of(list(judge(s)), "GRAPHICS_LISTEN_ADDRESS") == [(I, "")]
        built = build_destination_xml(xml, mark=None, source="a", destination="b", remedied=s.remedied)
        assert old not in built
        assert built.count(f"'{new}'") + built.count(f'"{new}"') == 2

    @pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "alpha.example"])
    def test_what_works_anyhow_is_left(self, address: str) -> None:
        assert apply_remedies(vm(VNC.format(address), "listen-anywhere")).remedied == NO_REMEDIES

    def test_the_hint_names_both(self) -> None:
        ((severity, hint),) = of(judged(vm(VNC.format("10.0.0.1"))), "GRAPHICS_LISTEN_ADDRESS")
        assert (severity, hint.partition(";")[0]) == (W, "--remedy listen-anywhere or --remedy listen-locally")


class TestMachines:
    HERE = facts("alpha", machine_aliases={"q35": "pc-q35-7.2"})
    THERE = facts(
        "beta", machine_aliases={"q35": "pc-q35-8.0"}, machines=frozenset({"pc-q35-7.2", "pc-q35-8.0", "q35"})
    )

    def named(self, *remedies: str, **changes: object) -> Situation:
        values: dict[str, object] = {"source": self.HERE, "destination": self.THERE} | changes
        return situation(domain_xml(machine="q35"), request=request(remedies=list(remedies)), **values)  # type: ignore[arg-type]

    def test_a_name_becomes_what_it_was(self) -> None:
        s = apply_remedies(self.named("resolve-machine"))
        assert of(list(judge(s)), "MACHINE_ALIAS") == [(I, "")]
        built = build_destination_xml(
            domain_xml(machine="q35"), mark=None, source="a", destination="b", remedied=s.remedied
        )
        assert parse_domain(built).machine == "pc-q35-7.2"

    def test_the_hint_names_it(self) -> None:
        ((severity, hint),) = of(judged(self.named()), "MACHINE_ALIAS")
        assert (severity, hint.startswith("--remedy resolve-machine;")) == (B, True)

    def test_one_that_the_destination_does_not_offer(self) -> None:
        there = replace(self.THERE, machines=frozenset({"pc-q35-8.0", "q35"}))
        findings = judged(self.named("resolve-machine", destination=there))
        assert [severity for severity, _ in of(findings, "REMEDY_REFUSED")] == [B]

    def test_the_same_on_both_is_no_matter(self) -> None:
        there = replace(self.THERE, machine_aliases=self.HERE.machine_aliases)
        assert of(judged(self.named(destination=there)), "MACHINE_ALIAS") == []
