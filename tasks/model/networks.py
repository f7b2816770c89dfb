"""libvirt networks themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A libvirt network of a host at one moment."""

    name: str
    uuid: str
    active: bool
    persistent: bool
    autostart: bool


class NetworkPort(Protocol):
    """The part of ``tasks.model.ports.Hypervisor`` that is about networks themselves.

    Whatever changes or removes a network names it by UUID, which tells whose it is: libvirt 9.0 keeps no other mark.
    """

    def find_network(self, host: str, key: str) -> NetworkView | None:
        """Look a network up by UUID or by name; None when the host does not have it."""

    def fetch_network_xml(self, host: str, name: str) -> str:
        """The definition. Raises ``OperatorMustFix`` (``NO_NETWORK``)."""

    def define_network(self, host: str, xml: str) -> None:
        """Define a network; nothing happens when it is defined with the same name and UUID already.

        Raises ``OperatorMustFix`` (``NETWORK_EXISTS``) when the name, the UUID or the bridge is another network's."""

    def start_network(self, host: str, uuid: str) -> None:
        """Start a network; no error when it is active. Raises ``OperatorMustFix`` (``NETWORK_NOT_STARTED``)."""

    def stop_network(self, host: str, uuid: str) -> None:
        """Stop a network; no error when it is not active, or not there. VMs that are on it lose their connection."""

    def set_network_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """Set whether the host starts the network at boot."""

    def undefine_network(self, host: str, uuid: str) -> None:
        """Remove an inactive network's definition; refuses (``OPERATION_INVALID``) when it is active. No error when
        there is none."""
