"""Fixtures for all tests: the lab of real hosts, one for the whole run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest

from tests.lab import Guest, Lab, LabUnavailable

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("vmferry", deadline=None)
hypothesis.settings.load_profile("vmferry")

TOGETHER = ("containers", "flower")
"""Folders whose tests share something that is dear to make: one process runs all of them."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what belongs together when tests are spread over several processes."""
    for item in items:
        if (folder := item.path.parent.name) in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Groups that are not kept would give every process its own engine and browser, and fail in odd ways."""
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if session.config.getoption("loadgroup", False) and any("@" not in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist does not keep the groups: is its version made for this pytest?")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three hosts of this run's own, with the test's thread in their hub.

    Where a lab cannot be had the test is skipped with one line; with ``CI=true`` that is a failure.
    """
    try:
        made = Lab.up(f"t{os.getpid()}", owner=os.getpid())
    except LabUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have a lab: {error}")
        pytest.skip(str(error))
    made.enter()
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def make_guest(lab: Lab) -> Iterator[Callable[..., Guest]]:
    """Makes guests and removes them at the end of the test."""
    guests: list[Guest] = []

    def make(name: str, *args: Any, **options: Any) -> Guest:
        guests.append(lab.guest(name, *args, **options))
        return guests[-1]

    yield make
    for guest in guests:
        guest.remove()
