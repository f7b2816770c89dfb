"""libvirt's errors in our words. The errors are built as libvirt-python builds them: from the C library's tuple."""

from __future__ import annotations

import libvirt
import pytest

from tasks.hypervisor.errors import FALLBACK, TABLE, message_of, translate, translate_open, translate_transfer
from tasks.model.errors import HostUnreachable, HypervisorError, OperatorMustFix, OutcomeUnknown, RetryLater


def error(code: int, text: str = "what libvirt says", domain: int = libvirt.VIR_FROM_QEMU) -> libvirt.libvirtError:
    made = libvirt.libvirtError("some call failed")
    made.err = (code, domain, text, 2, None, None, None, 0, 0)
    return made


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (42, OperatorMustFix, "NO_DOMAIN"),
        (68, RetryLater, "JOB_LOCK_TIMEOUT"),
        (78, OperatorMustFix, "ABORTED"),
        (81, OperatorMustFix, "MIGRATION_UNSAFE"),
        (55, OperatorMustFix, "OPERATION_INVALID"),
        (69, OutcomeUnknown, "PERSIST_FAILED"),
        (9999, OperatorMustFix, "LIBVIRT_ERROR"),
    ],
)
def test_the_table(number: int, kind: type[HypervisorError], code: str) -> None:
    translated = translate(error(number), "alpha", lost=False, effect=True)
    assert (type(translated), translated.code) == (kind, code)
    assert translated.message == "alpha: what libvirt says"
    assert translated.hint


def test_every_row_says_what_to_do() -> None:
    assert all(row.hint and row.code.isupper() for row in (*TABLE.values(), FALLBACK))


def test_a_broken_connection_leaves_only_effects_open() -> None:
    lost = error(1, "client socket is closed", libvirt.VIR_FROM_RPC)
    looked = translate(lost, "alpha", lost=True, effect=False)
    changed = translate(lost, "alpha", lost=True, effect=True)
    assert (type(looked), looked.code) == (HostUnreachable, "CONNECTION_LOST")
    assert (type(changed), changed.code) == (OutcomeUnknown, "CONNECTION_LOST")


def test_a_transfers_peer_is_told_apart_from_our_own_connection() -> None:
    broken = error(38, "unable to connect to server at 'beta:16509'", libvirt.VIR_FROM_RPC)
    peer = translate_transfer(broken, "alpha", "beta", lost=False)
    own = translate_transfer(broken, "alpha", "beta", lost=True)
    assert (type(peer), peer.code) == (OutcomeUnknown, "PEER_UNREACHABLE")
    assert "alpha lost or did not reach beta" in peer.message
    assert (type(own), own.code) == (OutcomeUnknown, "CONNECTION_LOST")


def test_a_peer_that_refuses_the_source() -> None:
    refused = translate_transfer(error(45, domain=libvirt.VIR_FROM_RPC), "alpha", "beta", lost=False)
    assert (type(refused), refused.code) == (OperatorMustFix, "AUTH_FAILED")


@pytest.mark.parametrize(
    ("number", "text", "code"),
    [
        (38, "Cannot recv data: root@alpha: Permission denied (publickey).: Connection reset by peer", "AUTH_FAILED"),
        (38, "Cannot recv data: Host key verification failed.: Connection reset by peer", "HOST_NOT_TRUSTED"),
        (79, "authentication cancelled", "AUTH_FAILED"),
        (38, "unable to connect to server at 'alpha:16509': Connection refused", "HOST_UNREACHABLE"),
    ],
)
def test_whatever_keeps_us_out_the_host_cannot_be_observed(number: int, text: str, code: str) -> None:
    translated = translate_open(error(number, text, libvirt.VIR_FROM_RPC), "alpha", "qemu+ssh://alpha/system")
    assert isinstance(translated, HostUnreachable)
    assert translated.code == code
    assert text in translated.message


def test_messages_are_one_line_and_hold_no_password() -> None:
    text = message_of(error(1, "cannot open\n qemu+tcp://me:secret@alpha/system"))
    assert text == "cannot open qemu+tcp://me:***@alpha/system"
