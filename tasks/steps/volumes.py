"""New volumes of the destination: each under a name that only this attempt can have, journaled before it is made."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tasks.model.disks import TPM, BackingFile, DiskCopy, FileCopy, VolumeOrder
from tasks.model.errors import OperatorMustFix
from tasks.model.run import JournalKind
from tasks.planning.chunks import chunks_of
from tasks.steps.run import StepRun
from tasks.steps.survey import describe_copy
from tasks.steps.windows import reopen_windows


def settle_bases(run: StepRun) -> None:
    """Compare the files below the disks that both hosts have: one that differs is copied instead of used."""
    copies = []
    for copy in run.record.copies:
        bases = tuple(_settle(run, base) for base in copy.backing)
        copies.append(copy.model_copy(update={"backing": bases}))
    if tuple(copies) != run.record.copies:
        run.save(copies=tuple(copies))


def make_file_volumes(run: StepRun) -> None:
    """Room for everything that is copied byte for byte, and for disks that are mirrored without a file below them."""
    reopen_windows(run)
    for copy in run.record.copies:
        for file in copy.files:
            if file.device:
                continue
            run.interrupt_if_asked()
            _make_file(run, file)
        if not copy.length_bytes and not copy.backing and not copy.device:
            _make_mirrored(run, copy)
    for file in run.record.files:
        run.interrupt_if_asked()
        _make_file(run, file)


def _make_file(run: StepRun, file: FileCopy) -> None:
    """What is copied byte for byte brings its format along."""
    order = VolumeOrder(file.pool, file.volume, "raw", file.length_bytes)
    words = f"volume {file.volume} in pool {file.pool} on {run.destination}"
    _make(run, order, file.path, words, kind="destination_tpm_state" if file.key == TPM else "destination_volume")


def make_overlays(run: StepRun) -> None:
    """Volumes of mirrored disks that keep the files below them, which have arrived by now."""
    for copy in run.record.copies:
        if not copy.length_bytes and copy.backing:
            _make_mirrored(run, copy)


def _make_mirrored(run: StepRun, copy: DiskCopy) -> None:
    run.interrupt_if_asked()
    order = VolumeOrder(copy.pool, copy.volume, copy.format, copy.capacity_bytes)
    if copy.backing:
        order = replace(order, backing=copy.backing[0].path, backing_format=copy.backing[0].format)
    _make(run, order, copy.path, describe_copy(copy, run.destination), mirrored=True)


def _make(
    run: StepRun,
    order: VolumeOrder,
    path: str,
    words: str,
    *,
    mirrored: bool = False,
    kind: JournalKind = "destination_volume",
) -> None:
    name = f"{order.pool}/{order.name}"
    begun = run.intent(kind, run.destination, name) is not None
    if not begun and run.hypervisor.find_volume(run.destination, order.pool, order.name) is not None:
        # Before anything is journaled: rollback deletes what the journal names, and this is not ours.
        message = f"{run.destination}: pool {order.pool} already has a volume {order.name}"
        raise OperatorMustFix("VOLUME_EXISTS", message, "nobody should have: look at it; nothing is overwritten")

    def make() -> None:
        if begun:  # an owner that died may have made it, or half of it, and nothing has been written to it since
            run.hypervisor.delete_volume(run.destination, order.pool, order.name)
        made = run.hypervisor.create_volume(run.destination, order)
        # A logical volume is rounded up to whole extents, which a mirror does not accept and a copy of a file does.
        larger = made.capacity_bytes > order.capacity_bytes and not mirrored
        if made.path != path or (made.capacity_bytes != order.capacity_bytes and not larger):
            message = f"the new volume is {made.path} with {made.capacity_bytes} bytes"
            hint = f"expected {path} with {order.capacity_bytes}: was the pool changed meanwhile?"
            raise OperatorMustFix("VOLUME_UNFIT", message, hint)

    run.effect(kind, run.destination, "", make, name=name, created=words)


def _settle(run: StepRun, base: BackingFile) -> BackingFile:
    if base.how != "present":
        return base
    there = run.hypervisor.find_volume_at(run.destination, base.path)
    if there is None or there.length_bytes != base.length_bytes:
        return base.copied()
    here = _digest(run, run.source, base.source_path, base.length_bytes, base.modified)
    same = here == _digest(run, run.destination, base.path, there.length_bytes, there.modified)
    return base if same else base.copied()


def _digest(run: StepRun, host: str, path: str, length: int, modified: str) -> str:
    """Of a file's whole content; remembered for as long as its size and the time of its last change stay the same."""
    key = f"{host}:{path}:{length}:{modified}"
    known = run.store.recall_digest(key)
    if known is not None:
        return known
    sums = [
        run.hypervisor.hash_chunk(host, path, offset, size, lambda _: run.interrupt_if_asked())
        for offset, size in chunks_of(length)
    ]
    digest = hashlib.sha256(" ".join(sums).encode()).hexdigest()
    run.store.remember_digest(key, digest)
    return digest
