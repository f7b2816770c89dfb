"""The mark in a domain's metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tasks.model.domain import Mark
from tasks.model.errors import InvalidRequest
from tasks.planning.mark_xml import MARK_URI, mark_element, parse_mark, with_mark, without_mark
from tests.unit.planning.builders import domain_xml

MARKS = st.builds(
    Mark,
    id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    attempt=st.integers(0, 10**6),
    fence=st.integers(0, 10**9),
)
FOREIGN = "<metadata><app:x xmlns:app='urn:app'>kept</app:x></metadata>"
EXTRAS = st.sampled_from(["", FOREIGN, "<title>x</title>", "<description>a &lt; b</description>"])


def canonical(xml: str) -> bytes:
    return etree.tostring(etree.fromstring(xml), method="c14n")


@given(MARKS, EXTRAS)
def test_put_in_read_and_taken_out(mark: Mark, extra: str) -> None:
    plain = domain_xml(extra=extra)
    marked = with_mark(plain, mark)
    assert parse_mark(marked) == mark
    assert canonical(without_mark(marked)) == canonical(plain)


@given(MARKS, MARKS)
def test_a_new_mark_takes_the_place_of_the_old(old: Mark, new: Mark) -> None:
    twice = with_mark(with_mark(domain_xml(extra=FOREIGN), old), new)
    assert parse_mark(twice) == new
    assert twice.count(MARK_URI) == 1
    assert "kept" in twice


@given(MARKS)
def test_element_for_libvirt_reads_back(mark: Mark) -> None:
    assert parse_mark(mark_element(mark)) == mark
    assert MARK_URI not in mark_element(mark)  # libvirt adds it, and fails when it is declared already


def metadata(inner: str) -> str:
    return domain_xml(extra=f"<metadata xmlns:v='{MARK_URI}'>{inner}</metadata>")


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "no xml",
        "<network/>",
        domain_xml(),
        domain_xml(extra="<metadata><migration id='a' attempt='1' fence='1'/></metadata>"),
        metadata("<v:migration/>"),
        metadata("<v:migration id='' attempt='1' fence='1'/>"),
        metadata("<v:migration id='a b' attempt='1' fence='1'/>"),
        metadata("<v:migration id='a' attempt='-1' fence='1'/>"),
        metadata("<v:migration id='a' attempt='1' fence='x'/>"),
        metadata(f"<v:migration id='{'a' * 65}' attempt='1' fence='1'/>"),
        metadata("<v:migration id='a' attempt='1'/>"),
        metadata("<v:other id='a' attempt='1' fence='1'/>"),
    ],
)
def test_anything_else_is_no_mark(xml: str) -> None:
    assert parse_mark(xml) is None


def test_a_namespaced_element_alone_is_a_mark() -> None:
    xml = f"<v:migration xmlns:v='{MARK_URI}' id='a' attempt='1' fence='2'/>"
    assert parse_mark(xml) == Mark("a", 1, 2)


@pytest.mark.parametrize("xml", ["", "<network/>", "<!DOCTYPE domain><domain/>"])
def test_only_domains_are_marked(xml: str) -> None:
    with pytest.raises(InvalidRequest, match="XML_INVALID"):
        with_mark(xml, Mark("a", 1, 1))
