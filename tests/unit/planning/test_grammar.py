"""Whatever libvirt's grammar allows is read, judged and rewritten without an error, and no path in it is overlooked."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tasks.model.disks import DiskSize
from tasks.model.domain import Mark
from tasks.model.request import Method, Storage
from tasks.planning.copies import copies_of
from tasks.planning.destination_xml import build_destination_xml, same_definition
from tasks.planning.domain_xml import parse_domain
from tasks.planning.remedies import apply_remedies, judge
from tasks.planning.resources import list_resources
from tests.unit.planning.builders import situation
from tests.unit.planning.grammar import Writer

DOCUMENTS = range(240)
WAYS = [(method, storage) for method in Method for storage in Storage]
HOSTS = {"absFilePath", "absDirPath", "filePath", "deviceName", "bridgeName", "dnsName", "ipAddr", "objectName"}
"""Names in the grammar of what can only be something of the host, or of another one."""
GUESTS = ("os/init", "os/initdir", "filesystem/target@dir", "guest@dev", "guest@actual")
"""Paths within a container, or names within the guest."""


@pytest.mark.parametrize("seeds", [DOCUMENTS[i::12] for i in range(12)])
def test_every_path_and_device_that_the_grammar_allows_is_listed(seeds: range) -> None:
    overlooked = {place for seed in seeds for place in _overlooked(seed)}
    assert {place for place in overlooked if not place.endswith(GUESTS)} == set()


def _overlooked(seed: int) -> set[str]:
    """Where something of the host stands that is not listed."""
    writer = Writer(seed)
    listed = {part for r in list_resources(writer.document()) for part in re.findall(r"/?g\d+x", r.value)}
    return {place for value, (pattern, place) in writer.values.items() if value not in listed and pattern in HOSTS}


@pytest.mark.parametrize(("method", "storage"), WAYS)
def test_nothing_that_the_grammar_allows_makes_a_rule_stumble(method: Method, storage: Storage) -> None:
    for seed in DOCUMENTS[WAYS.index((method, storage)) :: len(WAYS)]:
        xml = Writer(seed).document()
        there = build_destination_xml(xml, mark=Mark("m1", 1, 2), source="a", destination="b", nvram="/n")
        assert same_definition(there, there) == []
        sizes = {disk.target: DiskSize(1 << 30, 1 << 20) for disk in parse_domain(there).disks}
        seen = situation(
            there, offline=method is Method.OFFLINE, method=method, storage=storage, mark=Mark("m1", 1, 3), sizes=sizes
        )
        for either in (seen, replace(seen, inactive=None)):
            assert all(finding.message for finding in judge(apply_remedies(either)))
            copies_of(either)
