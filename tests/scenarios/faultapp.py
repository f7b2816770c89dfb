"""The ordinary Celery app, in a worker that stops at any named point of any step when a test asks for it.

The folder ``VMFERRY_TEST_HOLD`` controls it: a file ``point`` names ``<step>.<point>``; the first thread that gets
there writes ``held.<it>``, and waits for ``release.<it>`` (or for the worker's end). Points: ``before`` (message taken,
nothing claimed), ``claimed`` (lease taken, nothing done), ``journaled`` (intent written, effect not done), ``effected``
(effect done, not confirmed), both also with ``-`` and the
effect's kind, ``moving`` (a live transfer runs), ``done`` (step finished, not handed over), ``handed``
(handed over in the record, next message not sent), ``settled`` (terminal record written, Celery result not stored).
A file ``fail`` names a point at which the step breaks instead.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tasks.chain
import tasks.workflow.stepping as stepping
from tasks.app import app
from tasks.model.errors import OperatorMustFix
from tasks.model.run import JournalEntry, RunRecord, StepName
from tasks.steps import copying, live
from tasks.steps.run import StepRun
from tasks.steps.verdict import Verdict
from tasks.workflow import Handled, Runtime

__all__ = ["app"]

_FOLDER = Path(os.environ["VMFERRY_TEST_HOLD"])
_LOCK = threading.Lock()
HOLD_S = 120.0


def _hold(step: str, point: str) -> None:
    name = f"{step}.{point}"
    with _LOCK:
        breaking = _FOLDER / "fail"
        if breaking.exists() and breaking.read_text() == name:
            breaking.unlink()
            raise OperatorMustFix("INJECTED", f"the test broke it at {name}")
        wanted = _FOLDER / "point"
        if not wanted.exists() or wanted.read_text() != name:
            return
        wanted.unlink()  # once: whoever comes here next, after the fault, passes
    (_FOLDER / f"held.{name}").touch()
    deadline = time.monotonic() + HOLD_S
    while not (_FOLDER / f"release.{name}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _wrap_step(name: StepName, run: Callable[[StepRun], Verdict]) -> Callable[[StepRun], Verdict]:
    def held(step_run: StepRun) -> Verdict:
        _hold(name, "claimed")
        verdict = run(step_run)
        _hold(name, "done")
        return verdict

    return held


for _name, _run in list(stepping.RUN.items()):
    stepping.RUN[_name] = _wrap_step(_name, _run)

_run_step = stepping.run_step


def _held_run_step(runtime: Runtime, name: StepName, run_id: str, attempt: int, report: Any = None) -> Handled:
    _hold(name, "before")
    handled = _run_step(runtime, name, run_id, attempt, report)
    _hold(name, "handed")
    return handled


tasks.chain.run_step = _held_run_step  # type: ignore[attr-defined]

_effect = StepRun.effect


def _held_effect(
    self: StepRun, kind: Any, host: str, value: str, act: Callable[[], None], *, name: str = "", created: str = ""
) -> None:
    step = self.record.step or ""

    def held_act() -> None:
        for point in ("journaled", f"journaled-{kind}"):
            _hold(step, point)
        act()
        for point in ("effected", f"effected-{kind}"):
            _hold(step, point)

    _effect(self, kind, host, value, held_act, name=name, created=created)


StepRun.effect = _held_effect  # type: ignore[method-assign]

_mark_undone = StepRun.mark_undone


def _held_mark_undone(self: StepRun, entry: JournalEntry) -> None:
    _hold("rollback", "effected")
    _mark_undone(self, entry)


StepRun.mark_undone = _held_mark_undone  # type: ignore[method-assign]

_note = live._Observer._note


def _held_note(self: Any, job: Any) -> None:
    _note(self, job)
    _hold("transfer", "moving")


live._Observer._note = _held_note  # type: ignore[method-assign]

_progress = copying._Meter.progress


def _held_progress(self: Any) -> Any:
    _hold("transfer", "moving")
    return _progress(self)


copying._Meter.progress = _held_progress  # type: ignore[method-assign]

# By module name: the package exports a function of the same name.
_dispatch = sys.modules["tasks.workflow.dispatch"]
_publish = _dispatch.publish


def _held_publish(runtime: Runtime, record: RunRecord) -> None:
    _hold("finish" if record.state == "succeeded" else "rollback", "settled")
    _publish(runtime, record)


_dispatch.publish = _held_publish  # type: ignore[attr-defined]
