"""Groups as metadata and configuration say them; anything else is no group."""

from __future__ import annotations

import pytest

from tasks.model.domain import DomainState, DomainView
from tasks.planning.groups import NO_GROUPS, GroupRule, Membership, groups_in, homes_at, membership_of, rivals_at

XML = "<domain><metadata><g:groups xmlns:g='urn:vmferry:groups:1' {}/></metadata></domain>"


def view(name: str) -> DomainView:
    return DomainView("alpha", name, f"uuid-{name}", DomainState.RUNNING, 0, True, True, False, False, 1024, 1)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("together='web'", Membership("web")),
        ("apart='db cache'", Membership("", frozenset({"db", "cache"}))),
        ("apart='  db  ' together=''", Membership("", frozenset({"db"}))),
        ("apart='two;words db' together='&lt;'", Membership("", frozenset({"db"}))),
        ("", NO_GROUPS),
    ],
)
def test_metadata(said: str, meant: Membership) -> None:
    assert groups_in(XML.format(said)) == meant


@pytest.mark.parametrize("xml", ["", "<domain", "<domain/>", "<domain><metadata/></domain>", "\x00"])
def test_what_says_nothing(xml: str) -> None:
    assert groups_in(xml) == NO_GROUPS


def test_the_configuration_goes_before_what_a_vm_says_of_itself() -> None:
    rules = [
        GroupRule("pair", frozenset({"web-1"}), apart=False),
        GroupRule("db", frozenset({"uuid-web-1"}), apart=True),
    ]
    said = Membership("other", frozenset({"own"}))
    assert membership_of(view("web-1"), rules, said) == Membership("pair", frozenset({"db", "own"}))
    assert membership_of(view("web-2"), rules, said) == said


def test_who_is_there() -> None:
    known = {
        "a": Membership("pair", frozenset({"db"})),
        "b": Membership("", frozenset({"cache"})),
        "c": Membership("x"),
    }
    assert homes_at(["a", "b", "unknown"], known) == {"pair"}
    assert rivals_at(["a", "b", "unknown"], known) == {"db", "cache"}
    assert rivals_at([], known) == frozenset()
