"""How a host is reached, from its inventory entry."""

from __future__ import annotations

import pytest

from tasks.hypervisor.address import HostAddress, migrate_uri, network_host, peer_uri, without_password, worker_uri
from tasks.model.errors import OperatorMustFix


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("qemu+ssh://root@alpha/system", "qemu+ssh://root@alpha/system?no_tty=1"),
        ("qemu+ssh://alpha/system?keyfile=/k%20ey", "qemu+ssh://alpha/system?keyfile=%2Fk+ey&no_tty=1"),
        ("qemu+ssh://alpha/system?no_tty=0", "qemu+ssh://alpha/system?no_tty=0"),
        ("qemu+tcp://alpha/system", "qemu+tcp://alpha/system"),
        ("qemu:///system", "qemu:///system"),
    ],
)
def test_ssh_never_asks_on_a_terminal(uri: str, opened: str) -> None:
    assert worker_uri(HostAddress(uri)) == opened


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu+ssh://root@alpha:2222/system", "alpha"),
        ("qemu+tls://[fe80::1]/system", "fe80::1"),
        ("qemu://alpha/system", "alpha"),
        ("qemu:///system", None),
        ("qemu+unix:///system?socket=/run/x", None),
        ("qemu+unix://alpha/system", None),
        ("test:///default", None),
        ("test://alpha/default", None),
    ],
)
def test_the_host_that_a_uri_leads_to(uri: str, host: str | None) -> None:
    assert network_host(uri) == host


def test_the_peer_uri_is_the_workers_unless_told_otherwise() -> None:
    assert peer_uri("beta", HostAddress("qemu+tcp://beta/system")) == "qemu+tcp://beta/system"
    assert peer_uri("beta", HostAddress("qemu:///system", "qemu+tls://beta/system")) == "qemu+tls://beta/system"


@pytest.mark.parametrize(
    "address", [HostAddress("qemu:///system"), HostAddress("qemu+tcp://b/system", "qemu+unix:///x")]
)
def test_a_local_uri_is_no_peer_uri(address: HostAddress) -> None:
    with pytest.raises(OperatorMustFix) as caught:
        peer_uri("beta", address)
    assert caught.value.code == "PEER_URI_UNUSABLE"
    assert "peer_uri of host beta" in caught.value.hint


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        (HostAddress("qemu+ssh://root@beta:2222/system"), "tcp://beta"),
        (HostAddress("qemu+ssh://beta/system", "qemu+tls://beta.lan/system"), "tcp://beta.lan"),
        (HostAddress("qemu+ssh://beta/system", migration_address="10.0.1.11"), "tcp://10.0.1.11"),
        (HostAddress("qemu+ssh://beta/system", migration_address="fd00::5"), "tcp://[fd00::5]"),
        (HostAddress("qemu+ssh://beta/system", migration_address="net:49200"), "tcp://net:49200"),
        (HostAddress("qemu:///system"), None),
    ],
)
def test_where_the_memory_goes(address: HostAddress, uri: str | None) -> None:
    assert migrate_uri(address) == uri


def test_no_password_is_shown() -> None:
    assert without_password("qemu+tcp://me:secret@alpha:16509/system?x=1") == "qemu+tcp://me:***@alpha:16509/system?x=1"
    assert without_password("qemu+tcp://me@alpha/system") == "qemu+tcp://me@alpha/system"
