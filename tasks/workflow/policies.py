"""A policy of the settings as the steps need it."""

from __future__ import annotations

from config.settings import PolicySettings
from tasks.model.convergence import Convergence, OnTimeout
from tasks.model.request import Method
from tasks.model.run import RunRecord
from tasks.steps.run import Policy


def policy_of(settings: PolicySettings, record: RunRecord) -> Policy:
    """What a policy means for this VM.

    One that QEMU emulates gets its longest pause at once: its emulation (observed with 7.2) now and then loses what the
    guest wrote before a switch-over that comes quickly after the last pass, and the guest crashes. One that does not
    run while its memory is sent cannot be paused for it, nor run somewhere else; and one for which *preflight* found
    that post-copy does not work is given up instead.
    """
    last = settings.max_downtime_ms
    shorter = () if record.emulated else tuple(step for step in sorted(settings.downtime_steps_ms) if step < last)
    live = record.method is Method.LIVE
    on_timeout = OnTimeout(settings.on_timeout)
    if not live or (on_timeout is OnTimeout.POST_COPY and not record.post_copy):
        on_timeout = OnTimeout.ABORT
    convergence = Convergence(
        downtime_steps_ms=(*shorter, last),
        passes_per_step=settings.passes_per_step,
        completion_s=settings.completion_timeout_s,
        completion_s_per_gib=settings.completion_s_per_gib,
        stall_timeout_s=settings.stall_timeout_s,
        on_timeout=on_timeout,
        post_copy_after_passes=settings.post_copy_after_passes if live and record.post_copy else 0,
        post_copy_recovery_s=settings.post_copy_recovery_s,
    )
    return Policy(
        bandwidth_mib_s=settings.bandwidth_mib_s,
        auto_converge=settings.auto_converge,
        stall_after_s=settings.stall_after_s,
        shut_down_timeout_s=settings.shut_down_timeout_s,
        asks_for_post_copy=settings.asks_for_post_copy,
        convergence=convergence,
    )
