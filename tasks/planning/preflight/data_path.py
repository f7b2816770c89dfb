"""Rules about the way that the contents of copied disks take."""

from __future__ import annotations

from tasks.model.finding import Finding, blocker, info
from tasks.model.request import DataPath, Method
from tasks.planning.data_path import against_hosts
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation


@rule(
    HOSTS_PATH_UNFIT="Disks were to be mirrored from host to host, and a mirror would lose or change something.",
    HOSTS_PATH_NEEDS_OFFLINE="Disks were to be mirrored from host to host, and the VM goes as a file of its memory.",
    WORKER_PATH_NEEDS_OFFLINE="Disks were to be copied through the worker, and the VM runs: they change meanwhile.",
    STARTED_PAUSED="The VM is started paused on the source, so that libvirt can mirror its disks, and never runs.",
)
def check_data_path(s: Situation) -> list[Finding]:
    """What a mirror copies is what the guest would read of a disk; everything else is in the files alone."""
    if s.data_path is None:
        return []
    name, asked = s.view.name, s.request.data_path
    if s.live and asked == DataPath.WORKER:
        message = f"{name} is active: its disks change while they are copied, so that they are mirrored host to host"
        return [blocker("WORKER_PATH_NEEDS_OFFLINE", message, "leave --data-path out, or shut the VM down first")]
    if s.method is Method.SAVED and asked == DataPath.HOSTS:
        message = f"{name} goes as a file of its memory, and nothing runs then that could mirror its disks"
        return [blocker("HOSTS_PATH_NEEDS_OFFLINE", message, "leave --data-path out, or use --method live")]
    if not s.mirrored_off:
        return []
    hint = "leave --data-path out: the files are copied byte for byte through the worker"
    refused = [blocker("HOSTS_PATH_UNFIT", f"{name}: {reason}", hint) for reason in against_hosts(s)]
    message = f"{name} is started on {s.source.name}, paused, moved as it is, and ended on {s.destination.name}"
    return refused or [info("STARTED_PAUSED", message, "let nobody resume it meanwhile: it stays where it is then")]
