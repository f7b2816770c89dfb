"""``vmferry doctor`` on the healthy lab, and on broken ones: what is broken is found, and nothing else is blamed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tasks.model.doctor import PROBE_PREFIX
from tests.lab import Lab, faults
from tests.lab.clock import clock_ahead
from tests.scenarios.stack import REPOSITORY, Stack, until

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, workers and beat, with hosts that reach each other over ssh as most fleets do."""
    with Stack(lab, tmp_path_factory.mktemp("doctor"), transport="ssh", max_total=8) as stack:
        stack.start()
        until(lambda: ("BEAT_RUNS", "beat") in Report(stack, "--no-probe").of("ok"), 60, stack.logs)
        yield stack


def probes(lab: Lab) -> list[str]:
    """Probe VMs that are on any host now."""
    found = []
    for name in lab.spec.hosts:
        host = lab.host(name)
        if host.libvirtd_pid is not None:
            with closing(host.connect()) as conn:
                found += [f"{name}: {d.name()}" for d in conn.listAllDomains() if d.name().startswith(PROBE_PREFIX)]
    return found


class Report:
    """What the program printed with ``--json``, and its exit code."""

    def __init__(self, stack: Stack, *args: str) -> None:
        done = stack.cli("doctor", "--json", *args, timeout_s=200)
        self.exit_code = done.returncode
        assert done.stdout, done.stderr
        self.model: dict[str, Any] = json.loads(done.stdout)
        self.results: list[dict[str, str]] = self.model["results"]

    def of(self, verdict: str) -> set[tuple[str, str]]:
        """(code, about) of the results with a verdict."""
        return {(r["code"], r["about"]) for r in self.results if r["verdict"] == verdict}

    def result(self, code: str) -> dict[str, str]:
        """The first result with this code."""
        return next(r for r in self.results if r["code"] == code)


def pairs_ok(report: Report) -> set[str]:
    return {about for code, about in report.of("ok") if code == "PAIR_WORKS"}


ALL_PAIRS = {
    "alpha → beta",
    "alpha → gamma",
    "beta → alpha",
    "beta → gamma",
    "gamma → alpha",
    "gamma → beta",
}


def test_healthy(lab: Lab, running: Stack) -> None:
    report = Report(running)
    assert [r for r in report.results if r["verdict"] != "ok"] == []
    assert (report.exit_code, report.model["healthy"], report.model["reachable"]) == (0, True, True)
    assert pairs_ok(report) == ALL_PAIRS
    assert {about for code, about in report.of("ok") if code == "PROBE_STARTS"} == {"alpha", "beta", "gamma"}
    assert "gamma agree within" in report.result("CLOCKS_AGREE")["message"]
    assert probes(lab) == []


def test_people_get_one_line_a_result_and_a_summary(running: Stack) -> None:
    done = running.cli("doctor", "--no-probe")
    assert done.returncode == 0, done.stdout
    assert "unseen   PAIRS_NOT_TRIED pairs:" in done.stdout
    assert "→ leave out --no-probe" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("2 unseen")


def test_a_host_whose_clock_is_off(lab: Lab, running: Stack) -> None:
    with clock_ahead(lab.host("gamma"), 7):
        report = Report(running, "--pair", "alpha:beta")
    assert report.of("failed") == {("CLOCK_OFF", "gamma")}
    assert "7.0 s ahead of the others" in report.result("CLOCK_OFF")["message"]
    assert pairs_ok(report) == {"alpha → beta"}


def test_redis_that_forgets_and_evicts(running: Stack) -> None:
    redis = running.redis.client()
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("appendonly", "no")
    try:
        report = Report(running, "--no-probe")
    finally:
        redis.config_set("appendonly", "yes")
        redis.config_set("maxmemory-policy", "noeviction")
    assert report.of("failed") == {("REDIS_NO_AOF", "redis"), ("REDIS_EVICTS", "redis")}
    assert report.of("warning") == set()
    assert "CONFIG SET maxmemory-policy noeviction" in report.result("REDIS_EVICTS")["hint"]
    assert (report.exit_code, report.model["reachable"]) == (1, True)


def test_a_host_that_is_down(lab: Lab, running: Stack) -> None:
    with faults.link_down(lab.host("gamma")):
        report = Report(running)
    assert report.of("failed") == {("HOST_UNREACHABLE", "gamma")}
    assert (report.exit_code, report.model["reachable"]) == (5, False)
    assert pairs_ok(report) == {"alpha → beta", "beta → alpha"}
    assert report.of("unseen") == {("PAIRS_NOT_TRIED", "pairs")}
    assert "virsh -c" in report.result("HOST_UNREACHABLE")["hint"]


def test_a_host_that_hangs_does_not_hang_the_doctor(lab: Lab, running: Stack) -> None:
    with faults.libvirtd_frozen(lab.host("gamma")):
        report = Report(running, "--no-probe")
    assert report.of("failed") == {("HOST_UNREACHABLE", "gamma")}
    assert report.exit_code == 5


@pytest.mark.parametrize(
    ("fault", "code", "hint"),
    [
        (faults.peers_unknown, "PEER_NOT_TRUSTED", "ssh-keyscan"),
        (faults.key_missing, "PEER_AUTH_FAILED", "let root of alpha into beta"),
    ],
)
def test_a_source_that_its_peers_do_not_know(lab: Lab, running: Stack, fault: Any, code: str, hint: str) -> None:
    with fault(lab.host("alpha")):
        report = Report(running)
    assert report.of("failed") == {(code, "alpha → beta"), (code, "alpha → gamma")}
    assert pairs_ok(report) == {pair for pair in ALL_PAIRS if not pair.startswith("alpha")}
    assert hint in report.result(code)["hint"]
    assert "qemu+ssh://root@beta/system" in report.result(code)["message"]
    assert (report.exit_code, probes(lab)) == (1, [])


