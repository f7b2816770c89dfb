"""What an operator does in a browser: finds a running migration, sees how far it is, and stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.wait import WebDriverWait

from tasks.model.run import RunRecord, State
from tests.flower.browser import browser, log_in
from tests.lab import Guest, Lab
from tests.queue.harness import FlowerServer
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = [pytest.mark.lab, pytest.mark.browser]

WAIT_S = 30


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("browser")
    with stack(lab, folder, limits=1, policies={"slow": {"bandwidth_mib_s": 2}}) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def flower(running: Stack) -> Iterator[FlowerServer]:
    with FlowerServer(running.config) as server:
        yield server


@pytest.fixture(scope="module")
def driver(flower: FlowerServer) -> Iterator[Chrome]:
    with browser() as made:
        log_in(made, flower.port, flower.credentials)
        yield made


@pytest.fixture
def moving(running: Stack, make_guest: Callable[..., Guest]) -> Iterator[tuple[Guest, RunRecord]]:
    """A migration that takes minutes."""
    guest = make_guest("web-7", fill_mib=24, autostart=True)
    guest.wait_ticking()
    record = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow"})
    running.wait_state(record.id, State.TRANSFERRING)
    until(lambda: running.client.show(record.id).progress.memory.total_bytes, 20, running.logs)
    yield guest, record
    if not running.client.show(record.id).is_terminal:
        running.client.cancel(record.id)
    running.wait_end(record.id)


def wait(driver: Chrome) -> WebDriverWait[Chrome]:
    return WebDriverWait(driver, WAIT_S, poll_frequency=0.2)


def row_of_transfer(driver: Chrome, flower: FlowerServer) -> str:
    """Look through the page of tasks for the transfer of web-7, as often as it takes; its text."""
    driver.get(f"http://127.0.0.1:{flower.port}/tasks")

    def find(page: Chrome) -> str | None:
        page.refresh()
        wait(page).until(seen.presence_of_element_located((By.CSS_SELECTOR, "#tasks-table tbody tr td:nth-child(2)")))
        rows = page.find_elements(By.CSS_SELECTOR, "#tasks-table tbody tr")
        texts = [row.text for row in rows if "tasks.steps.transfer" in row.text]
        return next((text for text in texts if "web-7: alpha → beta" in text and "memory" in text), None)

    return str(WebDriverWait(driver, WAIT_S, poll_frequency=1.0).until(find))


def test_a_running_transfer_is_found_watched_and_terminated(
    running: Stack, flower: FlowerServer, driver: Chrome, moving: tuple[Guest, RunRecord]
) -> None:
    guest, record = moving
    with guest.watch() as watch:
        row = row_of_transfer(driver, flower)
        assert "STARTED" in row
        assert "%" in row
        driver.get(f"http://127.0.0.1:{flower.port}/task/{record.id}.1.1.transfer")
        button = wait(driver).until(seen.element_to_be_clickable((By.ID, "task-terminate")))
        assert "web-7: alpha → beta" in driver.page_source
        button.click()
        ended = running.wait_end(record.id)
        assert ended.state is State.CANCELLED, running.diagnosis(record.id)
        check_invariants(running, guest, ended, was_running=True, autostart=True, watch=watch)
        watch.check_continued()


def test_why_another_one_waits_is_shown_and_it_can_be_cancelled(
    running: Stack,
    flower: FlowerServer,
    driver: Chrome,
    moving: tuple[Guest, RunRecord],
    make_guest: Callable[..., Guest],
) -> None:
    """One migration leaves alpha at a time: the second waits, which no task could show."""
    other = make_guest("web-8", start="off", disk=None, network=False)
    waiting = running.client.submit({"vm": other.name, "destination": "beta"})
    until(lambda: running.client.show(waiting.id).waiting_for, 20, running.logs)
    driver.get(f"http://127.0.0.1:{flower.port}/tasks")
    wait(driver).until(seen.element_to_be_clickable((By.LINK_TEXT, "Migrations"))).click()
    row = wait(driver).until(seen.presence_of_element_located((By.ID, f"migration-{waiting.id}")))
    assert "queued" in row.text
    assert str(running.client.show(waiting.id).waiting_for) in row.text
    first = driver.find_element(By.ID, f"migration-{moving[1].id}")
    assert "%" in first.text
    row.find_element(By.TAG_NAME, "button").click()
    wait(driver).until(seen.alert_is_present()).accept()
    assert running.wait_end(waiting.id).state is State.CANCELLED
    # The table renews itself.
    wait(driver).until(seen.text_to_be_present_in_element((By.ID, f"migration-{waiting.id}"), "cancelled"))


def test_a_new_migration_does_not_make_new_metrics(
    flower: FlowerServer, moving: tuple[Guest, RunRecord], tmp_path: Path
) -> None:
    """VM names and ids are in no label: the number of time series does not grow with the VMs."""
    metrics = flower.get("/metrics")[1]
    assert 'task="tasks.steps.transfer"' in metrics
    assert "web-7" not in metrics
    assert moving[1].id not in metrics
