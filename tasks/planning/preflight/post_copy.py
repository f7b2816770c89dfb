"""The rule about post-copy: what cannot be switched to it is given up when its policy's time is over."""

from __future__ import annotations

from tasks.model.domain import DomainState
from tasks.model.finding import Finding, warning
from tasks.model.host import HostFacts
from tasks.model.request import Method
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation

LIBVIRT_SINCE = 8_005_000
"""Recovery after a lost link (VIR_MIGRATE_POSTCOPY_RESUME) is worth its name from libvirt 8.5 on."""
QEMU_SINCE = 3_000_000
"""The first versions of QEMU that can recover came before 3.0."""


@rule(
    POST_COPY_TOO_OLD="The policy asks for post-copy; a host's libvirt or QEMU could not recover from a lost link.",
    POST_COPY_MEMORY="The policy asks for post-copy, which is not known to work with memory of the VM's kind.",
    POST_COPY_PAUSED="The policy asks for post-copy, and the VM is paused: that is of no use to it.",
)
def check_post_copy(s: Situation) -> list[Finding]:
    """A warning, not a blocker: the VM goes without post-copy, and most arrive without needing it."""
    if not s.post_copy or s.method is not Method.LIVE:
        return []
    instead = "it is given up instead when the policy's time is over; choose a policy that fits"
    findings = [
        warning("POST_COPY_TOO_OLD", f"{s.view.name} cannot be switched to post-copy: {reason}", instead)
        for host in (s.source, s.destination)
        for reason in _too_old(host)
    ]
    if reason := _odd_memory(s):
        message = f"{s.view.name} cannot be switched to post-copy: {reason}"
        findings.append(warning("POST_COPY_MEMORY", message, instead))
    if s.view.state is DomainState.PAUSED:
        message = f"{s.view.name} is not switched to post-copy: it is paused"
        findings.append(warning("POST_COPY_PAUSED", message, "nothing to do: what does not run arrives by itself"))
    return findings


def may_switch(s: Situation) -> bool:
    """Whether the transfer is started so that it can be switched over."""
    return s.post_copy and s.method is Method.LIVE and not check_post_copy(s)


def _too_old(host: HostFacts) -> list[str]:
    known = (("libvirt", host.libvirt_version, LIBVIRT_SINCE), ("QEMU", host.hypervisor_version, QEMU_SINCE))
    return [
        f"{name} {_version(version)} on {host.name} is older than {_version(since)}"
        for name, version, since in known
        if version < since
    ]


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _odd_memory(s: Situation) -> str:
    """A missing page is fetched as a whole, and the kernel must be able to tell that it is missing (userfaultfd)."""
    if pages := s.resources("hugepages"):
        return f"its memory is in huge pages ({', '.join(page.value for page in pages)})"
    if s.domain.memory_source == "file":
        return "its memory is in files of the host"
    if files := s.resources("memory-file"):
        return f"{files[0].value} holds the contents of a memory device"
    return ""
