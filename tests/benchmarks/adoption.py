"""How long a migration has no owner when its worker is killed, at default settings."""

from __future__ import annotations

from tasks.model.run import State
from tests.benchmarks.report import Figure, spread
from tests.benchmarks.rig import Rig
from tests.lab import Guest
from tests.lab.shell import until

GOAL_S = 20.0
"""The lease and one period of the reconciler, with room for the worker's next look: 12 s + 5 s."""
ADOPTION_TIMEOUT_S = 90.0


def measure_adoption(rig: Rig, guest: Guest, times: int) -> Figure:
    """Kill the steps worker in mid-transfer, start another one, and wait until it owns the migration.

    The policy's bandwidth must be low enough that the transfer is still under way by then.
    """
    return spread("kill -9 to adoption", [_adopted_after_s(rig, guest) for _ in range(times)], unit="s", goal=GOAL_S)


def _adopted_after_s(rig: Rig, guest: Guest) -> float:
    run_id = rig.client.submit({"vm": guest.name, "destination": "beta"}).id
    until(lambda: rig.client.show(run_id).progress.memory.processed_bytes > 0, 30, "the transfer does not begin")
    fence = rig.client.show(run_id).fence
    began = rig.now()
    rig.steps.kill9()
    rig.steps.start()
    until(lambda: rig.client.show(run_id).fence > fence, ADOPTION_TIMEOUT_S, "nobody adopts the migration")
    took = rig.now() - began
    assert rig.client.show(run_id).state is State.TRANSFERRING, "the transfer was over before it was adopted"
    rig.client.cancel(run_id)
    until(lambda: rig.client.show(run_id).is_terminal, 60, "the migration does not end")
    return took
