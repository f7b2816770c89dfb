"""Clocks: those of Redis, the workers and the hosts against each other."""

from __future__ import annotations

from statistics import median

from tasks.model.doctor import CheckResult, Clock, DoctorFacts
from tasks.planning.doctor.registry import check, failed, ok, unseen, warning

SKEW_WARNING_S = 0.5
SKEW_FAILED_S = 5.0
"""A guest that trusts its host's clock jumps by this much."""
HINT = "chronyc tracking, or timedatectl status, there; let all machines follow the same time servers"


@check(
    CLOCKS_AGREE="Clocks agree.",
    CLOCK_OFF="A clock is off by more than half a second; by more than five, the check fails.",
)
def check_clocks(facts: DoctorFacts) -> list[CheckResult]:
    """Each clock against the middle of all: of two, this machine's counts."""
    clocks = {"this machine": Clock(0.0, 0.0), **_others(facts)}
    found = [
        unseen("CLOCKS_AGREE", host.name, f"libvirt does not show the clock of {host.name}")
        for host in facts.hosts
        if host.problem is None and host.probed and host.start_problem is None and host.clock is None
    ]
    if facts.pairs_not_wanted and facts.hosts:
        found.append(unseen("CLOCKS_AGREE", "clocks", "hosts' clocks are only seen through a probe VM"))
    if len(clocks) == 1:
        return found
    middle = median(clock.ahead_s for clock in clocks.values()) if len(clocks) > 2 else 0.0
    wrong = [_result(name, clock, middle) for name, clock in clocks.items() if _excess(clock, middle) > SKEW_WARNING_S]
    if wrong:
        return wrong + found
    widest = max(abs(clock.ahead_s - middle) for clock in clocks.values())
    return [ok("CLOCKS_AGREE", "clocks", f"{', '.join(clocks)} agree within {widest * 1000:.0f} ms"), *found]


def _others(facts: DoctorFacts) -> dict[str, Clock]:
    redis = {"Redis" if r.roles[0] == "broker" else f"Redis ({r.roles[0]})": r.clock for r in facts.redis}
    workers = {f"worker {worker.name}": worker.clock for worker in facts.workers or ()}
    hosts = {host.name: host.clock for host in facts.hosts}
    return {name: clock for name, clock in {**redis, **workers, **hosts}.items() if clock is not None}


def _excess(clock: Clock, middle: float) -> float:
    """By how much it is off at least."""
    return abs(clock.ahead_s - middle) - clock.doubt_s


def _result(name: str, clock: Clock, middle: float) -> CheckResult:
    off = clock.ahead_s - middle
    message = f"the clock of {name} is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} the others"
    make = failed if _excess(clock, middle) > SKEW_FAILED_S else warning
    return make("CLOCK_OFF", name, message, HINT)
