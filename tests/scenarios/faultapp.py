"""The ordinary Celery app, in a worker that stops dead at one named point of one step.

``VMFERRY_TEST_HOLD=<step>.<point>`` chooses the point; there the worker writes ``VMFERRY_TEST_HOLD_FILE`` and waits to
be killed. Points: ``before`` (message taken, nothing claimed), ``claimed`` (lease taken, nothing done), ``journaled``
(intent written, effect not done), ``effected`` (effect done, not confirmed), ``moving`` (a live transfer runs), ``done``
(step finished, not handed over), ``handed`` (handed over in the record, next message not sent), ``settled``
(terminal record written, Celery result not stored).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tasks.chain
import tasks.workflow.dispatch
import tasks.workflow.stepping as stepping
from tasks.app import app
from tasks.model.run import RunRecord, StepName
from tasks.steps import live
from tasks.steps.run import StepRun
from tasks.steps.verdict import Verdict
from tasks.workflow import Handled, Runtime

__all__ = ["app"]

_STEP, _, _POINT = os.environ.get("VMFERRY_TEST_HOLD", "none.none").partition(".")
_FILE = Path(os.environ.get("VMFERRY_TEST_HOLD_FILE", os.devnull))
HOLD_S = 120.0


def _hold(step: str, point: str) -> None:
    if (step, point) == (_STEP, _POINT):
        _FILE.write_text(f"{os.getpid()} {step}.{point}\n")
        time.sleep(HOLD_S)


def _wrap_step(name: StepName, run: Callable[[StepRun], Verdict]) -> Callable[[StepRun], Verdict]:
    def held(step_run: StepRun) -> Verdict:
        _hold(name, "claimed")
        verdict = run(step_run)
        _hold(name, "done")
        return verdict

    return held


for _name, _run in list(stepping.RUN.items()):
    stepping.RUN[_name] = _wrap_step(_name, _run)

_run_step = tasks.chain.run_step


def _held_run_step(runtime: Runtime, name: StepName, run_id: str, attempt: int) -> Handled:
    _hold(name, "before")
    handled = _run_step(runtime, name, run_id, attempt)
    _hold(name, "handed")
    return handled


tasks.chain.run_step = _held_run_step  # type: ignore[attr-defined]

_effect = StepRun.effect


def _held_effect(
    self: StepRun, kind: Any, host: str, value: str, act: Callable[[], None], *, created: str = ""
) -> None:
    step = self.record.step or ""

    def held_act() -> None:
        _hold(step, "journaled")
        act()
        _hold(step, "effected")

    _effect(self, kind, host, value, held_act, created=created)


StepRun.effect = _held_effect  # type: ignore[method-assign]

_note = live._Observer._note


def _held_note(self: Any, job: Any) -> None:
    _note(self, job)
    _hold("transfer", "moving")


live._Observer._note = _held_note  # type: ignore[method-assign]

_publish = tasks.workflow.dispatch.publish


def _held_publish(runtime: Runtime, record: RunRecord) -> None:
    _hold("finish" if record.state == "succeeded" else "rollback", "settled")
    _publish(runtime, record)


tasks.workflow.dispatch.publish = _held_publish
