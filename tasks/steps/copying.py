"""Files of disks: copied byte for byte through the worker, piece by piece, and read again afterwards.

All of a VM that is shut off; of one that runs, only what lies below its disks and is never written to.

Each piece that has arrived is recorded with its checksum, so that another worker goes on where this one ended. The
source must stay as it is until the VM goes on at the destination: it is looked at again after every piece, and a file
that was written to meanwhile ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tasks.model.disks import ChunkOrder, FileCopy
from tasks.model.errors import OperatorMustFix, OutcomeUnknown
from tasks.model.run import Channel, Progress
from tasks.planning.chunks import chunks_of
from tasks.planning.outcome import describe
from tasks.planning.qcow2 import HEADER_BYTES, parse_header, with_backing
from tasks.steps.run import StepRun
from tasks.steps.sharing import Sharing
from tasks.steps.shutdown import may_turn_back
from tasks.steps.windows import reopen_windows

MIB = 1024**2
GOES_ON = ("source_save_remove", "destination_start", "source_undefine")
"""Effects from which on the source's files are not the VM any more."""


def copy_files(run: StepRun) -> None:
    """Copy what is left to copy of every file, lowest layers first.

    Raises:
        OperatorMustFix: ``VM_STARTED``, ``SOURCE_CHANGED``: the copy would be of no use.
    """
    reopen_windows(run)
    meter = _Meter(run)
    if any(len(run.record.ledger.get(file.key, ())) < len(_chunks(file)) for file in _files(run)):
        meter.begin()
    for file in _files(run):
        for number, (offset, length) in enumerate(_chunks(file)):
            if number >= len(run.record.ledger.get(file.key, ())):
                _copy_chunk(run, file, number, (offset, length), meter)
            meter.arrived(length)
        _check_source(run, file)


def check_contents(run: StepRun) -> None:
    """Read every copied file again from the destination and compare it with what was written there.

    Raises:
        OutcomeUnknown: ``VERIFY_FAILED``.
    """
    for file in _files(run):
        sums = run.record.ledger.get(file.key, ())
        for (offset, length), wanted in zip(_chunks(file), sums, strict=True):
            found = run.hypervisor.hash_chunk(run.destination, file.path, offset, length, _interruptible(run))
            if found != wanted:
                message = f"{file.path} on {run.destination} differs from {file.source_path} after byte {offset}"
                raise OutcomeUnknown("VERIFY_FAILED", message, "look at the storage of both hosts")


def find_changed(run: StepRun) -> list[str]:
    """What says that the source, which stands still, was used since it was copied: what the destination has is older.

    Nothing as soon as the VM may go on at the destination: until then the source's files are the VM.
    """
    if run.method.streams_memory or any(entry.kind in GOES_ON for entry in run.record.journal):
        return []
    reopen_windows(run)
    wanted = {file.source_path: (file.modified, file.length_bytes) for file in _files(run)}
    if run.record.mirrored_off:
        wanted |= {copy.source_path: (copy.modified, 0) for copy in run.record.copies}
    problems = []
    for path, (modified, length) in wanted.items():
        volume = run.hypervisor.find_volume_at(run.source, path)
        if volume is None or volume.modified != modified or length not in (0, volume.length_bytes):
            problems.append(f"{path} on {run.source} was written to since it was copied")
    return problems


def find_changed_devices(run: StepRun, tick: Callable[[int], None]) -> list[str]:
    """Block devices are read once more: when one was written to is noted at the node that was used for it alone, and a
    VM has one of its own."""
    if run.method.streams_memory or any(entry.kind in GOES_ON for entry in run.record.journal):
        return []
    devices = [file for file in _files(run) if file.source_path.startswith("/dev/")]
    return [
        f"{file.source_path} on {run.source} was written to since it was copied"
        for file in devices
        if not _reads_as_copied(run, file, tick)
    ]


def _reads_as_copied(run: StepRun, file: FileCopy, tick: Callable[[int], None]) -> bool:
    pieces = zip(_chunks(file), run.record.ledger.get(file.key, ()), strict=True)
    for number, ((offset, length), wanted) in enumerate(pieces):
        if number == 0 and file.below is not None:
            continue  # its header may have been changed on its way
        if run.hypervisor.hash_chunk(run.source, file.source_path, offset, length, tick) != wanted:
            return False
    return True


def _files(run: StepRun) -> tuple[FileCopy, ...]:
    return (*run.record.files, *(file for copy in run.record.copies for file in copy.files))


def _chunks(file: FileCopy) -> tuple[tuple[int, int], ...]:
    return chunks_of(file.length_bytes, file.chunk_bytes)


