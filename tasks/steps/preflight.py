"""Look at both hosts and decide whether and how the VM may move. No changes are allowed here."""

from __future__ import annotations

from tasks.model.domain import Mark
from tasks.model.errors import InvalidRequest
from tasks.model.finding import Finding, Severity
from tasks.model.plan import Plan
from tasks.model.run import ErrorInfo, State
from tasks.steps.run import StepRun
from tasks.steps.survey import decisions, survey
from tasks.steps.verdict import Next, Requeue, Settle, Verdict


def run(run: StepRun) -> Verdict:
    """Survey the hosts; refuse, queue again (the VM was moved by hand), or go on with what was decided."""
    run.interrupt_if_asked()
    try:
        plan = survey(
            run.hypervisor,
            run.hosts,
            run.record.request,
            mark=Mark(run.record.id, run.record.attempt, run.record.fence),
            cordon=run.cordon_of(run.destination),
            post_copy=run.policy.asks_for_post_copy,
        )
    except InvalidRequest as error:
        return Settle(State.REFUSED, ErrorInfo(code=error.code, message=error.message, hint=error.hint))
    run.interrupt_if_asked()
    if not plan.allowed:
        return _refuse(run, plan)
    if plan.source is not None and plan.source != run.record.source:
        return Requeue(plan.source, f"{plan.vm} was moved by hand to {plan.source}")
    if plan.uuid != run.record.uuid:
        return _refuse(run, plan, _replaced(plan))
    run.save(vm=plan.vm, findings=plan.findings, decided_off=False, **decisions(plan))
    return Next()


def _refuse(run: StepRun, plan: Plan, extra: Finding | None = None) -> Settle:
    findings = (extra, *plan.findings) if extra else plan.findings
    run.save(vm=plan.vm, findings=findings, method=plan.method, storage=plan.storage)
    blockers = [f for f in findings if f.severity is Severity.BLOCKER]
    first = blockers[0]
    message = first.message if len(blockers) == 1 else f"{first.message} (and {len(blockers) - 1} more)"
    return Settle(State.REFUSED, ErrorInfo(code=first.code, message=message, hint=first.hint))


def _replaced(plan: Plan) -> Finding:
    message = f"{plan.vm} on {plan.source} is another VM now (UUID {plan.uuid}) than when the migration was asked for"
    return Finding(code="VM_REPLACED", severity=Severity.BLOCKER, message=message, hint="ask again under a new id")
