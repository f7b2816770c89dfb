"""A host whose clock is off: its QEMUs believe in another time, the machine and the other hosts do not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.host import Host
from tests.lab.shell import run

EMULATOR = "/usr/bin/qemu-system-x86_64"
PRELOADED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <sys/time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (!result && clock == CLOCK_REALTIME) now->tv_sec += AHEAD;
  return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  int result = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return result;
}
"""
WRAPPER = """#!/bin/sh
# Started from elsewhere, it would look for its modules and firmware beside itself.
export QEMU_MODULE_DIR="$(echo /usr/lib/*-linux-gnu*/qemu)"
LD_PRELOAD={folder}/clock.so exec {folder}/emulator -L /usr/share/qemu -L /usr/share/seabios "$@"
"""


@contextmanager
def clock_ahead(host: Host, seconds: int) -> Iterator[None]:
    """What QEMU reports from this host is so many seconds ahead."""
    folder = host.root / "clock"
    folder.mkdir(exist_ok=True)
    source, wrapper, real = folder / "clock.c", folder / "wrapper", folder / "emulator"
    source.write_text(PRELOADED)
    run("gcc", "-shared", "-fPIC", f"-DAHEAD={seconds}", "-o", str(folder / "clock.so"), str(source), "-ldl")
    wrapper.write_text(WRAPPER.format(folder=folder))
    wrapper.chmod(0o755)
    real.touch()
    host.run(["mount", "--bind", EMULATOR, str(real)])
    host.run(["mount", "--bind", str(wrapper), EMULATOR])
    try:
        yield
    finally:
        host.run(["umount", EMULATOR])
        host.run(["umount", str(real)])
