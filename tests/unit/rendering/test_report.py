"""The page of a report says what the records say, whatever names are in them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tasks.model.drain import DrainRecord, DrainRequest, DrainState, DrainVm, Fate
from tasks.model.finding import Finding, Severity
from tasks.model.report import Report, Sample
from tasks.model.request import Method, MigrationRequest, Storage
from tasks.model.run import Channel, ErrorInfo, PastError, Progress, RunRecord, State, StepName, StepTiming
from tasks.rendering.charts import figure_of, phases_of
from tasks.rendering.report import facts_of, render_report, rows_of, troubles_of, verdict_of

BEGAN = 1_790_000_000.0
MIB = 1024 * 1024
EVIL = "<script><b>web"


def run_of(vm: str, number: int, state: State = State.SUCCEEDED, **changes: Any) -> RunRecord:
    began = BEGAN + 2 * number
    steps = (StepName.PREFLIGHT, StepName.PREPARE, StepName.TRANSFER, StepName.VERIFY, StepName.FINISH)
    timings = tuple(
        StepTiming(step=step, attempt=1, started_at=began + n, ended_at=began + n + 0.9) for n, step in enumerate(steps)
    )
    progress = Progress(
        memory=Channel(total_bytes=512 * MIB, processed_bytes=300 * MIB), downtime_ms=40 + number, elapsed_ms=900
    )
    values: dict[str, Any] = {"vm": vm, "uuid": f"uuid-{vm}", "source": "alpha", "destination": "beta", "state": state}
    values |= {"method": Method.LIVE, "storage": Storage.SHARED, "timings": timings, "progress": progress}
    values |= {"submitted_at": BEGAN, "started_at": began, "finished_at": began + 6, "drain": "tonight"}
    request = MigrationRequest(vm=vm, destination="beta")
    return RunRecord(id=f"tonight-{number}", request=request, fingerprint="", **values | changes)


def samples(number: int) -> list[Sample]:
    began = BEGAN + 2 * number + 2
    return [
        Sample(at=began + n / 10, memory_kib=(10 - n) * 51_200, disk_kib=0, dirty_kib_s=2048, sent_kib_s=50_000)
        for n in range(11)
    ]


def vm_of(run: RunRecord, fate: Fate, reason: str = "", **changes: Any) -> DrainVm:
    values: dict[str, Any] = {"uuid": run.uuid, "name": run.vm, "active": True, "memory_kib": 1, "fate": fate}
    return DrainVm(**values | {"destination": "beta", "migration": run.id, "reason": reason} | changes)


@pytest.fixture
def report() -> Report:
    good, bad = (
        run_of(EVIL, 1),
        run_of("db-1", 2, State.FAILED, error=ErrorInfo(code="BROKEN", message="it <broke></script>")),
    )
    past = PastError(attempt=1, at=BEGAN + 1, state=State.FAILED, error=ErrorInfo(code="EARLIER", message="once"))
    blocker = Finding(code="CDROM", severity=Severity.BLOCKER, message="an image is in the drive", hint="eject it")
    refused = run_of("iso-1", 3, State.REFUSED, findings=(blocker,), past=(past,), timings=())
    stays = DrainVm(
        uuid="u", name="gpu-1", active=True, memory_kib=1, fate=Fate.STAYS, reason="no host", others={"beta": "full"}
    )
    vms = (
        vm_of(good, Fate.MOVED),
        vm_of(bad, Fate.FAILED, "it <broke></script>"),
        vm_of(refused, Fate.FAILED, "refused"),
        stays,
    )
    drain = DrainRecord(
        id="tonight",
        request=DrainRequest(host="alpha", labels={"ticket": "7"}),
        state=DrainState.PARTIAL,
        vms=vms,
        submitted_at=BEGAN,
        finished_at=BEGAN + 20,
        left=("db-1 is running",),
        asked=3,
    )
    return Report("tonight", BEGAN + 30, (good, bad, refused), {good.id: samples(1), bad.id: samples(2)}, drain)


def test_all_that_went_wrong_is_told_in_its_order(report: Report) -> None:
    assert [trouble.code for trouble in troubles_of(report)] == ["STAYS", "EARLIER", "BROKEN", "CDROM"]
    assert troubles_of(report)[0].message == "no host; beta: full"


def test_the_verdict_is_the_drains(report: Report) -> None:
    assert verdict_of(report) == ("bad", "alpha is not empty")


def test_facts_and_rows(report: Report) -> None:
    facts = dict(facts_of(report))
    assert facts["took"] == "20.0 s"
    assert facts["moved"] == "900.0 MiB"
    assert facts["labels"] == "ticket=7"
    assert [row[2] for row in rows_of(report)] == ["moved", "failed", "failed", "stays"]
    assert rows_of(report)[0][3:7] == ["live, shared", "300.0 MiB", "41 ms", "8.00 s"]


def test_phases_follow_each_other() -> None:
    phases = list(phases_of(run_of("web-1", 1), until=BEGAN + 30))
    assert [name for name, _, _ in phases] == ["waiting", "preflight", "prepare", "transfer", "verify", "finish"]
    assert phases[0] == ("waiting", BEGAN, BEGAN + 2)
    assert all(began <= ended for _, began, ended in phases)


def test_a_step_that_goes_on_reaches_until_now() -> None:
    timing = StepTiming(step=StepName.TRANSFER, attempt=1, started_at=BEGAN + 3)
    run = run_of("web-1", 1, State.TRANSFERRING, timings=(timing,), finished_at=None)
    assert list(phases_of(run, until=BEGAN + 30))[-1] == ("transfer", BEGAN + 3, BEGAN + 30)


def test_every_transfer_has_its_three_curves(report: Report) -> None:
    curves = [trace for trace in figure_of(report).data if trace.legendgroup and len(trace.x)]
    assert len(curves) == 6
    remaining, dirty, sent = curves[:3]
    assert (remaining.y[0], remaining.y[-1]) == (500, 0)
    assert dirty.y[0] == 2
    assert sent.y[0] == pytest.approx(48.8, abs=0.1)


def test_the_page_needs_nothing_else_and_takes_names_as_text(report: Report) -> None:
    page = render_report(report)
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    body = page[page.index("</style>") :]
    assert "<b>web" not in body
    assert "it <broke></script>" not in body
    assert "it &lt;broke&gt;&lt;/script&gt;" in body
    assert body.count("</script>") == body.count("<script") == 2


def test_a_single_migration_has_a_page(report: Report) -> None:
    run = report.runs[0]
    page = render_report(Report(run.id, BEGAN + 30, (run,), {run.id: samples(1)}))
    assert "alpha → beta: succeeded" in page
    assert 'id="nothing"' in page


def test_a_drain_that_moved_nothing_has_a_page() -> None:
    drain = DrainRecord(id="empty", request=DrainRequest(host="alpha"), state=DrainState.EMPTY, finished_at=BEGAN)
    page = render_report(Report("empty", BEGAN, (), {}, drain))
    assert "alpha is empty: safe to reboot" in page
    assert "<script" not in page
