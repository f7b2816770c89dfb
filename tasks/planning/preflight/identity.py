"""Rules about who the VM is: the same host, names and UUIDs that are taken, other copies."""

from __future__ import annotations

from tasks.model.domain import DomainView
from tasks.model.finding import Finding, blocker, info, warning
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation


@rule(
    SAME_HOST="Source and destination are one host (the same host UUID).",
    SAME_HOSTNAME="Source and destination call themselves by the same host name, which libvirt takes for one host.",
)
def check_same_host(s: Situation) -> list[Finding]:
    """libvirt refuses (1): "Attempt to migrate guest to the same host"."""
    if s.source.name == s.destination.name or (s.source.uuid and s.source.uuid == s.destination.uuid):
        message = f"{s.source.name} and {s.destination.name} are the same host (host UUID {s.source.uuid})"
        return [
            blocker("SAME_HOST", message, "choose another destination; cloned hosts need a host_uuid in libvirtd.conf")
        ]
    if s.source.hostname and s.source.hostname == s.destination.hostname:
        message = f"{s.source.name} and {s.destination.name} both have the host name {s.source.hostname}"
        return [blocker("SAME_HOSTNAME", message, "give one of them another name: hostnamectl set-hostname NAME")]
    return []


@rule(
    HOST_CORDONED="The destination takes no VMs: somebody cordoned it.",
)
def check_cordon(s: Situation) -> list[Finding]:
    """An operator's word, before anything that could be seen on the host."""
    if s.cordon is None:
        return []
    hint = f"choose another destination; when it may be used again: vmferry uncordon {s.destination.name}"
    return [blocker("HOST_CORDONED", f"{s.destination.name} is {s.cordon.words}", hint)]


@rule(
    DESTINATION_HAS_SAME_UUID="The destination has a shut-off domain with the VM's UUID; it is never overwritten.",
    DESTINATION_HAS_SAME_NAME="The destination has a domain with the VM's name; it is never overwritten.",
    RUNNING_ON_BOTH="The VM runs on the source and on the destination: its disks may be damaged already.",
    RUNNING_ON_DESTINATION="The VM is shut off on the source and runs on the destination.",
)
def check_destination_copy(s: Situation) -> list[Finding]:
    """libvirt overwrites a shut-off definition of the same name and UUID without a word; other clashes it refuses."""
    return [finding for view in s.on_destination for finding in _clash(s, view)]


def _clash(s: Situation, view: DomainView) -> list[Finding]:
    same_uuid = view.uuid == s.view.uuid
    if same_uuid and view.active:
        return [_running_there(s)]
    if _is_ours(s, view):
        return []
    where = f"{view.host} already has a domain {view.name} ({view.state.value}, UUID {view.uuid})"
    hint = f"look at it (virsh dumpxml {view.uuid} on {view.host}); if nobody needs it: virsh undefine {view.uuid}"
    findings = []
    if same_uuid:
        findings.append(blocker("DESTINATION_HAS_SAME_UUID", f"{where}: the UUID of the VM to be moved", hint))
    if view.name == s.view.name:
        findings.append(blocker("DESTINATION_HAS_SAME_NAME", f"{where}: the name of the VM to be moved", hint))
    return findings


def _running_there(s: Situation) -> Finding:
    if s.view.active:
        return blocker(
            "RUNNING_ON_BOTH",
            f"{s.view.name} (UUID {s.view.uuid}) is active on {s.source.name} and on {s.destination.name} at once",
            "stop one of them now, and check its disks",
        )
    return blocker(
        "RUNNING_ON_DESTINATION",
        f"{s.view.name} (UUID {s.view.uuid}) is shut off on {s.source.name} and active on {s.destination.name}",
        f"it is there already; the definition on {s.source.name} is a leftover or a copy",
    )


def _is_ours(s: Situation, view: DomainView) -> bool:
    """A leftover of this very migration, made by an earlier attempt."""
    return bool(s.run_id) and view.uuid == s.view.uuid and view.mark is not None and view.mark.id == s.run_id


@rule(
    RUNNING_ELSEWHERE="The VM is active on a third host as well.",
    DEFINED_ELSEWHERE="A third host has a shut-off domain with the VM's UUID.",
)
def check_third_hosts(s: Situation) -> list[Finding]:
    """A copy on a third host would be started one day, on the same disks."""
    copies = [view for view in s.elsewhere if view.uuid == s.view.uuid]
    return [_copy(view) for view in copies]


def _copy(view: DomainView) -> Finding:
    if view.active:
        message = f"{view.name} (UUID {view.uuid}) is active on {view.host} too, which takes no part in this"
        return blocker("RUNNING_ELSEWHERE", message, f"find out which copy is the right one: vmferry vms {view.host}")
    boot = " and is started when the host boots" if view.autostart else ""
    message = f"{view.name} (UUID {view.uuid}) is defined on {view.host} too{boot}"
    return warning("DEFINED_ELSEWHERE", message, f"if nobody needs it: virsh undefine {view.uuid} on {view.host}")


@rule(
    MARKED_BY_ANOTHER="The VM bears the mark of another migration, which did not clean up.",
)
def check_marks(s: Situation) -> list[Finding]:
    """Migrations of one VM exclude each other, so that a foreign mark is a leftover, or another installation's."""
    mark = s.view.mark
    if mark is None or mark.id == s.run_id:
        return []
    message = f"{s.view.name} on {s.source.name} bears the mark of migration {mark.id}"
    return [warning("MARKED_BY_ANOTHER", message, f"vmferry show {mark.id} says what became of it")]


@rule(
    TRANSIENT_VM="The VM has no persistent definition: it will be transient on the destination too.",
    TRANSIENT_OFFLINE="A VM without persistent definition cannot be moved shut off.",
)
def check_persistence(s: Situation) -> list[Finding]:
    """A transient VM exists only while it runs."""
    if s.view.persistent:
        return []
    if not s.live:
        message = f"{s.view.name} has no persistent definition on {s.source.name}"
        return [blocker("TRANSIENT_OFFLINE", message, "define it first: virsh define FILE")]
    message = f"{s.view.name} is transient: it will be gone when it is shut off, on {s.destination.name} as well"
    return [warning("TRANSIENT_VM", message, "to keep it: virsh dumpxml VM > FILE; virsh define FILE")]


@rule(
    AUTOSTART_MOVES="The VM is started when its host boots; this setting moves along.",
)
def check_autostart(s: Situation) -> list[Finding]:
    """libvirt never carries autostart over; vmferry does."""
    if not s.view.autostart:
        return []
    message = f"autostart is cleared on {s.source.name} before the move and set on {s.destination.name} after it"
    return [info("AUTOSTART_MOVES", message)]


@rule(
    JOB_ACTIVE="libvirt is busy with a job on the VM (backup, block copy, save, another migration).",
)
def check_job(s: Situation) -> list[Finding]:
    """libvirt refuses (55): "another migration job is already running", "domain has active block job"."""
    if not s.view.job.active:
        return []
    what = "a migration" if s.view.job.is_migration else "a job"
    message = f"libvirt on {s.source.name} is busy with {what} of {s.view.name}"
    return [blocker("JOB_ACTIVE", message, f"wait for its end, or: virsh domjobabort {s.view.uuid}")]
