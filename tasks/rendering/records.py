"""Run records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.model.run import RunRecord, StepTiming
from tasks.rendering.plans import print_findings
from tasks.rendering.tables import mib, print_pairs, print_rows


def when(seconds: float | None) -> str | None:
    """A moment of Redis TIME, in local time."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(record: RunRecord) -> str | None:
    """How long it took, from being asked for."""
    return f"{record.finished_at - record.submitted_at:.2f} s" if record.finished_at else None


def print_list(records: Sequence[RunRecord]) -> None:
    """One row a migration."""
    columns = ["ID", "VM", "FROM", "TO", "STATE", "SINCE", "TOOK", "NOTE"]
    rows = [
        [r.id, r.vm, r.source, r.destination, r.state.value, when(r.submitted_at), duration(r), note(r)]
        for r in records
    ]
    print_rows(columns, rows, empty="no migrations yet: vmferry migrate VM --to HOST")


def note(record: RunRecord) -> str | None:
    """The one thing worth saying about it."""
    if record.error is not None:
        return f"{record.error.code}: {record.error.message}"
    if record.cancel_requested and not record.is_terminal:
        return "being cancelled"
    return record.waiting_for or ("stalled" if record.stalled else None)


def print_record(record: RunRecord) -> None:
    """Everything about one migration."""
    path = f", data path {record.data_path}" if record.data_path else ""
    method = f"{record.method}, storage {record.storage}{path}" if record.method else None
    print_pairs([("id", record.id), ("vm", record.vm), ("uuid", record.uuid)])
    print_pairs(
        [("from", record.source), ("to", record.destination), ("method", method), ("state", record.state.value)]
    )
    print_pairs([("step", record.step), ("attempt", record.attempt), ("waits for", record.waiting_for)])
    print_pairs(
        [("cancel", "requested" if record.cancel_requested else None), ("stalled", "yes" if record.stalled else None)]
    )
    print_pairs(
        [("asked for", when(record.submitted_at)), ("ended", when(record.finished_at)), ("took", duration(record))]
    )
    memory, disk = record.progress.memory, record.progress.disk
    if memory.total_bytes:
        print_pairs([("memory", f"{mib(memory.processed_bytes)} sent, {mib(memory.total_bytes)} in all")])
    if disk.total_bytes:
        print_pairs([("disks", f"{mib(disk.processed_bytes)} sent, {mib(disk.total_bytes)} in all")])
    if record.progress.downtime_ms is not None:
        print_pairs([("downtime", f"{record.progress.downtime_ms} ms (libvirt's figure)")])
    if record.progress.post_copy:
        print_pairs([("post-copy", _post_copy(record))])
    print_pairs([("created", "; ".join(record.created)), ("kept", "; ".join(record.kept))])
    print_pairs([("deleted", "; ".join(record.deleted))])
    print_pairs([("labels", ", ".join(f"{key}={value}" for key, value in record.labels.items()))])
    if record.error is not None:
        print_pairs([("error", f"{record.error.code}: {record.error.message}"), ("hint", record.error.hint)])
    print_findings(record.findings)
    if record.timings:
        print_rows(["STEP", "ATTEMPT", "TOOK"], [_timing_row(timing) for timing in record.timings])


def _post_copy(record: RunRecord) -> str:
    since = when(record.converging.post_copy_at)
    began = f"from {since} on " if since else ""
    return f"{began}it ran on {record.destination}, before all of its memory was there"


def _timing_row(timing: StepTiming) -> list[object]:
    took = f"{(timing.ended_at - timing.started_at) * 1000:.0f} ms" if timing.ended_at else "running"
    return [timing.step.value, timing.attempt, took]
