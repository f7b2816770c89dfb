"""The run store against a real Redis: compare-and-set, leases, fences, tokens, retention."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tasks.model.errors import StaleOwner, StoreUnavailable, UnknownMigration, VmferryError
from tasks.model.request import MigrationRequest
from tasks.model.run import Channel, ErrorInfo, Progress, RunRecord, State, StepName
from tasks.store import Limits, RunStore, connect
from tasks.store.runs import SAMPLES_KEPT
from tests.queue.harness import RedisServer

pytestmark = pytest.mark.queue

LIMITS = Limits({"out:alpha": 2, "in:beta": 2, "total": 3}, "vm:u-1")


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RunStore]:
    client = connect(redis_server.url)
    client.flushdb()
    yield RunStore(client, retention_s=60)
    client.close()


def new_record(run_id: str = "one", vm: str = "web-7", **changes: Any) -> RunRecord:
    request = MigrationRequest(vm=vm, destination="beta")
    record = RunRecord(id=run_id, request=request, fingerprint=request.fingerprint(), vm=vm, destination="beta")
    return record.model_copy(update={"uuid": f"u-{run_id}", "source": "alpha"} | changes)


def admitted(store: RunStore, run_id: str = "one", limits: Limits = LIMITS, *, deadline_in: float = 5.0) -> RunRecord:
    record = store.submit(new_record(run_id)).record
    after = record.model_copy(update={"state": State.CHECKING, "step": StepName.PREFLIGHT, "send": 1})
    answer = store.admit(record, after, limits, deadline_in=deadline_in)
    assert answer.admitted
    return answer.record


def claim(store: RunStore, owner: str = "me", lease_s: float = 5.0) -> RunRecord | None:
    return store.claim("one", attempt=1, step=StepName.PREFLIGHT, owner=owner, lease_s=lease_s)


def must_claim(store: RunStore, owner: str = "me", lease_s: float = 5.0) -> RunRecord:
    record = claim(store, owner, lease_s)
    assert record is not None
    return record


def test_the_same_request_is_the_same_migration_and_another_is_a_conflict(store: RunStore) -> None:
    assert store.submit(new_record()).verdict == "created"
    assert store.submit(new_record()).verdict == "same"
    conflict = store.submit(new_record(vm="web-8"))
    assert conflict.verdict == "conflict"
    assert conflict.record.vm == "web-7"
    assert len(store.list_runs()) == 1


def test_a_conflicting_request_adds_no_waiter(store: RunStore) -> None:
    store.submit(new_record(), waiter="w1")
    store.submit(new_record(vm="web-8"), waiter="w2")
    assert store.waiters("one") == {"w1"}


def test_only_one_of_many_claims_wins(store: RunStore) -> None:
    admitted(store)
    won: list[RunRecord | None] = []
    threads = [threading.Thread(target=lambda i=i: won.append(claim(store, f"w{i}"))) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(record is not None for record in won) == 1


def test_a_claim_needs_the_right_attempt_and_step(store: RunStore) -> None:
    admitted(store)
    assert store.claim("one", attempt=2, step=StepName.PREFLIGHT, owner="x", lease_s=5) is None
    assert store.claim("one", attempt=1, step=StepName.TRANSFER, owner="x", lease_s=5) is None


def test_the_fence_grows_with_every_claim_and_shuts_the_old_owner_out(store: RunStore) -> None:
    admitted(store)
    old = must_claim(store, "old", lease_s=0.05)
    time.sleep(0.1)
    new = must_claim(store, "new")
    assert new.fence > old.fence
    with pytest.raises(StaleOwner):
        store.commit(old, old.model_copy(update={"vm": "overwritten"}), guard="fence")
    with pytest.raises(StaleOwner):
        store.renew(old, 5)
    assert store.load("one").vm == "web-7"


def test_a_lease_that_is_renewed_is_not_adopted(store: RunStore) -> None:
    admitted(store)
    mine = must_claim(store, "me", lease_s=0.2)
    for _ in range(4):
        time.sleep(0.1)
        store.renew(mine, 0.2)
    assert claim(store, "thief") is None
    assert store.due() == []


def test_claiming_again_after_a_lost_reply_is_no_theft(store: RunStore) -> None:
    admitted(store)
    assert must_claim(store, "me").fence < must_claim(store, "me").fence


def test_an_expired_lease_and_an_expired_hand_over_are_due(store: RunStore) -> None:
    admitted(store, deadline_in=0.05)
    time.sleep(0.1)
    assert [r.id for r in store.due()] == ["one"]
    must_claim(store, lease_s=0.05)
    time.sleep(0.1)
    assert [r.id for r in store.due()] == ["one"]


def test_an_illegal_transition_writes_nothing(store: RunStore) -> None:
    admitted(store)
    mine = must_claim(store)
    with pytest.raises(VmferryError) as caught:
        store.commit(mine, mine.model_copy(update={"state": State.SUCCEEDED}), guard="fence")
    assert caught.value.code == "ILLEGAL_TRANSITION"
    assert store.load("one").state is State.CHECKING


def test_tokens_are_taken_all_or_none(store: RunStore) -> None:
    admitted(store, "a", Limits({"out:alpha": 1, "total": 5}, "vm:a"))
    record = store.submit(new_record("b")).record
    after = record.model_copy(update={"state": State.CHECKING, "step": StepName.PREFLIGHT})
    answer = store.admit(record, after, Limits({"in:beta": 5, "out:alpha": 1, "total": 5}, "vm:b"), deadline_in=5)
    assert (answer.admitted, answer.missing, answer.holder) == (False, "full", "out:alpha")
    assert store.tokens_in_use(["in:beta", "out:alpha", "total"]) == {"in:beta": 0, "out:alpha": 1, "total": 1}
    assert store.load("b").state is State.QUEUED


def test_two_migrations_of_one_vm_are_never_admitted_together(store: RunStore) -> None:
    admitted(store, "a", Limits({"total": 9}, "vm:same"))
    record = store.submit(new_record("b")).record
    after = record.model_copy(update={"state": State.CHECKING, "step": StepName.PREFLIGHT})
    answer = store.admit(record, after, Limits({"total": 9}, "vm:same"), deadline_in=5)
    assert (answer.admitted, answer.missing, answer.holder) == (False, "locked", "a")


def test_limits_hold_under_a_rush(store: RunStore) -> None:
    records = [store.submit(new_record(f"r{i}")).record for i in range(30)]

    def admit(record: RunRecord) -> None:
        after = record.model_copy(update={"state": State.CHECKING, "step": StepName.PREFLIGHT})
        store.admit(record, after, Limits({"out:alpha": 4, "total": 9}, f"vm:{record.id}"), deadline_in=5)

    threads = [threading.Thread(target=admit, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.tokens_in_use(["out:alpha", "total"]) == {"out:alpha": 4, "total": 4}


def end(store: RunStore, state: State) -> RunRecord:
    admitted(store)
    mine = must_claim(store)
    back = mine.model_copy(update={"state": State.ROLLING_BACK, "step": StepName.ROLLBACK})
    mine = store.commit(mine, back, guard="fence", deadline_in=5)
    ended = mine.model_copy(
        update={"state": state, "step": None, "owner": "", "error": ErrorInfo(code="X", message="x")}
    )
    release = "tokens" if state is State.NEEDS_ATTENTION else "all"
    return store.commit(mine, ended, guard="fence", deadline_in=0, release=release)  # type: ignore[arg-type]


def test_the_end_gives_tokens_and_lock_back_once(store: RunStore) -> None:
    ended = end(store, State.FAILED)
    assert store.tokens_in_use(["out:alpha", "in:beta", "total"]) == {"out:alpha": 0, "in:beta": 0, "total": 0}
    assert [r.id for r in store.unpublished()] == ["one"]
    assert ended.is_terminal
    admitted(store, "two", Limits({"total": 1}, "vm:u-1"))


def test_needs_attention_keeps_the_lock_and_never_expires(store: RunStore, redis_server: RedisServer) -> None:
    end(store, State.NEEDS_ATTENTION)
    record = store.submit(new_record("two")).record
    after = record.model_copy(update={"state": State.CHECKING, "step": StepName.PREFLIGHT})
    assert store.admit(record, after, LIMITS, deadline_in=5).holder == "one"
    assert connect(redis_server.url).ttl("vmferry:run:one") == -1
    assert store.prune(before=store.now() + 1000) == []


def test_finished_records_expire_with_the_retention_and_are_pruned(store: RunStore, redis_server: RedisServer) -> None:
    end(store, State.FAILED)
    assert 0 < int(connect(redis_server.url).ttl("vmferry:run:one")) <= 60
    assert store.prune(before=store.now() - 1000) == []
    assert store.prune(before=store.now() + 1) == ["one"]
    with pytest.raises(UnknownMigration):
        store.load("one")
    assert store.list_runs() == []


def test_a_record_of_a_newer_schema_is_left_alone(store: RunStore, redis_server: RedisServer) -> None:
    record = admitted(store)
    connect(redis_server.url).hset("vmferry:run:one", "schema", 99)
    assert claim(store) is None
    with pytest.raises(StaleOwner):
        store.commit(record, record.model_copy(update={"vm": "x"}), guard="rev")
    with pytest.raises(VmferryError) as caught:
        store.load("one")
    assert caught.value.code == "RECORD_TOO_NEW"
    assert store.list_runs() == []


def test_cancel_is_seen_by_the_owner_at_its_next_renewal(store: RunStore) -> None:
    record = admitted(store)
    mine = must_claim(store)
    store.request_cancel(store.load(record.id))
    assert store.renew(mine, 5) is True


def test_cancel_of_a_state_that_has_gone_is_refused(store: RunStore) -> None:
    queued = store.submit(new_record()).record
    after = queued.model_copy(update={"state": State.CHECKING, "step": StepName.PREFLIGHT})
    store.admit(queued, after, LIMITS, deadline_in=5)
    with pytest.raises(StaleOwner):
        store.request_cancel(queued)


def test_a_closed_port_is_a_clear_error() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        RunStore(connect("redis://127.0.0.1:1/0", retries=0), retention_s=1).ping()
    assert caught.value.code == "REDIS_UNREACHABLE"


def moved_on(store: RunStore, record: RunRecord, remaining: int) -> RunRecord:
    progress = Progress(memory=Channel(total_bytes=1 << 30, remaining_bytes=remaining), dirty_pages_per_second=25)
    return store.commit(record, record.model_copy(update={"progress": progress}), guard="rev")


def test_samples_of_a_transfer_are_spread_evenly_and_the_newest_is_there(
    store: RunStore, redis_server: RedisServer
) -> None:
    record = admitted(store)
    for remaining in range(1000, 0, -1):
        record = moved_on(store, record, remaining * 1024)
    found = store.samples("one")
    assert 30 < len(found) <= SAMPLES_KEPT
    assert found[0].memory_kib == 1000
    assert found[-1].memory_kib == 1
    assert found[0].dirty_kib_s == 100
    assert all(before.at <= after.at and before.memory_kib > after.memory_kib for before, after in pairwise(found))
    assert int(connect(redis_server.url).memory_usage("vmferry:samples:one") or 0) < 8192


def test_samples_go_with_their_record(store: RunStore, redis_server: RedisServer) -> None:
    record = moved_on(store, admitted(store), 1024)
    after = record.model_copy(update={"state": State.ROLLING_BACK})
    record = store.commit(record, after, guard="rev", deadline_in=5)
    record = store.commit(record, record.model_copy(update={"state": State.FAILED}), guard="rev", release="all")
    assert 0 < int(connect(redis_server.url).ttl("vmferry:samples:one")) <= 60
    record = store.commit(record, record.model_copy(update={"state": State.QUEUED}), guard="rev")
    assert int(connect(redis_server.url).ttl("vmferry:samples:one")) == -1
    store.commit(record, record.model_copy(update={"state": State.CANCELLED}), guard="rev", release="all")
    assert store.prune(before=store.now() + 1) == ["one"]
    assert store.samples("one") == []
