"""What a drain says of its migrations reaches each of them."""

from __future__ import annotations

from typing import Any

import pytest

from config.recurring import RecurringDrainSettings
from tasks.model.drain import DrainRecord, DrainVm, Fate, parse_drain
from tasks.model.request import Passed, Times, parse_request
from tasks.planning.draining import migration_values

SAID: dict[str, Any] = {
    "accept": ["CPU_MODEL_HOST"],
    "data_path": "hosts",
    "verify": "basic",
    "source_disks": "delete",
    "remedies": ["eject-media"],
    "policy": "slow",
    "priority": 3,
    "labels": {"team": "web"},
    "window": "22:00-06:00",
    "time_zone": "Europe/Berlin",
    "not_before": 1.0,
    "deadline": 2.0,
}


def requested(*, active: bool, shut_down: bool = False) -> dict[str, Any]:
    """What a drain that says everything asks for one VM."""
    vm = DrainVm(
        uuid="u", name="web", active=active, memory_kib=0, fate=Fate.WAITING, destination="beta", shut_down=shut_down
    )
    record = DrainRecord(id="d", request=parse_drain({"host": "alpha"} | SAID))
    request = parse_request(migration_values(record, vm))
    return {name: getattr(request, name) for name in Passed.model_fields}


def test_everything_is_said_here() -> None:
    """Who adds an option to both shall see to it that it arrives."""
    assert set(SAID) == set(Passed.model_fields)


@pytest.mark.parametrize(("active", "shut_down"), [(False, False), (True, True)])
def test_one_that_is_shut_off_gets_all(active: bool, shut_down: bool) -> None:
    assert requested(active=active, shut_down=shut_down) == SAID


def test_one_that_runs_is_not_refused_for_a_way_that_files_would_go() -> None:
    assert requested(active=True) == SAID | {"data_path": "auto"}


def test_recurring_drains_say_the_same() -> None:
    said = {name: value for name, value in SAID.items() if name not in Times.model_fields}
    settings = RecurringDrainSettings.model_validate({"host": "alpha", "at": "22:00"} | said)
    assert {name: settings.drain_values()[name] for name in said} == said
