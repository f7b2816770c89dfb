"""A migration that begins anew knows nothing of the attempt before."""

from __future__ import annotations

from tasks.model.request import DataPath, Method, MigrationRequest, Storage
from tasks.model.run import OF_ALL_ATTEMPTS, JournalEntry, RunRecord, State, next_attempt


def test_only_what_is_about_the_migration_is_kept() -> None:
    request = MigrationRequest(vm="web", destination="beta", source="alpha", labels={"ticket": "7"})
    record = RunRecord(
        id="m",
        request=request,
        fingerprint="f",
        vm="web-1",
        uuid="00000000-4444-4000-8000-000000000001",
        source="gamma",
        destination="beta",
        labels={"ticket": "7"},
        drain="d",
        rev=9,
        fence=4,
        attempt=2,
        state=State.FAILED,
        method=Method.OFFLINE,
        storage=Storage.COPY,
        data_path=DataPath.HOSTS,
        decided_off=True,
        journal=(JournalEntry(kind="source_mark", host="alpha", at=1.0),),
        created=("something",),
        started_at=1.0,
        finished_at=2.0,
        submitted_at=0.5,
    )
    again = next_attempt(record)
    fresh = RunRecord(id="m", request=request, fingerprint="f", vm="web-1", destination="beta")
    assert (again.attempt, again.state, again.source, again.drain, again.submitted_at) == (
        3,
        "queued",
        "alpha",
        "d",
        0.5,
    )
    assert (again.rev, again.fence) == (9, 4)
    for name in RunRecord.model_fields:
        if name not in (*OF_ALL_ATTEMPTS, "attempt", "source"):
            assert getattr(again, name) == getattr(fresh, name), name
