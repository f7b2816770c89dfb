"""What ``tasks.migrate`` takes is what a request has."""

from __future__ import annotations

import inspect

from tasks.migrate import _parse, _signature
from tasks.model.request import MigrationRequest, parse_request


def test_every_part_of_a_request_can_be_said() -> None:
    named = set(inspect.signature(_signature).parameters) - {"id"}
    assert named == set(MigrationRequest.model_fields)


def test_what_is_said_arrives() -> None:
    values, run_id = _parse(("web", "beta"), {"source_disks": "delete", "verify": None, "id": "x"})
    assert run_id == "x"
    assert parse_request(values).source_disks == "delete"