def _copy_chunk(run: StepRun, file: FileCopy, number: int, piece: tuple[int, int], meter: _Meter) -> None:
    run.interrupt_if_asked()
    name = f"{file.key}.{number}"
    # An owner that died in the middle of this piece has left something there, which holes would not overwrite.
    fresh = run.record.writing != name
    if fresh:
        run.save(writing=name)
    order = ChunkOrder(
        source=run.source,
        source_path=file.source_path,
        destination=run.destination,
        destination_path=file.path,
        offset=piece[0],
        length=piece[1],
        fresh=fresh,
        head=_head(run, file) if number == 0 else b"",
        at_once=meter.at_once(),
    )
    checksum = run.hypervisor.copy_chunk(order, meter)
    _check_source(run, file)
    known = run.record.ledger.get(file.key, ())
    run.save(ledger=run.record.ledger | {file.key: (*known, checksum)}, progress=meter.progress())


def _head(run: StepRun, file: FileCopy) -> bytes:
    """The beginning of a copy whose file below is somewhere else than the source's; nothing when it stays as it is."""
    if file.below is None:
        return b""
    data = run.hypervisor.read_piece(run.source, file.source_path, 0, min(HEADER_BYTES, file.length_bytes))
    header = parse_header(data)
    if header is not None and header.backing == file.below:
        return b""
    changed = with_backing(data, file.below)
    if changed is None:
        message = f"{file.source_path}: its header has no room for the name {file.below}"
        raise OperatorMustFix("BACKING_NAME_TOO_LONG", message, "choose a pool with a shorter path")
    return changed


def _check_source(run: StepRun, file: FileCopy) -> None:
    """The VM is still shut off; a file below a running VM's disk is only read by it, and must not change either."""
    if not run.method.streams_memory:
        source = run.hypervisor.find_domain(run.source, run.uuid)
        if source is None or source.active:
            message = f"{run.record.vm} is no longer shut off on {run.source}: {describe(source, run.source)}"
            raise OperatorMustFix("VM_STARTED", message, "retry: it can be moved live")
    volume = run.hypervisor.find_volume_at(run.source, file.source_path)
    if volume is None or (volume.modified, volume.length_bytes) != (file.modified, file.length_bytes):
        message = f"{file.source_path} on {run.source} was changed while it was copied"
        raise OperatorMustFix("SOURCE_CHANGED", message, "find out who writes to it, then retry")


def _interruptible(run: StepRun) -> Callable[[int], None]:
    """A VM that has moved only goes forward, also when a cancel was accepted just before: it came too late."""
    return lambda _: run.interrupt_if_asked(cancellable=may_turn_back(run))


class _Meter:
    """Counts what was copied, keeps to the bandwidth that it is allotted, and ends the copy when that is asked for."""

    def __init__(self, run: StepRun) -> None:
        self._run = run
        self._total = sum(file.length_bytes for file in _files(run))
        self._began = self._told = time.monotonic()
        self._sent = self._arrived = self._piece = 0
        self._sharing = Sharing(run, self._limit)
        self._mib_s = 0
        self._free_at = 0.0

    def begin(self) -> None:
        """Wait for a part of the links that it goes over."""
        self._mib_s = self._sharing.begin()

    def at_once(self) -> int:
        """A quarter of a second's worth, bytes; 0: there is no limit."""
        return self._mib_s * MIB // 4

    def _limit(self, mib_s: int) -> bool:
        self._mib_s = mib_s
        return True

    def arrived(self, length: int) -> None:
        """One more piece is where it belongs, perhaps since an earlier owner's time."""
        self._arrived += length
        self._piece = 0

    def __call__(self, sent: int) -> None:
        """So many bytes were passed on."""
        self._sent += sent
        self._piece += sent
        self._run.interrupt_if_asked()
        if self._mib_s:
            # Time that was lost is not made up for: that would be more than the limit for a while.
            self._free_at = max(self._free_at, time.monotonic()) + sent / (self._mib_s * MIB)
        while (ahead := self._free_at - time.monotonic()) > 0:
            self._run.stopping.wait(min(ahead, 0.5))
            self._run.interrupt_if_asked()
        if time.monotonic() - self._told > self._run.limits.progress_period_s:
            self._told = time.monotonic()
            self._sharing.look()
            self._run.save(progress=self.progress())

    def progress(self) -> Progress:
        """What is done, in the terms of a transfer."""
        elapsed = time.monotonic() - self._began
        disk = Channel(
            total_bytes=self._total,
            processed_bytes=self._sent,
            remaining_bytes=max(0, self._total - self._arrived - self._piece),
            bytes_per_second=int(self._sent / elapsed) if elapsed > 0 else 0,
        )
        return Progress(disk=disk, elapsed_ms=int(elapsed * 1000))
