"""``python -m tests.lab up|down|status|shell|run``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.lab import Lab, LabError, LabUnavailable
from tests.lab.spec import HOSTS


def main() -> int:
    """Parse and act; one line for whatever goes wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description="real libvirt hosts in namespaces",
        epilog="run takes its command after --",
    )
    parser.add_argument("action", choices=["up", "down", "status", "shell", "run"])
    parser.add_argument("--name", default="lab", help="name of the lab (default: lab)")
    parser.add_argument("--hosts", default=",".join(HOSTS), help="which hosts (default: all three)")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    given.command = words[cut + 1 :]
    try:
        return _act(given)
    except (LabError, LabUnavailable) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _act(given: argparse.Namespace) -> int:
    if given.action == "up":
        began = time.monotonic()
        lab = Lab.up(given.name, given.hosts.split(","))
        print(f"lab {given.name} is up ({time.monotonic() - began:.1f} s): {', '.join(lab.spec.hosts)}")
        print(f"enter it with: make lab-shell LAB={given.name}")
        return 0
    lab = Lab.attach(given.name) if given.action != "down" else _any(given.name)
    if given.action == "down":
        lab.down()
    elif given.action == "status":
        for name in lab.spec.hosts:
            host = lab.host(name)
            print(f"{name}: {host.address}, {'up' if host.is_up else 'down'}\n{host.virsh('list', '--all')}")
    else:
        command = given.command if given.action == "run" else [os.environ.get("SHELL", "/bin/bash")]
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.execvp("nsenter", [*lab.desk_prefix(), *command])  # noqa: S606 - no shell in between
    return 0


def _any(name: str) -> Lab:
    try:
        return Lab.attach(name)
    except LabError:
        from tests.lab.spec import Spec

        return Lab(Spec(name))


if __name__ == "__main__":
    sys.exit(main())
