"""What vmferry does about findings when it is asked to, and takes back when the VM does not move."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.model.errors import InvalidRequest
from tasks.model.finding import Severity
from tasks.model.run import State
from tests.lab import Guest, Lab, check_unchanged, snapshot
from tests.scenarios.asking import findings, move
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

IMAGES = "/var/lib/libvirt/images"
CDROM = (
    "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{}'/>"
    "<target dev='sda' bus='sata'/><readonly/></disk>"
)
VNC = "<graphics type='vnc' autoport='yes' listen='{0}'><listen type='address' address='{0}'/></graphics>"


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("remedies")) as made:
        made.start()
        yield made


@contextmanager
def image(lab: Lab, name: str, mib: int = 3) -> Iterator[Path]:
    """An image that only alpha has, as its path on alpha."""
    path = Path(IMAGES) / name
    file = lab.host("alpha").root / path.relative_to("/")
    file.write_bytes(os.urandom(mib << 20) + b"the end")
    try:
        yield path
    finally:
        file.unlink()


@pytest.fixture(scope="module", params=["running", "off"])
def start(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def with_cdrom(lab: Lab, start: str) -> Iterator[Guest]:
    """A guest on alpha with an image in its drive that only alpha has; tests leave it so."""
    with image(lab, f"only-alpha-{start}.iso") as path:
        guest = lab.guest(f"cdrom-{start}", start=start, extra_xml=CDROM.format(path), autostart=True)
        if start == "running":
            guest.wait_ticking()
        yield guest
        guest.remove()


def insert(lab: Lab, guest: Guest, path: str, start: str) -> None:
    """Put an image into the drive, which is on alpha."""
    where = ["--live", "--config"] if start == "running" else ["--config"]
    lab.host("alpha").virsh("change-media", guest.uuid, "sda", path, "--update", *where)


def drive(lab: Lab, host: str, guest: Guest) -> tuple[str, str]:
    """What is in the drive: of the running VM (empty when it is shut off), and of its definition."""
    texts = [lab.host(host).virsh("domblklist", guest.uuid, *flags) for flags in ((), ("--inactive",))]
    live, inactive = (next(line.split()[1] for line in text.splitlines() if "sda" in line) for text in texts)
    return live, inactive


def test_without_a_remedy_it_is_refused_and_the_hint_names_them(running: Stack, with_cdrom: Guest) -> None:
    record = move(running, with_cdrom)
    severity, _, hint = findings(record)["MEDIUM_MISSING"]
    assert (record.state, severity) == (State.REFUSED, Severity.BLOCKER)
    assert hint.startswith("--remedy copy-media or --remedy eject-media")


def test_a_medium_is_taken_out(running: Stack, lab: Lab, with_cdrom: Guest, start: str) -> None:
    values = {"vm": with_cdrom.name, "destination": "beta", "remedies": ["eject-media"]}
    plan = running.client.plan(values)
    assert plan.allowed
    with with_cdrom.watch() as watch:
        record = move(running, with_cdrom, "eject-media")
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        check_invariants(running, with_cdrom, record, was_running=start == "running", autostart=True, watch=watch)
    severity, message, _ = findings(record)["MEDIUM_MISSING"]
    assert severity is Severity.INFO
    assert "is taken out" in message
    assert drive(lab, "beta", with_cdrom) == ("-", "-")
    back = running.wait_end(running.client.submit({"vm": with_cdrom.name, "destination": "alpha"}).id)
    assert back.state is State.SUCCEEDED, running.diagnosis(back.id)
    insert(lab, with_cdrom, f"{IMAGES}/only-alpha-{start}.iso", start)


@pytest.mark.parametrize("point", ["prepare.journaled-source_medium", "prepare.effected-source_medium", "prepare.done"])
def test_a_medium_that_was_taken_out_is_put_back(
    running: Stack, lab: Lab, with_cdrom: Guest, start: str, point: str
) -> None:
    before = snapshot(lab)
    running.fail(point)
    record = move(running, with_cdrom, "eject-media")
    running.check_failed()
    assert record.state is State.FAILED, running.diagnosis(record.id)
    inside = f"{IMAGES}/only-alpha-{start}.iso"
    assert drive(lab, "alpha", with_cdrom) == (inside, inside)
    check_unchanged(lab, before)


@pytest.mark.parametrize("point", ["prepare.journaled-source_medium", "prepare.effected-source_medium"])
def test_kill9_while_it_is_taken_out(running: Stack, lab: Lab, with_cdrom: Guest, start: str, point: str) -> None:
    before = snapshot(lab)
    running.hold(point)
    values = {"vm": with_cdrom.name, "destination": "beta", "remedies": ["eject-media"]}
    record = running.client.submit(values)
    running.wait_held()
    running.workers.pop(1).kill9()
    running.hold("transfer.claimed")
    running.steps_worker()
    running.wait_held()
    assert drive(lab, "alpha", with_cdrom) == ("-", "-")
    running.client.cancel(record.id)
    running.release()
    ended = running.wait_end(record.id)
    assert ended.state is State.CANCELLED, running.diagnosis(record.id)
    check_unchanged(lab, before)


def test_another_medium_that_was_put_in_meanwhile_stays(
    running: Stack, lab: Lab, with_cdrom: Guest, start: str
) -> None:
    running.hold("prepare.done")
    values = {"vm": with_cdrom.name, "destination": "beta", "remedies": ["eject-media"]}
    record = running.client.submit(values)
    running.wait_held()
    with image(lab, "another.iso") as path:
        insert(lab, with_cdrom, str(path), start)
        running.client.cancel(record.id)
        running.release()
        ended = running.wait_end(record.id)
        assert ended.state is State.CANCELLED, running.diagnosis(record.id)
        assert set(drive(lab, "alpha", with_cdrom)) == {str(path)}
        insert(lab, with_cdrom, f"{IMAGES}/only-alpha-{start}.iso", start)


@pytest.mark.parametrize("method", ["live", "saved", "offline"])
def test_an_image_is_copied(running: Stack, lab: Lab, make_guest: Callable[..., Guest], method: str) -> None:
    with image(lab, f"disc-{method}.iso") as path:
        was_running = method != "offline"
        start = "running" if was_running else "off"
        guest = make_guest(f"copied-{method}", start=start, extra_xml=CDROM.format(path))
        if was_running:
            guest.wait_ticking()
        before = snapshot(lab)
        running.fail("verify.claimed" if method == "offline" else "transfer.claimed")
        failed = move(running, guest, "copy-media", method=method)
        running.check_failed()
        assert failed.state is State.FAILED, running.diagnosis(failed.id)
        check_unchanged(lab, before)
        record = move(running, guest, "copy-media", method=method)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        check_invariants(running, guest, record, was_running=was_running, autostart=False)
        (file,) = record.files if method != "saved" else [f for f in record.files if f.key.startswith("medium")]
        assert drive(lab, "beta", guest)[1] == file.path
        there, here = (lab.host(h).root / p.lstrip("/") for h, p in (("beta", file.path), ("alpha", str(path))))
        assert there.read_bytes() == here.read_bytes()
        there.unlink()


def test_a_copy_that_differs_is_noticed(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    with image(lab, "disc-spoilt.iso") as path:
        guest = make_guest("spoilt-1", start="off", extra_xml=CDROM.format(path))
        running.hold("verify.claimed")
        values = {"vm": guest.name, "destination": "beta", "remedies": ["copy-media"]}
        record = running.client.submit(values)
        running.wait_held()
        (file,) = running.client.show(record.id).files
        with (lab.host("beta").root / file.path.lstrip("/")).open("r+b") as there:
            there.write(b"not what was there")
        running.release()
        ended = running.wait_end(record.id)
        assert ended.error is not None
        assert (ended.state, ended.error.code) == (State.FAILED, "VERIFY_FAILED"), running.diagnosis(record.id)
        check_invariants(running, guest, ended, was_running=False, autostart=False)


@pytest.mark.parametrize(("remedy", "address"), [("listen-anywhere", "0.0.0.0"), ("listen-locally", "127.0.0.1")])
def test_a_display_listens_elsewhere(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], remedy: str, address: str
) -> None:
    """Without it libvirt fails: the destination does not have the source's address."""
    guest = make_guest(f"{remedy}-1", extra_xml=VNC.format(lab.host("alpha").address))
    guest.wait_ticking()
    plain = move(running, guest)
    assert plain.state is State.FAILED, running.diagnosis(plain.id)
    severity, _, hint = findings(plain)["GRAPHICS_LISTEN_ADDRESS"]
    assert (severity, f"--remedy {remedy}" in hint) == (Severity.WARNING, True)
    record = move(running, guest, remedy)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    severity, message, _ = findings(record)["GRAPHICS_LISTEN_ADDRESS"]
    assert (severity, f"at {address} on beta" in message) == (Severity.INFO, True)
    for flags in ((), ("--inactive",)):
        assert f"listen='{address}'" in lab.host("beta").virsh("dumpxml", guest.uuid, *flags)
    check_invariants(running, guest, record, was_running=True, autostart=False)


def test_words_that_are_no_remedies(running: Stack, make_guest: Callable[..., Guest]) -> None:
    with pytest.raises(InvalidRequest, match="UNKNOWN_REMEDY"):
        running.client.submit({"vm": "any", "destination": "beta", "remedies": ["pray"]})
    with pytest.raises(InvalidRequest, match="INVALID_REQUEST"):
        running.client.submit({"vm": "any", "destination": "beta", "remedies": ["; reboot"]})
    guest = make_guest("healthy-1", start="off")
    done = running.cli("plan", guest.name, "--to", "beta", "--remedy", "eject-media", "--remedy", "listen-anywhere")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("REMEDY_UNUSED") == 2
