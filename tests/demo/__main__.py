"""A real VM moves between two real hosts, by the ordinary command line through the ordinary queue.

Everything is started here and ends with it; ``KEEP=1`` leaves it running and says what to type next.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.demo.door import Door
from tests.lab import Guest, GuestWatch, Lab, LabError, LabUnavailable
from tests.lab.shell import kill, remember
from tests.lab.spec import Spec
from tests.queue.harness import Beat, FlowerServer, Program, RedisServer, Worker
from tests.scenarios.stack import REPOSITORY, to_toml

KEEP = os.environ.get("KEEP") == "1"
console = Console(highlight=False)


def say(text: str) -> None:
    """One line of what is being done."""
    console.print(f"[bold cyan]»[/] {text}")


class Demo:
    """Lab, Redis, workers, beat and configuration of one demonstration."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.spec.folder / "demo"
        self.folder.mkdir(exist_ok=True)
        self.config = self.folder / "vmferry.toml"
        self.programs: list[Program] = []
        self.flower_address = ""
        """For a browser on this machine, with what it asks for."""

    def start(self) -> None:
        """Redis on the hub's loopback, one worker for each queue, beat, Flower."""
        # The whole of it lives in the hub's network namespace, so that the usual port is free whatever runs outside.
        redis = RedisServer(self.folder / "redis", address="127.0.0.1", port=6379)
        values = {"broker_url": "redis://127.0.0.1:6379/0", "hosts": self.lab.inventory("tcp")}
        self.config.write_text(to_toml(values))
        control = Worker(self.config, queues="vmferry", concurrency=4, name="control", folder=self.folder)
        steps = Worker(self.config, queues="vmferry.steps", concurrency=16, name="steps", folder=self.folder)
        self.flower = FlowerServer(self.config, credentials=f"demo:{secrets.token_urlsafe(9)}", folder=self.folder)
        self.programs += [redis, control, steps, Beat(self.config, self.folder), self.flower]
        for program in self.programs:
            program.start()

    def stop(self) -> None:
        """End what was started."""
        for program in reversed(self.programs):
            program.stop()

    def vmferry(self, *args: str, capture: bool = False, codes: tuple[int, ...] = (0,)) -> str:
        """The ordinary command line, on this terminal; ``codes`` are the exit codes that are expected."""
        if not capture:
            console.print(f"[bold]$ vmferry {' '.join(args)}[/]")
        command = [sys.executable, str(REPOSITORY / "cli.py"), *args]
        env = os.environ | {"VMFERRY_CONFIG": str(self.config)}
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE if capture else None, text=True, check=False)
        if done.returncode not in codes:
            raise LabError(f"vmferry {' '.join(args)}: exit {done.returncode}")
        return done.stdout or ""


def report(demo: Demo, guest: Guest, record: dict[str, Any], watch: GuestWatch | None) -> None:
    """What happened, in one table."""
    table = Table(title=f"{record['vm']}: {record['source']} → {record['destination']}", show_header=False)
    table.add_row("state", f"{record['state']} ({record['method']}, storage {record['storage']})")
    for timing in record["timings"]:
        table.add_row(f"  {timing['step']}", f"{(timing['ended_at'] - timing['started_at']) * 1000:.0f} ms")
    for copy in record["copies"]:
        table.add_row(f"disk {copy['target']}", f"copied to {copy['path']}")
    table.add_row("in all", f"{(record['finished_at'] - record['submitted_at']) * 1000:.0f} ms")
    if watch is not None:
        table.add_row("pause, as seen from outside", f"{watch.max_gap_ms():.0f} ms between two beats of 5 ms")
        table.add_row("pause, libvirt's own figure", f"{record['progress']['downtime_ms']} ms")
        beats = {host: len(ticks) for host, ticks in watch.ticks_by_host().items() if ticks}
        table.add_row("beats seen", ", ".join(f"{count} on {host}" for host, count in beats.items()))
    for host, seen in demo.lab.states(guest.uuid).items():
        words = "not defined" if seen is None else ("running" if seen.active else "shut off") + ", persistent"
        table.add_row(f"on {host}", words)
    console.print(table)


def live_scene(demo: Demo) -> None:
    """A running guest with 192 MiB of data in its memory."""
    say("boot a Linux guest on alpha (320 MiB, 192 MiB of it filled, heartbeat every 5 ms)")
    guest = demo.lab.guest("web-1", "alpha", memory_mib=320, fill_mib=192, dirty_mib_s=2, autostart=True)
    guest.wait_ticking()
    until_filled(guest)
    demo.vmferry("plan", "web-1", "--to", "beta")
    with guest.watch() as watch:
        time.sleep(0.5)
        demo.vmferry("migrate", "web-1", "--to", "beta", "--id", "demo-live", "--wait")
        time.sleep(0.5)
    watch.check_never_twice()
    watch.check_continued()
    report(demo, guest, json.loads(demo.vmferry("show", "demo-live", "--json", capture=True)), watch)


