"""``python -m tests.flower.screenshots``: the README's pictures, taken of a real Flower beside a real transfer."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.wait import WebDriverWait

from tasks.model.run import State
from tests.flower.browser import browser, log_in
from tests.lab import Lab
from tests.queue.harness import FlowerServer
from tests.scenarios.stack import Stack, stack, until

FOLDER = Path(__file__).parents[2] / "docs" / "images"


def main() -> None:
    """Bring up a lab, let VMs move, take pictures, take everything down."""
    lab = Lab.up(f"shots{os.getpid()}", owner=os.getpid())
    try:
        lab.enter()
        folder = Path(tempfile.mkdtemp(prefix="vmferry-shots-"))
        policies = {"slow": {"bandwidth_mib_s": 3}}
        with stack(lab, folder, limits=2, policies=policies) as running, FlowerServer(running.config) as flower:
            running.start()
            time.sleep(1)
            _take_all(lab, running, flower)
    finally:
        lab.down()


def _take_all(lab: Lab, running: Stack, flower: FlowerServer) -> None:
    for name in ("db-1", "files-1"):
        lab.guest(name, start="off", disk="shared", network=False)
        running.wait_end(running.client.submit({"vm": name, "destination": "gamma"}, run_id=f"tonight-{name}").id)
    copied = lab.guest("mail-1", disk="local", disk_mib=256, write_kib_s=16384, write_stop=24 * 256)
    copied.wait_verified(1)
    live = lab.guest("web-7", fill_mib=24)
    waiting = lab.guest("web-8", fill_mib=8)
    for guest in (live, waiting):
        guest.wait_ticking()
    with browser() as driver:
        address = log_in(driver, flower.port, flower.credentials)
        ids = {}
        for guest in (copied, live, waiting):
            values = {"vm": guest.name, "destination": "beta", "policy": "slow"}
            ids[guest.name] = running.client.submit(values, run_id=f"tonight-{guest.name}").id
        until(lambda: running.client.show(ids["web-8"]).waiting_for, 30, running.logs)
        until(lambda: running.client.show(ids["mail-1"]).progress.disk.processed_bytes > 6 << 20, 60, running.logs)
        until(lambda: running.client.show(ids["web-7"]).progress.memory.processed_bytes > 0, 60, running.logs)
        time.sleep(3)
        _shoot(driver, f"{address}/migrations", "#migrations-table tbody tr", "flower-migrations")
        _shoot(driver, f"{address}/tasks", "#tasks-table tbody tr td:nth-child(2)", "flower-tasks")
        _shoot(driver, f"{address}/task/{ids['mail-1']}.1.1.transfer", "#task-terminate", "flower-transfer", 900)
    for run_id in ids.values():
        if not running.client.show(run_id).is_terminal:
            running.client.cancel(run_id)
    for run_id in ids.values():
        running.wait_state(run_id, State.CANCELLED, State.SUCCEEDED)


def _shoot(driver: Chrome, address: str, element: str, name: str, height: int = 620) -> None:
    driver.set_window_size(1360, height)
    driver.get(address)
    WebDriverWait(driver, 30).until(seen.presence_of_element_located((By.CSS_SELECTOR, element)))
    time.sleep(0.5)
    FOLDER.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(FOLDER / f"{name}.png"))


if __name__ == "__main__":
    main()
