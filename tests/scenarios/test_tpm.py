"""An emulated TPM keeps what the guest has sealed in files of its host: they go along with a VM that is shut off."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab, check_unchanged, snapshot
from tests.lab.shell import until
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
POINTS = [
    "prepare.effected-probe",
    "prepare.journaled-destination_tpm",
    "prepare.effected-destination_tpm",
    "prepare.effected-window",
    "prepare.effected-destination_tpm_state",
    "transfer.claimed",
    "verify.claimed",
]


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("tpm")) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    """Shut off at alpha, with a state that only its TPM has; tests that move it bring it back."""
    made = lab.guest("tpm", start="running", disk="local", disk_mib=16, extra_xml=TPM)
    until(lambda: state_file(lab, made, "alpha").exists(), 30, "swtpm writes no state")
    made.stop()
    yield made
    made.remove()
    for name in lab.spec.hosts:
        shutil.rmtree(state_file(lab, made, name).parents[1], ignore_errors=True)


def state_file(lab: Lab, guest: Guest, host: str) -> Path:
    return lab.host(host).root / f"var/lib/libvirt/swtpm/{guest.uuid}/tpm2/tpm2-00.permall"


def state_of(lab: Lab, guest: Guest, host: str) -> str:
    return hashlib.sha256(state_file(lab, guest, host).read_bytes()).hexdigest()


def move(running: Stack, guest: Guest, destination: str = "beta", **asked: object) -> RunRecord:
    return running.wait_end(running.client.submit({"vm": guest.name, "destination": destination} | asked).id)


@pytest.mark.parametrize("point", POINTS)
def test_what_breaks_leaves_nothing_behind(running: Stack, lab: Lab, guest: Guest, point: str) -> None:
    before = snapshot(lab)
    running.fail(point)
    record = move(running, guest)
    running.check_failed()
    assert record.state is State.FAILED, running.diagnosis(record.id)
    check_unchanged(lab, before)


@pytest.mark.parametrize("point", ["prepare.effected-destination_tpm", "prepare.effected-destination_tpm_state"])
def test_another_worker_goes_on(running: Stack, lab: Lab, guest: Guest, point: str) -> None:
    for worker in running.steps_workers:
        worker.kill9()
    running.hold(point)
    victim = running.steps_worker()
    asked = running.client.submit({"vm": guest.name, "destination": "beta", "source_disks": "delete"})
    running.wait_held()
    victim.kill9()
    running.steps_worker()
    record = running.wait_end(asked.id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_invariants(running, guest, record, was_running=False, autostart=False)
    back = move(running, guest, "alpha", source_disks="delete")
    assert back.state is State.SUCCEEDED, running.diagnosis(back.id)


def test_it_goes_along_and_is_never_written_over(running: Stack, lab: Lab, guest: Guest) -> None:
    sealed = state_of(lab, guest, "alpha")
    record = move(running, guest)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_invariants(running, guest, record, was_running=False, autostart=False)
    assert state_of(lab, guest, "beta") == sealed
    kept = f"/var/lib/libvirt/swtpm/{guest.uuid}/tpm2/tpm2-00.permall (tpm) on alpha"
    assert kept in record.kept

    before = snapshot(lab)
    refused = move(running, guest, "alpha")
    assert refused.state is State.FAILED, running.diagnosis(refused.id)
    assert refused.error is not None
    assert refused.error.code == "TPM_STATE_EXISTS"
    check_unchanged(lab, before)

    shutil.rmtree(state_file(lab, guest, "alpha").parents[1])
    gone = move(running, guest, "alpha", source_disks="delete")
    assert gone.state is State.SUCCEEDED, running.diagnosis(gone.id)
    assert state_of(lab, guest, "alpha") == sealed
    assert not state_file(lab, guest, "beta").exists()
    # swtpm takes it up: with a state of its own making the log would say so once more.
    log = lab.host("alpha").root / f"var/log/swtpm/libvirt/qemu/{guest.name}-swtpm.log"
    made = log.read_text().count("Starting vTPM manufacturing") if log.exists() else 0
    guest.start("alpha")
    guest.wait_ticking("alpha")
    guest.stop("alpha")
    assert (log.read_text().count("Starting vTPM manufacturing") if log.exists() else 0) == made


def test_a_vm_that_was_never_started_gets_one_there(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("tpm-new", start="off", disk="local", disk_mib=16, extra_xml=TPM)
    record = move(running, guest)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert record.files == ()
    assert not state_file(lab, guest, "beta").parents[1].exists()
