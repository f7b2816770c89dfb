"""50 hosts and 500 VMs on a narrow terminal: whole names, whole lines, in order."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from tasks.model.domain import DomainState, DomainView
from tasks.model.errors import InvalidRequest
from tasks.model.host import HostStatus
from tasks.rendering import tables
from tasks.rendering.hosts import hosts_as_json, print_hosts, print_vms, select_vms, vms_as_json
from tests.unit.planning.builders import LOCAL_POOL, POOL, facts

Screen = Callable[[int], io.StringIO]
HOSTS = [f"hv{number}.rack{number % 4}.example.net" for number in range(1, 51)]
STATES = (DomainState.RUNNING, DomainState.SHUTOFF, DomainState.PAUSED)
LONGEST = "customer-portal-database-replica"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of a given width."""

    def make(width: int) -> io.StringIO:
        file = io.StringIO()
        monkeypatch.setattr(tables, "console", Console(file=file, width=width, force_terminal=True, color_system=None))
        return file

    return make


def status(number: int, name: str) -> HostStatus:
    made = HostStatus(name, reachable=True, facts=facts(name), running_vms=8, defined_vms=10, outgoing=1, incoming=0)
    made = replace(made, max_outgoing=2, max_incoming=2)
    if number == 7:
        return replace(made, reachable=False, facts=None, error="HOST_UNREACHABLE: no route to it" * 5)
    pools = (POOL, replace(LOCAL_POOL, active=False)) if number == 9 else (POOL, LOCAL_POOL)
    return replace(made, facts=facts(name, pools=pools))


def view(number: int) -> DomainView:
    name = LONGEST if number == 77 else f"web-{number}"
    uuid = f"6a2f5c1e-0000-4000-8000-{number:012}"
    state = STATES[number % 3]
    active = state is not DomainState.SHUTOFF
    return DomainView(HOSTS[number % 50], name, uuid, state, 1, active, True, False, False, 4 << 20, 2)


STATUSES = [status(number, name) for number, name in enumerate(HOSTS)]
VIEWS = [view(number) for number in range(500)]


def rows_of(text: str, names: set[str]) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.split() and line.split()[0] in names]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_hosts(screen: Screen, width: int) -> None:
    out = screen(width)
    print_hosts(STATUSES[::-1])
    text = out.getvalue()
    table, _, below = text.partition("50 hosts")
    assert rows_of(table, set(HOSTS)) == HOSTS
    assert max(map(len, table.splitlines())) <= width
    assert below.startswith(", 1 unreachable; 400 of 500 VMs running\n")
    assert f"{HOSTS[7]}: HOST_UNREACHABLE" in below
    assert f"{HOSTS[9]}: inactive 1 pool: default" in below
    for column in ("HOST", "STATE", "VMS", "OUT", "IN"):
        assert column in table.splitlines()[0]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_vms(screen: Screen, width: int) -> None:
    out = screen(width)
    views = select_vms(VIEWS[::-1])
    print_vms(views, {HOSTS[7]: "no route to host"})
    text = out.getvalue()
    table, _, below = text.partition("500 VMs")
    names = rows_of(table, {v.name for v in VIEWS})
    assert names == [LONGEST] + [f"web-{n}" for n in range(500) if n != 77]
    assert max(map(len, table.splitlines())) <= width
    assert below.startswith(" on 50 hosts: 167 running, 167 shutoff, 166 paused\n")
    assert f"{HOSTS[7]} not asked: no route to host" in below
    assert all(line.split()[1] in HOSTS for line in table.splitlines() if line.startswith("web-"))
    assert ("UUID" in table) is (width >= 120)
    assert ("no room for: " in below) is (width < 200)


def test_names_that_alone_are_wider_than_the_terminal_are_whole(screen: Screen) -> None:
    out = screen(40)
    long = replace(VIEWS[0], name="x" * 60)
    print_vms([long], {})
    assert "x" * 60 in out.getvalue()
    assert "…" not in out.getvalue()


def test_a_pipe_gets_every_column_and_nothing_but_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "console", Console(width=80, force_terminal=False))
    print_vms(select_vms(VIEWS), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 501
    assert {len(line.split("\t")) for line in lines} == {7}


def test_json_is_complete() -> None:
    assert len(json.loads(json.dumps(hosts_as_json(STATUSES)))) == 50
    found = json.loads(json.dumps(vms_as_json(select_vms(VIEWS), {"x": "away"})))
    assert (len(found["vms"]), found["unreachable"]) == (500, {"x": "away"})


def test_selecting() -> None:
    assert {v.state for v in select_vms(VIEWS, states=["paused"])} == {DomainState.PAUSED}
    assert [v.name for v in select_vms(VIEWS, match="web-1?", states=["running"])] == ["web-12", "web-15", "web-18"]
    with pytest.raises(InvalidRequest, match="frozen is no state"):
        select_vms([], states=["frozen"])
