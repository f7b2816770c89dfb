"""Where libvirt keeps the state of emulated TPMs (its qemu_tpm.c, of hosts that the system's libvirtd runs)."""

from __future__ import annotations

from tasks.model.domain import Domain

FOLDER = "/var/lib/libvirt/swtpm"
VERSIONS = {"1.2": "tpm1.2", "2.0": "tpm2"}
STATES = {"tpm1.2": "tpm-00.permall", "tpm2": "tpm2-00.permall"}
"""The file that outlives the VM's run, as swtpm names it."""


def state_directory(domain: Domain, uuid: str) -> str | None:
    """The directory of a VM's TPM state; None when it has none, or it is somewhere else."""
    folder = VERSIONS.get(domain.tpm)
    return f"{FOLDER}/{uuid}/{folder}" if folder and not kept_elsewhere(domain) else None


def kept_elsewhere(domain: Domain) -> bool:
    """Whether the definition names a place of its own for the state."""
    return any(r.kind == "tpm-state" for r in domain.resources)
