"""Checks of the ways between hosts: libvirt's daemons talk to each other, and the worker is not asked."""

from __future__ import annotations

import re

from tasks.model.doctor import CheckResult, DoctorFacts, PairEnd, PairProbe
from tasks.planning.doctor.registry import check, failed, ok, unseen

AUTH_WORDS = re.compile(r"permission denied|authentication|access denied|no agent", re.IGNORECASE)
TRUST_WORDS = re.compile(r"host key verification|certificate", re.IGNORECASE)
NAME_WORDS = re.compile(r"resolve", re.IGNORECASE)
"""ssh's, GnuTLS's and the resolver's refusals reach us only as text."""


@check(
    PEER_URI_UNUSABLE="A host's address means something else on the other hosts.",
)
def check_addresses(facts: DoctorFacts) -> list[CheckResult]:
    """A local socket leads from every host to itself."""
    if len(facts.hosts) < 2:
        return []
    return [
        failed("PEER_URI_UNUSABLE", host.name, host.peer_problem.message, host.peer_problem.hint)
        for host in facts.hosts
        if host.peer_problem is not None
    ]


@check(
    PAIR_WORKS="A probe VM moved from one host to the other.",
    PEER_AUTH_FAILED="The destination's libvirt does not let the source's in.",
    PEER_NOT_TRUSTED="The source's libvirt does not know the destination's key or certificate.",
    PEER_NAME_UNKNOWN="The source cannot resolve the destination's name.",
    PEER_UNREACHABLE="The source's libvirt does not reach the destination's.",
    MIGRATION_PORT_BLOCKED="The source does not reach the destination's migration ports.",
    PAIR_REFUSED="A probe VM could not be moved, for another reason.",
)
def check_pairs(facts: DoctorFacts) -> list[CheckResult]:
    """What the source's daemon can do, proven by a VM that goes the way of all the others."""
    return [_pair(pair) for pair in facts.pairs]


def _pair(pair: PairProbe) -> CheckResult:
    about = f"{pair.source} → {pair.destination}"
    if pair.end is PairEnd.ARRIVED:
        return ok("PAIR_WORKS", about, f"a probe VM moved in {pair.took_s:.1f} s")
    if pair.end is PairEnd.NO_PORT:
        where = pair.migrate_uri.removeprefix("tcp://") or "the address that its libvirt named"
        message = f"{pair.destination} waited for the VM, and {pair.source} does not reach {where}: {pair.text}"
        hint = (
            f"open TCP ports 49152-49215 on {pair.destination} to {pair.source}, "
            f"and check migration_address of host {pair.destination}"
        )
        return failed("MIGRATION_PORT_BLOCKED", about, message, hint)
    if pair.end is PairEnd.NO_PEER:
        code, hint = _why_no_peer(pair)
        message = f"{pair.source}'s libvirt does not get through to {pair.peer_uri}: {pair.text}"
        return failed(code, about, message, hint)
    return failed("PAIR_REFUSED", about, f"the probe VM was refused: {pair.text}", _log_hint(pair))


def _why_no_peer(pair: PairProbe) -> tuple[str, str]:
    trial = f"virsh -c '{pair.peer_uri}' version"
    if TRUST_WORDS.search(pair.text):
        hint = (
            f"on {pair.source}, as root: ssh-keyscan, or its authority's certificate, for {pair.destination}; {trial}"
        )
        return "PEER_NOT_TRUSTED", hint
    if AUTH_WORDS.search(pair.text):
        hint = f"let root of {pair.source} into {pair.destination} (its ssh key, its certificate), then there: {trial}"
        return "PEER_AUTH_FAILED", hint
    if NAME_WORDS.search(pair.text):
        return (
            "PEER_NAME_UNKNOWN",
            f"name {pair.destination} in /etc/hosts or DNS of {pair.source}, or correct peer_uri",
        )
    return "PEER_UNREACHABLE", f"on {pair.source}, as root: {trial}; else correct peer_uri of host {pair.destination}"


def _log_hint(pair: PairProbe) -> str:
    return f"see /var/log/libvirt/qemu on {pair.destination} and libvirtd's log on {pair.source}"


@check(
    PAIRS_NOT_TRIED="Ways between hosts that were not tried, and why.",
)
def check_left_out(facts: DoctorFacts) -> list[CheckResult]:
    """What was not looked at is said."""
    found = []
    if facts.pairs_not_wanted and len(facts.hosts) > 1:
        message = "the ways between hosts were not tried: that takes a probe VM"
        found.append(unseen("PAIRS_NOT_TRIED", "pairs", message, "leave out --no-probe"))
    if facts.pairs_left_out:
        shown = ", ".join(f"{source} → {destination}" for source, destination in facts.pairs_left_out[:3])
        message = f"{len(facts.pairs_left_out)} ways between hosts were not tried, such as {shown}"
        found.append(
            unseen("PAIRS_NOT_TRIED", "pairs", message, "--all-pairs, --to HOST or --pair HOST:HOST tries them")
        )
    found += [unseen("PAIRS_NOT_TRIED", "pairs", words) for words in facts.silent]
    return found
