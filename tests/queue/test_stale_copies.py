"""A VM that is copied while it stands still, and is used on its source after the copy: it stays where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.disks import Volume
from tasks.model.errors import OperatorMustFix
from tasks.model.host import Pool
from tasks.model.run import State
from tests.fakes.hypervisor import domain_xml
from tests.queue.workbench import HOSTS, UUID, Bench

pytestmark = pytest.mark.queue

OFF = {"alpha": (False, True, False)}
SIZE = 4096


def path_of(folder: str, name: str) -> str:
    return f"{folder}/{name}.raw"


def put(bench: Bench, host: str, path: str, contents: bytes, modified: str) -> None:
    there, name = bench.fake.hosts[host], path.rsplit("/", 1)[1]
    there.volumes.setdefault("images", {})[name] = Volume(name, path, SIZE, SIZE, "raw", SIZE, modified)
    there.contents[path] = bytearray(contents)


def prepare(bench: Bench, folder: str = "/images", *, running: bool = False) -> None:
    """A VM with two disks; each host has a pool for them."""
    for name in HOSTS:
        host = bench.fake.hosts[name]
        pool = Pool("images", "dir", active=True, target=folder, available_bytes=1 << 30)
        host.facts = replace(host.facts, pools=(pool,))
    disks = ""
    for number, target in enumerate(("vda", "vdb")):
        path = path_of(folder, target)
        put(bench, "alpha", path, bytes([number + 1]) * SIZE, "7.5")
        disks += f"<disk type='file' device='disk'><source file='{path}'/><target dev='{target}'/></disk>"
    bench.fake.add_domain("alpha", domain_xml("web-7", UUID, inside=disks), running=running)
    bench.fake.set_autostart("alpha", UUID, enabled=True)


def steps(bench: Bench, *names: str) -> None:
    for name in names:
        bench.step(name)


def use(bench: Bench, folder: str = "/images") -> None:
    """Somebody starts it on the source, works with it and shuts it down again."""
    bench.fake.start("alpha", UUID)
    put(bench, "alpha", path_of(folder, "vda"), b"\7" * SIZE, "8.0")
    bench.fake.shut_down("alpha", UUID)


@pytest.mark.parametrize("when", ["transfer", "verify"])
@pytest.mark.parametrize("verify", ["auto", "basic"])
def test_a_source_that_was_used_after_the_copy_stays(bench: Bench, when: str, verify: str) -> None:
    prepare(bench)
    bench.submit(data_path="worker", verify=verify)
    steps(bench, "preflight", "prepare", "transfer", *(["verify"] if when == "verify" else []))
    use(bench)
    record = bench.deliver_all()
    assert record.state is State.FAILED, record.error
    assert record.error is not None
    assert (record.error.code, "vda.raw on alpha was written to" in record.error.message) == ("VERIFY_FAILED", True)
    assert bench.where() == OFF
    assert bench.fake.hosts["alpha"].contents["/images/vda.raw"] == b"\7" * SIZE
    assert not any(bench.fake.hosts["beta"].volumes.values())


def test_one_that_was_left_alone_moves(bench: Bench) -> None:
    prepare(bench)
    bench.submit(data_path="worker")
    record = bench.deliver_all()
    assert record.state is State.SUCCEEDED, record.error
    assert bench.where() == {"beta": (False, True, False)}


def test_what_was_kept_is_not_asked_about_any_more_when_it_was_let_go(bench: Bench) -> None:
    """A file of the source that is used after its definition went is another's."""
    prepare(bench)
    bench.submit(data_path="worker")
    steps(bench, "preflight", "prepare", "transfer", "verify")
    with bench.fake.failing("set_autostart", OperatorMustFix("X", "no")):
        bench.step("finish")
    put(bench, "alpha", "/images/vda.raw", b"\7" * SIZE, "8.0")
    record = bench.deliver_all()
    assert record.state is State.SUCCEEDED, record.error


def test_a_block_device_is_read_again(bench: Bench) -> None:
    """Its node does not tell when a VM has written to it."""
    prepare(bench, "/dev/vg0")
    bench.submit(data_path="worker")
    steps(bench, "preflight", "prepare", "transfer")
    bench.fake.hosts["alpha"].contents["/dev/vg0/vdb.raw"][100] = 7
    record = bench.deliver_all()
    assert record.state is State.FAILED, record.error
    assert record.error is not None
    assert "vdb.raw on alpha was written to" in record.error.message
    assert bench.where() == OFF


def test_saved_before_it_is_restored(bench: Bench) -> None:
    """Its memory is not loaded on top of disks that have gone on."""
    prepare(bench, running=True)
    bench.submit(method="saved", storage="copy")
    steps(bench, "preflight", "prepare")
    with bench.fake.failing("define", OperatorMustFix("X", "no")):
        bench.step("transfer")
    assert bench.record().error is not None
    put(bench, "alpha", "/images/vda.raw", b"\7" * SIZE, "8.0")
    record = bench.deliver_all()
    assert record.state is State.FAILED, record.error
    assert bench.where() == {"alpha": (True, True, False)}


def test_saved_and_used_on_the_source_never_succeeds(bench: Bench) -> None:
    """Both hosts have something of it: a person decides which is the VM."""
    prepare(bench, running=True)
    bench.submit(method="saved", storage="copy")
    steps(bench, "preflight", "prepare", "transfer")
    assert bench.record().error is None
    bench.fake.start_saved("alpha", UUID, paused=False)
    put(bench, "alpha", "/images/vda.raw", b"\7" * SIZE, "8.0")
    bench.fake.shut_down("alpha", UUID)
    record = bench.deliver_all()
    assert record.state is State.NEEDS_ATTENTION
    assert record.error is not None
    assert "was written to since it was copied" in record.error.message
    assert bench.fake.hosts["alpha"].domains[UUID].persistent


def test_saved_and_left_alone(bench: Bench) -> None:
    prepare(bench, running=True)
    bench.submit(method="saved", storage="copy")
    record = bench.deliver_all()
    assert record.state is State.SUCCEEDED, record.error
    assert bench.where() == {"beta": (True, True, False)}


@pytest.mark.parametrize("named", ["file='/images/vda.raw'", "pool='images' volume='vda.raw'"])
def test_a_file_that_another_vm_names_is_not_deleted(bench: Bench, named: str) -> None:
    prepare(bench)
    kind = "file" if named.startswith("file") else "volume"
    other = f"<disk type='{kind}' device='disk'><source {named}/><target dev='vda'/><readonly/></disk>"
    bench.fake.add_domain("alpha", domain_xml("other", "22222222-2222-3333-4444-555555555555", inside=other))
    bench.submit(data_path="worker", source_disks="delete")
    record = bench.deliver_all()
    assert record.state is State.SUCCEEDED, record.error
    assert set(bench.fake.hosts["alpha"].volumes["images"]) == {"vda.raw"}
    assert record.kept == ("/images/vda.raw (vda) on alpha: in use by other on alpha",)
