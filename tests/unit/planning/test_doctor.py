"""The doctor's checks: facts in, results out; each changes one thing of a fleet that is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tasks.model.doctor import (
    Clock,
    DoctorFacts,
    HostLook,
    PairEnd,
    PairProbe,
    Problem,
    RedisFacts,
    Verdict,
    WorkerFacts,
)
from tasks.model.host import Pool
from tasks.planning.doctor import CHECKS, DESCRIPTIONS, diagnose
from tests.unit.planning.builders import LOCAL_POOL, POOL, facts

GIB = 2**30
NOW = Clock(0.0, 0.01)
SHARED = replace(POOL, capacity_bytes=100 * GIB, available_bytes=50 * GIB)
REDIS = RedisFacts(
    roles=("broker", "results", "records"),
    url="redis://queue:6379/0",
    local=False,
    version="7.0.15",
    replica=False,
    appendonly=True,
    append_works=True,
    appendfsync="everysec",
    eviction="noeviction",
    used_bytes=GIB,
    limit_bytes=8 * GIB,
    open_to_all=False,
    foreign_keys=(),
    put_aside=0,
    clock=NOW,
)
CONTROL = WorkerFacts("control@a", frozenset({"vmferry"}), "1.0", NOW, up_s=1000, reconciled_ago_s=2.0)
STEPS = WorkerFacts("steps@a", frozenset({"vmferry.steps"}), "1.0", NOW, slots=32, up_s=1000)


def host(name: str, **changes: Any) -> HostLook:
    look = HostLook(name, f"qemu+ssh://root@{name}/system", facts=facts(name, pools=(SHARED,)), probed=True, clock=NOW)
    return replace(look, **changes)


def with_facts(name: str, **changes: Any) -> HostLook:
    return host(name, facts=facts(name, **({"pools": (SHARED,)} | changes)))


def pair(end: PairEnd = PairEnd.ARRIVED, text: str = "") -> PairProbe:
    return PairProbe("alpha", "beta", end, 1.0, text, "qemu+ssh://root@beta/system", "tcp://10.0.1.12")


WELL = DoctorFacts(
    version="1.0",
    reconcile_period_s=5.0,
    redis=(REDIS,),
    workers=(CONTROL, STEPS),
    hosts=(host("alpha"), host("beta"), host("gamma")),
    pairs=(pair(),),
    max_total=32,
)


def redis(**changes: Any) -> DoctorFacts:
    return replace(WELL, redis=(replace(REDIS, **changes),))


def workers(*those: WorkerFacts) -> DoctorFacts:
    return replace(WELL, workers=those)


def hosts(*those: HostLook) -> DoctorFacts:
    return replace(WELL, hosts=those)


def beta(**changes: Any) -> DoctorFacts:
    return hosts(host("alpha"), with_facts("beta", **changes), host("gamma"))


def test_a_fleet_that_is_well() -> None:
    found = diagnose(WELL)
    assert [r for r in found.results if r.verdict is not Verdict.OK] == []
    assert (found.healthy, found.reachable) == (True, True)


def problems(seen: DoctorFacts) -> dict[str, str]:
    return {r.code: r.verdict.value for r in diagnose(seen).results if r.verdict is not Verdict.OK}


CASES: list[tuple[DoctorFacts, str, str]] = [
    (redis(problem=Problem("REDIS_UNREACHABLE", "no", "start it")), "REDIS_UNREACHABLE", "failed"),
    (redis(problem=Problem("REDIS_AUTH_FAILED", "no", "check it")), "REDIS_AUTH_FAILED", "failed"),
    (redis(version="6.0.16"), "REDIS_OLD", "warning"),
    (redis(version=None), "REDIS_ANSWERS", "unseen"),
    (redis(replica=True), "REDIS_IS_REPLICA", "failed"),
    (redis(appendonly=False), "REDIS_NO_AOF", "failed"),
    (redis(append_works=False), "REDIS_AOF_BROKEN", "failed"),
    (redis(appendfsync="no"), "REDIS_FSYNC_OFF", "warning"),
    (redis(appendonly=None), "REDIS_PERSISTS", "unseen"),
    (redis(eviction="allkeys-lru"), "REDIS_EVICTS", "failed"),
    (redis(eviction=None), "REDIS_KEEPS", "unseen"),
    (redis(used_bytes=7 * GIB), "REDIS_NEARLY_FULL", "warning"),
    (redis(used_bytes=int(7.9 * GIB)), "REDIS_FULL", "failed"),
    (redis(used_bytes=None), "REDIS_HAS_ROOM", "unseen"),
    (redis(foreign_keys=("shop:cart",)), "REDIS_DB_SHARED", "warning"),
    (redis(foreign_keys=None), "REDIS_DB_OWN", "unseen"),
    (redis(open_to_all=True), "REDIS_OPEN", "failed"),
    (redis(put_aside=3), "MESSAGES_PUT_ASIDE", "warning"),
    (redis(open_to_all=None), "REDIS_GUARDED", "unseen"),
    (workers(CONTROL), "NO_STEPS_WORKER", "failed"),
    (workers(CONTROL, replace(STEPS, slots=31)), "CAP_ABOVE_SLOTS", "warning"),
    (workers(CONTROL, STEPS, replace(STEPS, slots=None)), "SLOTS_ENOUGH", "unseen"),
    (workers(replace(STEPS, queues=frozenset({"vmferry.steps", "x"})), CONTROL, WorkerFacts("old@b")),
     "WORKER_OTHER_VERSION", "warning"),
    (workers(replace(CONTROL, reconciled_ago_s=100.0), STEPS), "NO_BEAT", "failed"),
    (workers(replace(CONTROL, reconciled_ago_s=None), STEPS), "NO_BEAT", "failed"),
    (workers(replace(CONTROL, reconciled_ago_s=None, up_s=3.0), STEPS), "BEAT_RUNS", "unseen"),
    (hosts(), "NO_HOSTS", "failed"),
    (hosts(host("alpha", facts=None, problem=Problem("AUTH_FAILED", "no", "let us in"))), "AUTH_FAILED", "failed"),
    (hosts(host("alpha", facts=None, problem=Problem("CONNECTION_LOST", "gone"))), "HOST_LOST", "failed"),
    (hosts(host("alpha", facts=None, problem=Problem("ACCESS_DENIED", "no", "permit"))), "HOST_UNREADABLE", "failed"),
    (hosts(host("alpha", start_problem=Problem("LIBVIRT_ERROR", "no emulator"))), "PROBE_NOT_STARTED", "failed"),
    (hosts(host("alpha", leftovers=("vmferry-probe-1",))), "PROBE_LEFT_OVER", "warning"),
    (hosts(host("alpha", clock=None)), "CLOCKS_AGREE", "unseen"),
    (hosts(host("alpha"), host("beta", peer_problem=Problem("PEER_URI_UNUSABLE", "local", "set peer_uri"))),
     "PEER_URI_UNUSABLE", "failed"),
    (beta(uuid="host-alpha"), "HOST_UUID_TWICE", "failed"),
    (beta(hostname="alpha.example"), "HOSTNAME_TWICE", "failed"),
    (beta(libvirt_version=10_000_000), "VERSIONS_DIFFER", "warning"),
    (beta(hypervisor_version=8_002_000), "VERSIONS_DIFFER", "warning"),
    (beta(memory_total_kib=0), "MEMORY_UNKNOWN", "unseen"),
    (beta(pools=(replace(SHARED, source="other:/export"),)), "POOL_SOURCE_DIFFERS", "failed"),
    (beta(pools=(replace(SHARED, target="/mnt"),)), "POOL_TARGET_DIFFERS", "failed"),
    (beta(pools=(replace(SHARED, active=False),)), "SHARED_POOL_INACTIVE", "failed"),
    (beta(pools=(SHARED, replace(LOCAL_POOL, active=False))), "POOL_INACTIVE", "warning"),
    (beta(pools=()), "POOL_MISSING", "warning"),
    (beta(pools=(SHARED, replace(LOCAL_POOL, capacity_bytes=100, available_bytes=4))), "POOL_LOW", "warning"),
    (hosts(*(with_facts(name, pools=()) for name in ("alpha", "beta"))), "NO_SHARED_POOL", "warning"),
    (redis(clock=Clock(1.0, 0.1)), "CLOCK_OFF", "warning"),
    (redis(clock=Clock(-60.0, 0.1)), "CLOCK_OFF", "failed"),
    (replace(WELL, pairs=(pair(PairEnd.NO_PEER, "Cannot recv data: Host key verification failed."),)),
     "PEER_NOT_TRUSTED", "failed"),
    (replace(WELL, pairs=(pair(PairEnd.NO_PEER, "root@beta: Permission denied (publickey)."),)),
     "PEER_AUTH_FAILED", "failed"),
    (replace(WELL, pairs=(pair(PairEnd.NO_PEER, "Unable to resolve address 'beta' service '16509'"),)),
     "PEER_NAME_UNKNOWN", "failed"),
    (replace(WELL, pairs=(pair(PairEnd.NO_PEER, "Connection refused"),)), "PEER_UNREACHABLE", "failed"),
    (replace(WELL, pairs=(pair(PairEnd.NO_PORT, "Connection refused"),)), "MIGRATION_PORT_BLOCKED", "failed"),
    (replace(WELL, pairs=(pair(PairEnd.REFUSED, "no machine"),)), "PAIR_REFUSED", "failed"),
    (replace(WELL, pairs=(), pairs_left_out=(("alpha", "gamma"),)), "PAIRS_NOT_TRIED", "unseen"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "code", "verdict"), CASES, ids=[f"{c[1]}-{i}" for i, c in enumerate(CASES)])
def test_one_thing_is_wrong_and_nothing_else_is_blamed(seen: DoctorFacts, code: str, verdict: str) -> None:
    assert problems(seen) == {code: verdict}
    found = diagnose(seen)
    assert found.healthy is (verdict != "failed")
    for result in found.results:
        assert result.code in DESCRIPTIONS
        assert result.hint or result.verdict in (Verdict.OK, Verdict.UNSEEN), result
        assert "\n" not in result.message + result.hint


def test_every_code_that_means_trouble_has_a_case() -> None:
    good = {r.code for r in diagnose(WELL).results}
    elsewhere = {"NO_CONTROL_WORKER", "HOST_UNREACHABLE", "HOST_NOT_TRUSTED", "HOST_SILENT"}
    assert set(DESCRIPTIONS) - good - elsewhere <= {code for _, code, _ in CASES}


def test_without_a_control_worker_beat_cannot_be_seen() -> None:
    assert problems(workers(STEPS)) == {"NO_CONTROL_WORKER": "failed", "BEAT_RUNS": "unseen"}


def test_a_queue_that_is_away_says_nothing_of_the_workers() -> None:
    seen = replace(redis(problem=Problem("REDIS_UNREACHABLE", "no", "start it")), workers=None)
    assert problems(seen) == {"REDIS_UNREACHABLE": "failed", "QUEUES_SERVED": "unseen", "BEAT_RUNS": "unseen"}
    assert not diagnose(seen).reachable


def test_our_own_clock_is_blamed_when_it_is_the_one_that_is_off() -> None:
    ahead = Clock(30.0, 0.01)
    seen = replace(
        WELL,
        redis=(replace(REDIS, clock=ahead),),
        workers=(replace(CONTROL, clock=ahead), replace(STEPS, clock=ahead)),
        hosts=(host("alpha", clock=ahead), host("beta", clock=ahead)),
    )
    (wrong,) = [r for r in diagnose(seen).results if r.code == "CLOCK_OFF"]
    assert (wrong.about, wrong.verdict) == ("this machine", Verdict.FAILED)
    assert "30.0 s behind the others" in wrong.message


def test_a_clock_is_not_blamed_for_a_slow_answer() -> None:
    assert problems(redis(clock=Clock(3.0, 2.9))) == {}


@pytest.mark.parametrize("roles", [("broker", "results"), ("records",)])
def test_each_redis_is_checked(roles: tuple[str, ...]) -> None:
    seen = replace(WELL, redis=(replace(REDIS, roles=("broker",)), replace(REDIS, roles=roles, appendonly=False)))
    assert problems(seen) == {"REDIS_NO_AOF": "failed"}


def test_local_pools_may_differ() -> None:
    other = Pool("default", "dir", active=True, target="/srv/images")
    assert problems(beta(pools=(SHARED, other))) == {}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.look.__name__))
def test_no_check_needs_anything_to_be_there(check: Callable[[DoctorFacts], Any]) -> None:
    check(DoctorFacts(version="1.0", reconcile_period_s=5.0))
    check(DoctorFacts("1.0", 5.0, redis=(RedisFacts(("broker",), "redis://q", False),), workers=(WorkerFacts("w"),)))
    check(DoctorFacts("1.0", 5.0, hosts=(HostLook("a", "qemu:///system"),)))
