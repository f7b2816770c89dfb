"""Definitions inside a snapshot's description."""

from __future__ import annotations

from tasks.planning.snapshot_xml import rewrite_snapshot

XML = (
    "<domainsnapshot><name>one</name><domain type='kvm'><name>web</name></domain>"
    "<inactiveDomain type='kvm'><name>web</name></inactiveDomain></domainsnapshot>"
)


def test_every_definition_is_rewritten_and_the_rest_stays() -> None:
    seen: list[str] = []

    def rewrite(xml: str) -> str:
        seen.append(xml)
        return xml.replace("web", "new")

    made = rewrite_snapshot(XML, rewrite)
    assert seen == ['<domain type="kvm"><name>web</name></domain>'] * 2
    assert made == XML.replace("'", '"').replace("<name>web", "<name>new")


def test_without_definitions_nothing_changes() -> None:
    assert rewrite_snapshot("<domainsnapshot><name>one</name></domainsnapshot>", str.upper) == (
        "<domainsnapshot><name>one</name></domainsnapshot>"
    )
