"""Drains on a workbench: VMs, questions, and looks by hand."""

from __future__ import annotations

from typing import Any

from tasks import workflow
from tasks.model.drain import DrainRecord, Fate
from tests.fakes.hypervisor import domain_xml
from tests.queue.workbench import Bench

ADDRESS = "<address domain='0' bus='1' slot='2' function='0'/>"
HOSTDEV = f"<hostdev mode='subsystem' type='pci'><source>{ADDRESS}</source></hostdev>"


def uuid_of(number: int) -> str:
    return f"00000000-1111-4000-8000-{number:012d}"


def add(
    bench: Bench, number: int, *, running: bool = True, autostart: bool = False, inside: str = "", host: str = "alpha"
) -> None:
    bench.fake.add_domain(host, domain_xml(f"vm-{number}", uuid_of(number), inside=inside), running=running)
    bench.fake.set_autostart(host, uuid_of(number), enabled=autostart)


def ask(bench: Bench, drain_id: str = "d", **values: Any) -> DrainRecord:
    return workflow.ask_drain(bench.runtime, {"host": "alpha"} | values, drain_id)


def look(bench: Bench, times: int = 1, *, deliver: bool = True) -> None:
    """What beat and the workers do."""
    for _ in range(times):
        workflow.advance_drains(bench.runtime)
        workflow.dispatch(bench.runtime)
        sent, bench.messages.sent = bench.messages.sent, []
        for record, steps in sent if deliver else ():
            for name in steps:
                workflow.run_step(bench.runtime, name, record.id, record.attempt)


def drained(bench: Bench, drain_id: str = "d") -> DrainRecord:
    return bench.runtime.drains.load(drain_id)


def run_to_end(bench: Bench, drain_id: str = "d") -> DrainRecord:
    for _ in range(30):
        if drained(bench, drain_id).is_ended:
            break
        look(bench)
    return drained(bench, drain_id)


def names_on(bench: Bench, host: str) -> set[str]:
    return {view.name for view in bench.fake.list_domains(host)}


def fates(record: DrainRecord) -> dict[str, Fate]:
    return {vm.name: vm.fate for vm in record.vms}