def test_migration_ports_that_are_refused(lab: Lab, running: Stack) -> None:
    with faults.migration_ports_unreachable(lab.host("alpha"), lab.host("beta")):
        report = Report(running)
    assert report.of("failed") == {("MIGRATION_PORT_BLOCKED", "alpha → beta")}
    assert pairs_ok(report) == ALL_PAIRS - {"alpha → beta"}
    assert "open TCP ports 49152-49215 on beta to alpha" in report.result("MIGRATION_PORT_BLOCKED")["hint"]
    assert (report.exit_code, probes(lab)) == (1, [])


def test_migration_ports_that_swallow_packets(lab: Lab, running: Stack) -> None:
    """libvirt's own call would wait for more than two minutes."""
    with faults.migration_ports_swallowed(lab.host("beta")):
        report = Report(running, "--to", "beta")
        assert report.of("failed") == {
            ("MIGRATION_PORT_BLOCKED", "alpha → beta"),
            ("MIGRATION_PORT_BLOCKED", "gamma → beta"),
        }
        assert "packets are swallowed" in report.result("MIGRATION_PORT_BLOCKED")["message"]
        assert [p for p in probes(lab) if p.startswith("beta")] == []
    until(lambda: probes(lab) == [], 150, lambda: f"left: {probes(lab)}")


def test_a_shared_pool_that_is_inactive(lab: Lab, running: Stack) -> None:
    with faults.pool_inactive(lab.host("beta"), "shared"):
        report = Report(running, "--no-probe")
    assert report.of("failed") == {("SHARED_POOL_INACTIVE", "beta")}
    assert report.of("warning") == set()
    assert "on beta: virsh pool-start shared" in report.result("SHARED_POOL_INACTIVE")["hint"]


def test_a_shared_pool_that_is_mounted_elsewhere(lab: Lab, running: Stack) -> None:
    with faults.pool_elsewhere(lab.host("beta"), "shared", "/var/lib/libvirt/elsewhere"):
        report = Report(running, "--no-probe")
    assert [code for code, _ in report.of("failed")] == ["POOL_TARGET_DIFFERS"]
    message = report.result("POOL_TARGET_DIFFERS")["message"]
    assert "/var/lib/libvirt/elsewhere on beta" in message
    assert "/var/lib/libvirt/shared on alpha and gamma" in message


def test_nobody_serves_the_steps_and_beat_is_gone(lab: Lab, tmp_path: Path) -> None:
    with Stack(lab, tmp_path) as stack:
        stack.control_worker()
        until(lambda: ("NO_BEAT", "beat") in Report(stack, "--no-probe").of("failed"), 60, "beat is not missed")
        report = Report(stack, "--no-probe")
    assert report.of("failed") == {("NO_STEPS_WORKER", "workers"), ("NO_BEAT", "beat")}
    assert "vmferry worker --role steps" in report.result("NO_STEPS_WORKER")["hint"]


def test_redis_that_is_away(lab: Lab, tmp_path: Path) -> None:
    with Stack(lab, tmp_path) as stack:
        stack.redis.kill()
        report = Report(stack, "--no-probe")
        assert report.of("failed") == {("REDIS_UNREACHABLE", "redis")}
        assert {about for code, about in report.of("ok") if code == "HOST_ANSWERS"} == {"alpha", "beta", "gamma"}
        assert report.exit_code == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_doctor_removes_its_probes(lab: Lab, running: Stack, number: signal.Signals) -> None:
    program = start_doctor(running)
    until(lambda: probes(lab), 30, "no probe is seen")
    program.send_signal(number)
    assert program.wait(30) != 0
    assert probes(lab) == []


def test_the_next_doctor_finds_what_a_killed_one_left(lab: Lab, running: Stack) -> None:
    left: set[str] = set()
    try:
        with faults.migration_ports_swallowed(lab.host("beta")):
            program = start_doctor(running, "--pair", "alpha:beta")
            until(lambda: on_both(lab), 30, "no probe arrives")
            program.kill()
            program.wait(30)
            left = on_both(lab)
            report = Report(running, "--no-probe")
        assert {about for code, about in report.of("warning") if code == "PROBE_LEFT_OVER"} == {"alpha", "beta"}
        (name,) = left
        result = report.result("PROBE_LEFT_OVER")
        assert name in result["message"]
        assert result["hint"].endswith(f"destroy {name}")
        assert report.exit_code == 0
    finally:
        remove(lab, left)


def on_both(lab: Lab) -> set[str]:
    """The probe on its way from alpha to beta."""
    seen = [line.split(": ") for line in probes(lab)]
    alpha, beta = ({name for host, name in seen if host == wanted} for wanted in ("alpha", "beta"))
    return alpha & beta


def start_doctor(stack: Stack, *args: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(REPOSITORY / "cli.py"), "doctor", *args]
    # Tests that were started in the background ignore SIGINT, and so would whatever they start.
    listens = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=stack.env, stdout=quiet, stderr=quiet, preexec_fn=listens)


def remove(lab: Lab, names: set[str]) -> None:
    for host in lab.spec.hosts:
        with closing(lab.host(host).connect()) as conn:
            for domain in conn.listAllDomains():
                if domain.name() in names:
                    with suppress(libvirt.libvirtError):  # its stopped transfer still holds it, or it has just gone
                        domain.destroy()
