"""libvirt's event loop, one thread a process: without it nothing answers or sends keep-alive messages."""

from __future__ import annotations

import logging
import os
import threading
import time

import libvirt

log = logging.getLogger(__name__)

_lock = threading.Lock()
_owner: int | None = None


def start_event_loop() -> None:
    """Start the loop unless it runs; must come before the first connection of the process.

    Raises:
        RuntimeError: The process was forked from one that already had connections. libvirt's loop would then read
            from the parent's sockets, so that continuing is not possible.
    """
    global _owner
    with _lock:
        if _owner == os.getpid():
            return
        if _owner is not None:
            raise RuntimeError("libvirt connections do not survive a fork: make the first one in the child process")
        libvirt.registerErrorHandler(_ignore, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run, name="libvirt-events", daemon=True).start()
        _owner = os.getpid()


def _run() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            log.exception("libvirt's event loop failed once; it goes on")
            time.sleep(0.1)


def _ignore(_context: object, _error: object) -> None:
    """libvirt prints every error on stderr unless a handler is set; ours arrive as exceptions."""
