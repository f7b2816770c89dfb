"""Whatever is asked wrongly: an error with a code and a hint, living workers, and hosts on which nothing changed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import libvirt
import pytest

from config.celery import CONTROL_QUEUE, POISON_KEY, STEPS_QUEUE
from config.settings import load_settings
from tasks.client import Client
from tasks.model.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.queue.harness import RedisServer, Worker, free_port, wait_for
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

SILENT_ADDRESS = "10.88.200.200"
"""In the lab's network, and nobody's."""


def everything(lab: Lab) -> dict[str, Any]:
    """All domains of all hosts (definition, state, autostart) and the names of all volumes."""
    seen: dict[str, Any] = {}
    for name in lab.spec.hosts:
        with closing(lab.host(name).connect()) as conn:
            for domain in conn.listAllDomains():
                xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
                seen[f"{name}/{domain.UUIDString()}"] = (domain.state(), domain.autostart(), xml)
            for pool in conn.listAllStoragePools():
                pool.refresh(0)
                seen[f"{name}/{pool.name()}"] = sorted(pool.listVolumes())
    return seen


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose inventory has one more host, which nobody answers for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMFERRY_HOSTS__SILENT__URI", f"qemu+tcp://{SILENT_ADDRESS}/system")
        with stack(lab, tmp_path_factory.mktemp("bad-input"), connect_timeout_s=1.0) as made:
            made.start()
            yield made


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    made = lab.guest("bad-1", memory_mib=32, start="paused", disk=None, network=False, autostart=True)
    yield made
    made.remove()


@pytest.fixture
def untouched(lab: Lab, guest: Guest) -> Iterator[None]:
    """Nothing on any host is changed by the test."""
    before = everything(lab)
    yield
    assert everything(lab) == before


def refusal(running: Stack, *args: Any, **kwargs: Any) -> Any:
    """What a plain Celery client gets for its message."""
    app = running.plain_celery()
    sent = app.send_task("tasks.migrate", args, kwargs, queue=CONTROL_QUEUE)
    error = sent.get(timeout=40, propagate=False)
    assert isinstance(error, Exception), f"it was accepted: {error}"
    return error


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown destination": ({"destination": "omega"}, "UNKNOWN_HOST", "omega"),
    "unknown source": ({"source": "omega"}, "UNKNOWN_HOST", "omega"),
    "destination is the source": ({"source": "beta"}, "SAME_HOST", "beta"),
    "unknown policy": ({"policy": "wish"}, "UNKNOWN_POLICY", "wish"),
    "a number for a name": ({"vm": 5}, "INVALID_REQUEST", "vm"),
    "a list for a name": ({"vm": ["bad-1"]}, "INVALID_REQUEST", "vm"),
    "nothing for a name": ({"vm": None}, "INVALID_REQUEST", "vm"),
    "an empty name": ({"vm": ""}, "INVALID_REQUEST", "vm"),
    "a path for a name": ({"vm": "../../etc/passwd"}, "INVALID_REQUEST", "vm"),
    "an option for a name": ({"vm": "--all"}, "INVALID_REQUEST", "vm"),
    "a command for a host": ({"destination": "beta; reboot"}, "INVALID_REQUEST", "destination"),
    "a URI for a host": ({"destination": "qemu+ssh://beta/system"}, "INVALID_REQUEST", "destination"),
    "an unknown method": ({"method": "teleport"}, "INVALID_REQUEST", "method"),
    "an unknown storage": ({"storage": True}, "INVALID_REQUEST", "storage"),
    "labels that are a list": ({"labels": ["a"]}, "INVALID_REQUEST", "labels"),
    "labels that are numbers": ({"labels": {"a": 1}}, "INVALID_REQUEST", "labels"),
    "an unknown argument": ({"speed": "fast"}, "INVALID_REQUEST", "speed"),
}
WRONG_IDS = ["", "a b", "../x", "x" * 65, "ümlaut", 5, ["x"], {"x": 1}, True]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_at_once(running: Stack, untouched: None, name: str) -> None:
    change, code, word = WRONG[name]
    values = {"vm": "bad-1", "destination": "beta"} | change
    with pytest.raises(InvalidRequest) as refused:
        running.client.submit(values)
    assert (refused.value.code, bool(refused.value.hint)) == (code, True)
    error = refusal(running, **values)
    assert error.args[0] == code
    assert word in error.args[1]
    assert error.args[2], "no hint"
    assert running.client.list_runs() == [], "a record was written"


def test_arguments_that_do_not_fit_are_refused_at_once(running: Stack, untouched: None) -> None:
    for args, word in (((), "vm"), (("bad-1",), "destination"), (tuple("abcdefghij"), "too many")):
        error = refusal(running, *args)
        assert (error.args[0], bool(error.args[2])) == ("INVALID_REQUEST", True)
        assert word in error.args[1]
    with pytest.raises(InvalidRequest, match=r"INVALID_REQUEST: vm: .*destination: "):
        running.client.submit({})


def test_a_malformed_id_is_refused_everywhere(running: Stack, untouched: None) -> None:
    for wrong in WRONG_IDS:
        with pytest.raises(InvalidRequest, match="INVALID_ID"):
            running.client.submit({"vm": "bad-1", "destination": "beta"}, run_id=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="INVALID_ID"):
            running.client.show(wrong)  # type: ignore[arg-type]
        assert refusal(running, "bad-1", "beta", id=wrong).args[0] == "INVALID_ID"
    app = running.plain_celery()
    for task in ("tasks.show", "tasks.cancel", "tasks.retry"):
        for value, code in (("../x", "INVALID_ID"), (5, "INVALID_ID"), ("nobody-knows", "UNKNOWN_ID")):
            error = app.send_task(task, (value,), queue=CONTROL_QUEUE).get(timeout=10, propagate=False)
            assert (error.args[0], bool(error.args[2])) == (code, True)
    assert running.client.list_runs() == []


NOT_FOUND: dict[str, tuple[dict[str, Any], str]] = {
    "unknown VM": ({"vm": "nobody"}, "VM_NOT_FOUND"),
    "unknown VM on a named source": ({"vm": "nobody", "source": "alpha"}, "VM_NOT_ON_SOURCE"),
    "not on the named source": ({"source": "gamma"}, "VM_NOT_ON_SOURCE"),
    "source does not answer": ({"source": "silent"}, "SOURCE_UNREACHABLE"),
    "there already": ({"destination": "alpha"}, "ALREADY_ON_DESTINATION"),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_is_not_there_is_refused_by_looking(running: Stack, untouched: None, name: str) -> None:
    change, code = NOT_FOUND[name]
    values = {"vm": "bad-1", "destination": "beta"} | change
    record = running.wait_end(running.client.submit(values).id)
    assert record.state is State.REFUSED
    assert record.error is not None
    assert (record.error.code, bool(record.error.message), bool(record.error.hint)) == (code, True, True)
    error = refusal(running, **values)
    assert (type(error).__name__, error.args[0]) == ("MigrationRefused", code)


def test_a_destination_that_does_not_answer(running: Stack, untouched: None) -> None:
    error = refusal(running, "bad-1", "silent", id="to-silence")
    record = running.client.show("to-silence")
    assert record.error is not None
    assert (type(error).__name__, error.args[0]) == ("MigrationFailed", "HOST_UNREACHABLE")
    assert (record.state, record.error.code, record.journal) == (State.FAILED, "HOST_UNREACHABLE", ())
    assert "silent" in record.error.message
    assert record.error.hint


GARBAGE: dict[str, bytes] = {
    "not JSON": b"\x00\xff{",
    "a JSON list": b"[1, 2, 3]",
    "an empty object": b"{}",
    "a body of wrong shape": json.dumps(
        {
            "body": "W10=",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": "tasks.migrate", "id": "x"},
            "properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": CONTROL_QUEUE}},
        }
    ).encode(),
    "no properties": b'{"body": "W1tdLHt9LHt9XQ==", "headers": {"task": "tasks.migrate", "id": "x"}}',
}


def test_garbage_on_both_queues_is_put_aside_and_migrations_go_on(running: Stack, lab: Lab, guest: Guest) -> None:
    redis, before = running.redis.client(), everything(lab)
    for queue in (CONTROL_QUEUE, STEPS_QUEUE):
        for garbage in GARBAGE.values():
            redis.lpush(queue, garbage)
    wait_for(lambda: redis.llen(POISON_KEY) == 2 * len(GARBAGE), "all of it put aside")
    assert set(redis.lrange(POISON_KEY, 0, -1)) == set(GARBAGE.values())
    assert everything(lab) == before
    # Steps of a migration that does not exist, with arguments that are none, and with too few.
    app = running.plain_celery()
    for number, args in enumerate([("nobody-knows", 1), ("nobody-knows", "one"), (["x"], {}), ()]):
        app.send_task("tasks.steps.transfer", args, queue=STEPS_QUEUE, task_id=f"stray-{number}")
    assert isinstance(app.AsyncResult("stray-3").get(timeout=10, propagate=False), TypeError)
    assert everything(lab) == before
    assert all(worker.running for worker in running.workers), running.logs()
    # The unanswering host of the inventory does not hinder a migration between others.
    record = running.wait_end(running.client.submit({"vm": "bad-1", "destination": "beta"}).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_invariants(running, guest, record, was_running=True, autostart=True)


BROKEN: dict[str, tuple[str, str, str]] = {
    "not TOML": ("hosts = = 1\n", "CONFIG_UNREADABLE", "line 1"),
    "an unknown key": ("borker_url = 'redis://127.0.0.1/0'\n", "CONFIG_INVALID", "borker_url"),
    "an unknown key of a host": ("[hosts.a]\nuri = 'qemu:///system'\ncolour = 1\n", "CONFIG_INVALID", "hosts.a.colour"),
    "a bad libvirt URI": ("[hosts.a]\nuri = 'alpha'\n", "CONFIG_INVALID", "hosts.a.uri"),
    "a bad broker": ("broker_url = 'amqp://127.0.0.1/'\n", "CONFIG_INVALID", "broker_url"),
    "a bad host name": ("[hosts.'a b']\nuri = 'qemu:///system'\n", "CONFIG_INVALID", "hosts.a b"),
    "a bad number": ("max_total = 0\n", "CONFIG_INVALID", "max_total"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_names_the_key(tmp_path: Path, name: str) -> None:
    text, code, word = BROKEN[name]
    config = tmp_path / "vmferry.toml"
    config.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(config)
    assert (refused.value.code, bool(refused.value.hint)) == (code, True)
    assert word in refused.value.message


def test_a_worker_with_a_broken_configuration_ends_with_a_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "vmferry.toml"
    config.write_text(BROKEN["an unknown key"][0])
    worker = Worker(config, name="broken", folder=tmp_path)
    worker.start(ready=False)
    try:
        assert worker.wait(timeout_s=20) != 0
    finally:
        worker.kill9()
    last = worker.log().strip().splitlines()[-1]
    assert "CONFIG_INVALID" in last
    assert "borker_url" in last
    assert str(config) in last


def test_redis_that_is_down_is_said_and_not_waited_for(running: Stack) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    client = Client(running.settings.model_copy(update={"broker_url": url}))
    with closing(client):
        for ask in (
            lambda: client.submit({"vm": "bad-1", "destination": "gamma"}),
            lambda: client.show("x"),
            lambda: client.list_runs(),
            lambda: client.cancel("x"),
            lambda: client.retry("x"),
        ):
            with pytest.raises(StoreUnavailable) as refused:
                ask()
            assert refused.value.code == "REDIS_UNREACHABLE"
            assert "broker_url" in refused.value.hint


def test_a_wrong_redis_password_is_said_without_repeating_it(running: Stack) -> None:
    with RedisServer(address="127.0.0.1", password=secrets.token_hex(8)) as redis:
        for wrong in (":wrong-one@", ""):
            url = f"redis://{wrong}127.0.0.1:{redis.port}/0"
            with closing(Client(running.settings.model_copy(update={"broker_url": url}))) as client:
                with pytest.raises(StoreUnavailable) as refused:
                    client.submit({"vm": "bad-1", "destination": "gamma"})
                assert refused.value.code == "REDIS_AUTH_FAILED"
                assert refused.value.hint
                assert "wrong-one" not in str(refused.value)
