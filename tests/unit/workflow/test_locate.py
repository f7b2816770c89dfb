"""Which VM is meant, and where it is, decided from what was seen on all hosts."""

from __future__ import annotations

import pytest

from tasks.model.errors import InvalidRequest
from tasks.steps.locate import choose_source, look_everywhere
from tests.fakes.hypervisor import FakeHypervisor, domain_xml

HOSTS = ("alpha", "beta", "gamma")
ONE, OTHER = (f"{digit * 8}-2222-4333-8444-555555555555" for digit in "12")


def choose(
    *seen: tuple[str, str, bool], vm: str = "web", source: str | None = None, destination: str = "gamma"
) -> tuple[str, str]:
    """Host and UUID of what is chosen; each of ``seen``: host, UUID, whether it runs."""
    hypervisor = FakeHypervisor(*HOSTS)
    for host, uuid, running in seen:
        hypervisor.add_domain(host, domain_xml("web", uuid), running=running)
    view = choose_source(look_everywhere(hypervisor, HOSTS, vm), vm, source, destination)
    return view.host, view.uuid


def refused(*seen: tuple[str, str, bool]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        choose(*seen)
    return raised.value


@pytest.mark.parametrize("one", [True, False])
@pytest.mark.parametrize("other", [True, False])
def test_different_vms_of_one_name(one: bool, other: bool) -> None:
    """None is taken without a word, and nobody is told to stop one."""
    seen = (("alpha", ONE, one), ("beta", OTHER, other))
    error = refused(*seen)
    assert error.code == "VM_AMBIGUOUS"
    assert error.message == f"different VMs are called web: {ONE} on alpha, {OTHER} on beta"
    assert choose(*seen, vm=OTHER) == ("beta", OTHER)
    assert choose(*seen, source="alpha") == ("alpha", ONE)


def test_another_vm_of_the_name_on_the_destination_is_not_meant() -> None:
    """That it is there is for preflight to tell, with everything else that is in the way."""
    seen = (("alpha", ONE, False), ("beta", OTHER, True))
    assert choose(*seen, destination="beta") == ("alpha", ONE)
    assert choose(*seen, destination="alpha") == ("beta", OTHER)


def test_one_vm_that_runs_twice() -> None:
    assert refused(("alpha", ONE, True), ("beta", ONE, True)).code == "VM_RUNS_TWICE"


def test_one_vm_that_is_defined_twice() -> None:
    assert refused(("alpha", ONE, False), ("beta", ONE, False)).code == "VM_AMBIGUOUS"
    assert choose(("alpha", ONE, False), ("beta", ONE, True)) == ("beta", ONE)
