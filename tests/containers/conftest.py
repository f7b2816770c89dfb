"""Images that were built for real, on an engine inside the lab: once for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine, private_engine
from tests.containers.project import Project
from tests.lab import Lab, LabUnavailable


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    """A private engine; where none can be had its tests are skipped with the reason, with ``CI=true`` they fail."""
    running = private_engine()
    try:
        made = running.__enter__()
    except LabUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have a container engine: {error}")
        pytest.skip(str(error))
    try:
        yield made
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="package")
def project(engine: Engine, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The images are built, nothing runs yet; everything is taken down at the end, also after failures."""
    folder: Path = tmp_path_factory.mktemp("checkout")
    made = Project(engine, lab, folder)
    made.build()
    made.move_into_the_lab()
    try:
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "5", check=False)
        made.leave_the_lab()
