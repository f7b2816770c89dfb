"""Move real guests between two hosts of a lab, and write down what libvirt said meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from tasks.hypervisor.adapter import LibvirtHypervisor
from tasks.hypervisor.address import HostAddress
from tasks.model.domain import JobStats, Mark
from tasks.model.errors import HypervisorError
from tasks.model.ports import TransferOrder
from tasks.planning.mark_xml import with_mark
from tests.lab import Lab
from tests.lab.faults import link_shaped
from tests.unit.planning.recordings import Recording, save

PERIOD_S = 0.5
MBIT = 60
IDLE: dict[str, Any] = {"memory_mib": 128}
BUSY: dict[str, Any] = {"memory_mib": 128, "fill_mib": 48, "dirty_mib_s": 96}
GENTLE: dict[str, Any] = {"memory_mib": 128, "fill_mib": 48, "dirty_mib_s": 12}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is recorded."""

    name: str
    how: str
    guest: dict[str, Any]
    auto_converge: bool = False
    switch_after: int = 0
    """Passes over memory before post-copy; 0: never."""
    give_up_s: float = 60.0


SCENES = (
    Scene("idle", f"an idle guest of 128 MiB over {MBIT} Mbit/s", IDLE),
    Scene("busy", f"a guest that changes 48 MiB twice a second, over {MBIT} Mbit/s; aborted after a minute", BUSY),
    Scene(
        "auto-converge",
        f"a guest that changes 12 MiB a second, over {MBIT} Mbit/s, slowed down by auto-converge",
        GENTLE,
        auto_converge=True,
        give_up_s=150.0,
    ),
    Scene(
        "post-copy",
        f"a guest that changes 48 MiB twice a second, over {MBIT} Mbit/s; post-copy in the third pass",
        BUSY,
        switch_after=2,
    ),
)


def record(lab: Lab, hypervisor: LibvirtHypervisor, scene: Scene) -> Recording:
    """One scene."""
    guest = lab.guest(f"rec-{scene.name}", "alpha", **scene.guest)
    try:
        guest.wait_ticking()
        time.sleep(3)
        with link_shaped(lab.host("alpha"), MBIT):
            return _watch(hypervisor, guest.uuid, scene)
    finally:
        guest.remove()


def _watch(hypervisor: LibvirtHypervisor, uuid: str, scene: Scene) -> Recording:
    looks: list[tuple[float, JobStats]] = []
    errors: list[HypervisorError] = []
    thread = threading.Thread(target=_transfer, args=(hypervisor, _order(hypervisor, uuid, scene), errors))
    thread.start()
    began = switched = aborted = 0.0
    while thread.is_alive():
        time.sleep(PERIOD_S)
        job = hypervisor.fetch_job("alpha", uuid)
        if not job.active:
            continue
        now = time.monotonic()
        began = began or now
        looks.append((round(now - began, 2), job))
        if scene.switch_after and job.memory_iteration > scene.switch_after and not switched:
            switched = now
            hypervisor.start_post_copy("alpha", uuid)
        if now - began > scene.give_up_s and not aborted and not switched:
            aborted = now
            hypervisor.abort_job("alpha", uuid)
    return Recording(scene.name, scene.how, "aborted" if errors else "moved", tuple(looks))


def _order(hypervisor: LibvirtHypervisor, uuid: str, scene: Scene) -> TransferOrder:
    xml = with_mark(hypervisor.fetch_xml("alpha", uuid, secure=True, migratable=True), Mark("recording", 1, 1))
    order = TransferOrder(uuid, "alpha", "beta", destination_xml=xml, persistent_xml=xml, max_downtime_ms=300)
    return replace(order, auto_converge=scene.auto_converge, post_copy=scene.switch_after > 0)


def _transfer(hypervisor: LibvirtHypervisor, order: TransferOrder, errors: list[HypervisorError]) -> None:
    try:
        hypervisor.transfer(order)
    except HypervisorError as error:
        errors.append(error)


def main() -> None:
    """All scenes, in a lab of their own."""
    lab = Lab.up("recordings", ("alpha", "beta"))
    try:
        lab.enter()
        addresses = {name: HostAddress(**entry) for name, entry in lab.inventory().items()}
        hypervisor = LibvirtHypervisor(addresses)
        for scene in SCENES:
            made = record(lab, hypervisor, scene)
            save(made)
            print(f"{scene.name}: {len(made.looks)} looks, {made.took_s:.0f} s, {made.ended}", flush=True)
        hypervisor.close()
    finally:
        lab.down()


if __name__ == "__main__":
    main()
