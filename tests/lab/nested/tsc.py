"""How fast the machine's time stamp counter runs.

An emulated processor shows the real one's counter. The nested kernel would find out its frequency by measuring, and be
wrong by a factor of a hundred when it is interrupted meanwhile; it believes what it is told.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from tests.lab.shell import run


@cache
def tsc_khz() -> int:
    """Measured against the clock, kHz."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/tsc"
        run("gcc", "-O2", "-o", program, str(Path(__file__).with_name("tsc.c")))
        return int(run(program))
