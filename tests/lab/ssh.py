"""SSH keys of a lab: its own for everything, so that nobody's real ones are touched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from tests.lab.node import Node
from tests.lab.shell import run
from tests.lab.spec import Spec

CONFIG = """
IdentityFile {folder}/id
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
BatchMode yes
LogLevel ERROR
"""


def make_keys(spec: Spec, hosts: Sequence[Node]) -> None:
    """One client key for hub and hosts, one host key each, and a file of known hosts that all share."""
    folder = spec.folder / "ssh"
    folder.mkdir(exist_ok=True)
    if not (folder / "id").exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"vmferry lab {spec.name}", "-f", str(folder / "id"))
    known = []
    for host in hosts:
        key = host.root / "etc/libvirt/ssh/host_key"
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
        known.append(f"{host.name},{host.address} {public}")
    (folder / "known_hosts").write_text("\n".join(known) + "\n")
    (folder / "config").write_text(CONFIG.format(folder=folder))
    wrapper = folder / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nexec ssh -F {folder}/config "$@"\n')
    wrapper.chmod(0o755)
    home = folder / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(folder / "id", home / "id_ed25519")
    shutil.copy(folder / "known_hosts", home / "known_hosts")
    for host in hosts:
        _install(spec, host)


def _install(spec: Spec, host: Node) -> None:
    ours, theirs = spec.folder / "ssh", host.root / "root/.ssh"
    theirs.chmod(0o700)
    shutil.copy(ours / "known_hosts", theirs / "known_hosts")
    shutil.copy(ours / "id", theirs / "id_ed25519")
    (theirs / "id_ed25519").chmod(0o600)
    shutil.copy(ours / "id.pub", host.root / "etc/libvirt/ssh/authorized_keys")
