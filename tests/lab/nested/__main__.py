"""``python -m tests.lab.nested up|down|status|shell|run``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.lab.nested import NestedLab
from tests.lab.nested.spec import NestedSpec
from tests.lab.shell import LabError, LabUnavailable


def main() -> int:
    """Parse and act; one line for whatever goes wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.nested",
        description="real libvirt hosts with kernels of their own",
        epilog="run takes its command after --",
    )
    parser.add_argument("action", choices=["up", "down", "status", "shell", "run"])
    parser.add_argument("--name", default="lab", help="name of the lab (default: lab)")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    try:
        return _act(given.action, given.name, words[cut + 1 :])
    except (LabError, LabUnavailable) as error:
        print(f"nested lab: {error}", file=sys.stderr)
        return 1


def _act(action: str, name: str, command: list[str]) -> int:
    if action == "up":
        began = time.monotonic()
        lab = NestedLab.up(name)
        print(f"nested lab {name} is up ({time.monotonic() - began:.0f} s): {', '.join(m.name for m in lab.machines)}")
        print(
            f"enter it with: make lab-nested-shell LAB={name}   (then: ssh root@one, virsh -c qemu+ssh://root@one/system)"
        )
        return 0
    if action == "down":
        NestedLab(NestedSpec(name)).down()
        return 0
    lab = NestedLab.attach(name)
    if action == "status":
        for machine in lab.machines:
            print(f"{machine.name}: {machine.address}, {'up' if machine.is_up else 'down'}")
        return 0
    chosen = command if action == "run" else [os.environ.get("SHELL", "/bin/bash")]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.execvp("nsenter", [*lab.desk_prefix(), *chosen])  # noqa: S606 - no shell in between
    return 0


if __name__ == "__main__":
    sys.exit(main())
