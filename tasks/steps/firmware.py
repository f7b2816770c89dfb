"""UEFI variables of a VM that is not running while it moves: their file goes along under a name of its own."""

from __future__ import annotations

from posixpath import basename, dirname, join

from tasks.model.disks import NVRAM, FileCopy
from tasks.planning.volume_name import mark_volume_name
from tasks.steps.run import StepRun
from tasks.steps.windows import open_window


def plan_nvram(run: StepRun) -> None:
    """Look at the file and note that it is copied; a VM that was never started has none yet, and gets one there."""
    path = run.record.nvram
    if not path or any(file.key == NVRAM for file in run.record.files):
        return
    directory = dirname(path)
    here, there = (open_window(run, host, directory) for host in (run.source, run.destination))
    found = run.hypervisor.find_volume(run.source, here, basename(path))
    if found is None:
        return
    volume = mark_volume_name(path, NVRAM, run.mark)
    file = FileCopy(
        key=NVRAM,
        source_path=path,
        length_bytes=found.length_bytes,
        modified=found.modified,
        pool=there,
        volume=volume,
        path=join(directory, volume),
    )
    run.save(files=(*run.record.files, file))
