"""``vmferry doctor``: every check runs on the facts that were gathered, all results are reported together."""

from __future__ import annotations

from tasks.model.doctor import CheckResult, Diagnosis, DoctorFacts, Verdict
from tasks.planning.doctor import clocks, hosts, pairs, pools, redis, workers
from tasks.planning.doctor.registry import Check

__all__ = ["CHECKS", "DESCRIPTIONS", "diagnose"]

CHECKS: tuple[Check, ...] = (
    redis.check_answers,
    redis.check_persistence,
    redis.check_eviction,
    redis.check_memory,
    redis.check_own_db,
    redis.check_password,
    redis.check_messages,
    workers.check_queues,
    workers.check_slots,
    workers.check_beat,
    workers.check_versions,
    hosts.check_hosts,
    hosts.check_probe,
    hosts.check_identity,
    hosts.check_versions,
    hosts.check_memory,
    pools.check_shared_pools,
    pools.check_active,
    pools.check_room,
    clocks.check_clocks,
    pairs.check_addresses,
    pairs.check_pairs,
    pairs.check_left_out,
)
"""All checks, in the order in which their results are shown."""

DESCRIPTIONS: dict[str, str] = {code: text for check in CHECKS for code, text in check.codes.items()}
"""Every code that the doctor may report, with what it means."""


def diagnose(facts: DoctorFacts) -> Diagnosis:
    """Run all checks."""
    results: tuple[CheckResult, ...] = tuple(result for check in CHECKS for result in check(facts))
    return Diagnosis(
        healthy=not any(result.verdict is Verdict.FAILED for result in results),
        reachable=all(r.problem is None for r in facts.redis) and all(h.problem is None for h in facts.hosts),
        results=results,
    )
