"""Fixtures of the nested lab: one for the whole run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import LabUnavailable
from tests.lab.nested import NestedGuest, NestedLab


@pytest.fixture(scope="session")
def nested() -> Iterator[NestedLab]:
    """Two hosts and an NFS server of this run's own, with the test's thread in their hub.

    ``NESTED=name`` uses a lab that is up, and leaves it. Where one cannot be had the tests are skipped with one line;
    with ``CI=true`` that is a failure.
    """
    if name := os.environ.get("NESTED"):
        made = NestedLab.attach(name)
        made.enter()
        yield made
        return
    try:
        made = NestedLab.up(f"t{os.getpid()}", owner=os.getpid())
    except LabUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have a nested lab: {error}")
        pytest.skip(str(error))
    made.enter()
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def make_nested_guest(nested: NestedLab) -> Iterator[Callable[..., NestedGuest]]:
    """Makes guests and removes them at the end of the test."""
    guests: list[NestedGuest] = []

    def make(name: str, *args: Any, **options: Any) -> NestedGuest:
        guests.append(nested.guest(name, *args, **options))
        return guests[-1]

    yield make
    for guest in guests:
        guest.remove()
