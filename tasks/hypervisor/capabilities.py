"""What a host's capabilities say about the guests it can run."""

from __future__ import annotations

from dataclasses import dataclass, field

from lxml import etree


@dataclass(frozen=True, slots=True)
class Guests:
    """The fully virtualised guests of one architecture."""

    emulators: frozenset[str] = frozenset()
    virt_types: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    """Machine types of the default emulator, aliases and what they stand for."""
    machines_by_type: dict[str, frozenset[str]] = field(default_factory=dict)
    """Machine types of those virtualisation types that have their own."""

    aliases: dict[str, str] = field(default_factory=dict)
    """Names that stand for a machine type, with which one that is."""
    aliases_by_type: dict[str, dict[str, str]] = field(default_factory=dict)

    def aliases_of(self, virt_type: str) -> dict[str, str]:
        """The same for names; of the default emulator where the virtualisation type has no machines of its own."""
        own = bool(self.machines_by_type.get(virt_type))
        return self.aliases_by_type.get(virt_type, {}) if own else self.aliases

    def machines_of(self, virt_type: str) -> frozenset[str]:
        """Machine types for a virtualisation type; any when it is empty."""
        return self.machines_by_type.get(virt_type) or self.machines


def parse_guests(capabilities: etree._Element, arch: str) -> Guests:
    """Read ``guest`` elements (https://libvirt.org/formatcaps.html#guest-capabilities) of one architecture."""
    arches = [
        element
        for guest in capabilities.findall("guest")
        if guest.findtext("os_type") == "hvm"
        for element in guest.findall("arch")
        if element.get("name") == arch
    ]
    domains = [domain for element in arches for domain in element.findall("domain")]
    emulators = [e.findtext("emulator") for e in (*arches, *domains)]
    return Guests(
        emulators=frozenset(path for path in emulators if path),
        virt_types=frozenset(domain.get("type", "") for domain in domains),
        machines=frozenset(name for element in arches for name in _machines(element)),
        machines_by_type={domain.get("type", ""): frozenset(_machines(domain)) for domain in domains},
        aliases={name: exact for element in arches for name, exact in _aliases(element).items()},
        aliases_by_type={domain.get("type", ""): _aliases(domain) for domain in domains},
    )


def parse_security_models(capabilities: etree._Element) -> frozenset[str] | None:
    """Security drivers (https://libvirt.org/formatcaps.html); None when there is no word of them."""
    return frozenset(model.text or "" for model in capabilities.findall("host/secmodel/model")) or None


def parse_nodes(capabilities: etree._Element) -> frozenset[int] | None:
    """NUMA nodes (https://libvirt.org/formatcaps.html); None when there is no word of them."""
    ids = [cell.get("id", "") for cell in capabilities.findall("host/topology/cells/cell")]
    return frozenset(int(number) for number in ids if number.isdecimal()) or None


def parse_page_sizes(capabilities: etree._Element) -> tuple[int, ...]:
    """Sizes of huge pages that the host's CPUs have, KiB; the smallest are ordinary pages."""
    sizes = {page.get("size", "") for page in capabilities.findall("host/cpu/pages") if page.get("unit") == "KiB"}
    return tuple(sorted(int(size) for size in sizes if size.isdecimal()))[1:]


def parse_tpm(capabilities: etree._Element) -> frozenset[str] | None:
    """Versions of emulated TPMs in a domain's capabilities; None when they say nothing (before libvirt 8.10)."""
    tpm = capabilities.find("devices/tpm")
    if tpm is None:
        return None
    values = {enum.get("name"): {v.text or "" for v in enum.findall("value")} for enum in tpm.findall("enum")}
    if tpm.get("supported") != "yes" or "emulator" not in values.get("backendModel", set()):
        return frozenset()
    return frozenset(values["backendVersion"]) if "backendVersion" in values else None


def _aliases(element: etree._Element) -> dict[str, str]:
    found = ((machine.text, machine.get("canonical")) for machine in element.findall("machine"))
    return {name: exact for name, exact in found if name and exact}


def _machines(element: etree._Element) -> list[str]:
    found = element.findall("machine")
    names = [machine.text for machine in found] + [machine.get("canonical") for machine in found]
    return [name for name in names if name]
