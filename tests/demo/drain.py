"""A host is emptied: nine guests on three hosts, one of which cannot move, by the ordinary command line.

``KEEP=1`` leaves everything running.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table
from selenium.webdriver.common.by import By

from tests.demo.__main__ import KEEP, Demo, console, play_and_keep, running_demo, say
from tests.flower.browser import browser
from tests.lab import Guest, GuestWatch, LabError, LabUnavailable

HOSTS = ("alpha", "beta", "gamma")
ISO = "/var/lib/libvirt/images/installer.iso"
CDROM = f"<disk type='file' device='cdrom'><source file='{ISO}'/><target dev='sda' bus='sata'/><readonly/></disk>"


def make_guests(demo: Demo) -> list[Guest]:
    """Six on alpha, one of them with an image in its drive that only alpha has; three elsewhere."""
    lab = demo.lab
    (lab.host("alpha").root / ISO.lstrip("/")).write_bytes(bytes(1 << 20))
    guests = [
        lab.guest(f"web-{number}", "alpha", memory_mib=96 + 16 * number, fill_mib=8 * number) for number in range(4)
    ]
    guests.append(lab.guest("files-1", "alpha", disk="local", disk_mib=64))
    guests.append(lab.guest("installing-1", "alpha", extra_xml=CDROM))
    guests += [lab.guest("db-1", "beta"), lab.guest("db-2", "beta"), lab.guest("cache-1", "gamma", disk=None)]
    for guest in guests:
        guest.wait_ticking(guest.host)
    return guests


def scene(demo: Demo) -> None:
    """The plan, the drain, and what is left."""
    say("boot nine Linux guests: six on alpha, two on beta, one on gamma")
    guests = make_guests(demo)
    say("in the evening: where would they go?")
    demo.vmferry("drain", "alpha", "--dry-run", codes=(3,))
    with ExitStack() as stack:
        watches = {guest.name: stack.enter_context(guest.watch()) for guest in guests if guest.host == "alpha"}
        began = time.monotonic()
        demo.vmferry("drain", "alpha", "--id", "tonight", "--wait", codes=(1,))
        took_s = time.monotonic() - began
        time.sleep(0.5)
    demo.vmferry("show", "tonight")
    report(demo, watches, took_s)
    page = "drain-report.html" if KEEP else str(demo.folder / "report.html")
    demo.vmferry("report", "tonight", "--html", page)
    say(f"what a browser makes of it: {look_at(page)}")
    say("the one that could not move: take the image out of its drive, and alpha is empty")
    demo.vmferry("drain", "alpha", "--id", "rest", "--remedy", "eject-media", "--wait")
    demo.vmferry("drains")
    demo.vmferry("hosts")


def look_at(page: str) -> str:
    """The page's heading, and how many bars and curves Chromium draws."""
    with browser() as driver:
        driver.get(Path(page).resolve().as_uri())
        heading = driver.find_element(By.TAG_NAME, "h1").text
        bars = driver.find_elements(By.CSS_SELECTOR, "#chart .barlayer .point path")
        curves = driver.find_elements(By.CSS_SELECTOR, "#chart .scatterlayer .trace path.js-line")
    if not bars or not curves:
        raise LabError(f"{page} shows nothing: {len(bars)} bars, {len(curves)} curves")
    return f"“{heading}”, {len(bars)} bars, {len(curves)} curves"


def report(demo: Demo, watches: dict[str, GuestWatch], took_s: float) -> None:
    """What those who looked at the guests saw."""
    record = json.loads(demo.vmferry("show", "tonight", "--json", capture=True))
    table = Table(title=f"alpha: {record['state']} after {took_s:.1f} s")
    for column in ("guest", "to", "fate", "pause, as seen from outside"):
        table.add_column(column)
    for vm in record["vms"]:
        watch = watches[vm["name"]]
        watch.check_never_twice()
        watch.check_continued()
        table.add_row(vm["name"], vm["destination"] or "-", vm["fate"], f"{watch.max_gap_ms():.0f} ms")
    console.print(table)


def play(name: str) -> int:
    """All of it; one line for whatever goes wrong."""
    began = time.monotonic()
    try:
        with running_demo(name, HOSTS) as demo:
            scene(demo)
            say(f"done in {time.monotonic() - began:.0f} s")
    except (LabError, LabUnavailable, TimeoutError, AssertionError) as error:
        console.print(f"[bold red]demo: {error}[/]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(play_and_keep("demo", play) if KEEP else play(f"drain{os.getpid()}"))