def offline_scene(demo: Demo) -> None:
    """A guest that is shut off."""
    say("define a guest on alpha that is shut off")
    guest = demo.lab.guest("db-1", "alpha", start="off", autostart=True)
    demo.vmferry("migrate", "db-1", "--to", "beta", "--id", "demo-offline", "--wait")
    report(demo, guest, json.loads(demo.vmferry("show", "demo-offline", "--json", capture=True)), None)
    demo.vmferry("list")


def copy_scene(demo: Demo) -> None:
    """A running guest whose disk only alpha has, and which reads that disk all the time."""
    say("boot a guest on alpha with a disk of its own (256 MiB, 24 MiB written), which it reads again and again")
    guest = demo.lab.guest("files-1", "alpha", disk="local", disk_mib=256, write_kib_s=32768, write_stop=24 * 256)
    guest.wait_verified(1)
    with guest.watch() as watch:
        time.sleep(0.5)
        demo.vmferry("migrate", "files-1", "--to", "beta", "--id", "demo-copy", "--wait")
        time.sleep(0.5)
    watch.check_never_twice()
    watch.check_continued()
    record = json.loads(demo.vmferry("show", "demo-copy", "--json", capture=True))
    report(demo, guest, record, watch)
    guest.wait_verified(1, "beta")
    say("every block that the guest reads on beta is what it had written on alpha")


def until_filled(guest: Guest) -> None:
    """Wait until the guest has filled its memory."""
    console_file = guest.console("alpha")
    deadline = time.monotonic() + 30
    while b"filled" not in console_file.read_bytes():
        if time.monotonic() > deadline:
            raise LabError("the guest does not fill its memory")
        time.sleep(0.05)


@contextlib.contextmanager
def running_demo(name: str, hosts: tuple[str, ...] = ("alpha", "beta")) -> Iterator[Demo]:
    """Lab and queue, taken down afterwards unless all went well and they shall be kept."""
    say(f"bring up libvirt hosts {', '.join(hosts)}, with shared storage, in namespaces of this machine")
    lab = Lab.up(name, hosts)
    demo = Demo(lab)
    door = Door()  # made here, in the machine's own network
    try:
        lab.enter()
        say("start a private Redis, a control worker, a steps worker, beat and Flower")
        demo.start()
        door.open(demo.flower.port)
        demo.flower_address = f"http://{demo.flower.credentials}@127.0.0.1:{door.port}"
        console.print(f"  Flower: {demo.flower_address}")
        yield demo
        if KEEP:
            hold(demo, name)
    finally:
        demo.stop()
        door.close()
        lab.down()


def play(name: str) -> int:
    """All scenes; one line for whatever goes wrong."""
    began = time.monotonic()
    try:
        with running_demo(name) as demo:
            live_scene(demo)
            offline_scene(demo)
            copy_scene(demo)
            say(f"done in {time.monotonic() - began:.0f} s")
    except (LabError, LabUnavailable, TimeoutError, AssertionError) as error:
        console.print(f"[bold red]demo: {error}[/]")
        return 1
    return 0


# -- KEEP=1 -----------------------------------------------------------------------------------------------------------


def hold(demo: Demo, name: str) -> None:
    """Let the waiting terminal go, and keep everything running until ``make demo-down``."""
    remember(os.getpid(), demo.folder / "holder")
    console.print(
        f"\nEverything goes on running. To look at it:\n"
        f"  make lab-shell LAB={name}\n"
        f"  export VMFERRY_CONFIG={demo.config}\n"
        f"  .venv/bin/vmferry vms\n"
        f"  .venv/bin/vmferry migrate web-1 --to alpha --wait\n"
        f"Flower, in a browser on this machine:\n"
        f"  {demo.flower_address}/migrations\n"
        f"and to end it:\n"
        f"  make demo-down"
    )
    os.kill(os.getppid(), signal.SIGUSR1)
    signal.sigwait({signal.SIGTERM})


def play_and_keep(name: str, play: Callable[[str], int]) -> int:
    """Play in a child that stays; this process ends when the scenes are over."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM})
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(play(name))
    if signal.sigwait({signal.SIGUSR1, signal.SIGCHLD}) == signal.SIGUSR1:
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def down(name: str) -> int:
    """End what ``KEEP=1`` left running."""
    holder = Spec(name).folder / "demo" / "holder"
    kill(holder, signal.SIGTERM, wait_s=60)
    return 0


def main() -> int:
    """``python -m tests.demo [down]``."""
    if sys.argv[1:] == ["down"]:
        return down("demo")
    return play_and_keep("demo", play) if KEEP else play(f"demo{os.getpid()}")


if __name__ == "__main__":
    sys.exit(main())
