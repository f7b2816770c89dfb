"""A person knows better than preflight, about one thing at a time, and the record says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tasks.model.errors import InvalidRequest
from tasks.model.finding import Severity
from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import stack

pytestmark = pytest.mark.lab

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
COMMANDLINE = "<qemu:commandline><qemu:env name='HARMLESS' value='1'/></qemu:commandline></domain>"


def test_a_blocker_that_was_accepted(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("odd-1", start="off")
    xml = guest.xml.replace("<domain ", f"<domain xmlns:qemu='{QEMU}' ", 1).replace("</domain>", COMMANDLINE)
    with closing(lab.host("alpha").connect()) as conn:
        conn.defineXML(xml)
    values = {"vm": guest.name, "destination": "beta"}
    with stack(lab, tmp_path) as running:
        running.start()
        refused = running.wait_end(running.client.submit(values).id)
        assert refused.error is not None
        assert (refused.state, refused.error.code) == (State.REFUSED, "QEMU_COMMANDLINE")
        with pytest.raises(InvalidRequest, match="UNKNOWN_FINDING"):
            running.client.submit(values | {"accept": ["EVERYTHING"]})
        done = running.cli("plan", guest.name, "--to", "beta", "--accept", "QEMU_COMMANDLINE")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning, accepted" in done.stdout
        moved = running.wait_end(running.client.submit(values | {"accept": ["QEMU_COMMANDLINE"]}).id)
        assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
        accepted = [(f.code, f.severity) for f in moved.findings if f.accepted]
        assert accepted == [("QEMU_COMMANDLINE", Severity.WARNING)]
        check_invariants(running, guest, moved, was_running=False, autostart=False)
