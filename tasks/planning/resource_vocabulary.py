"""Names of elements that libvirt knows, where an unknown one would mean a device or a part we cannot judge."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DOMAIN_CHILDREN = _words(
    """
    blkiotune bootloader bootloader_args clock cpu cputune currentMemory defaultiothread description devices features
    fibrechannel genid hwuuid id idmap iothreadids iothreads keywrap launchSecurity maxMemory memory memoryBacking
    memtune metadata name numatune on_crash on_lockfailure on_poweroff on_reboot os perf pm resource seclabel sysinfo
    throttlegroups title uuid vcpu vcpus
    """
)

OS_DESCENDANTS = _words(
    """
    acpi auth bios boot bootmenu cipher cmdline config cookie cookies dtb encryption feature firmware format host
    identity init initarg initdir initenv initgroup initiator initrd inituser iqn ivgen kernel label loader nvram
    readahead reconnect reservations root seclabel secret shim slice slices smbios snapshot source ssl table timeout
    type varstore
    """
)

DEVICE_DESCENDANTS = _words(
    """
    acceleration acpi active_pcr_banks adapter address alias alignsize apic arch audio auth backend backenddomain
    backingStore bandwidth binary blockio block blocksize boot cache caching_mode capabilities certificate channel char
    cid cipher clipboard coalesce codec config console controller cookie cookies crypto current dataStore database
    device disk downscript driver dynamicMemslots eim emulator encryption feature features filesystem filetransfer
    filterref format frames geometry gid gl graphics guest host hostdev hub idmap identity image inbound initiator
    input interface intremap iommu iotlb iothread iothreads iotune ip iqn ivgen jpeg key knownHosts label lease link
    listen local lock lockspace log mac master max_size maxphysaddr memballoon memory metadata_cache mirror model mouse
    msi mtu node nodemask nvram openfiles outbound output page pagesize panic parallel parameter parameters parentaddr
    path pcihole64 playback pmem port portForward portForwarding product profile property protocol pstore queue range
    rate read_bytes_sec readahead readonly reconnect redirdev redirfilter relabel requested reservations resolution rng
    rom route rx sandbox script seclabel secret serial server settings sha1 sha256 sha384 sha512 shareable shmem size
    slice slices smartcard snapshot sndbuf sound source space_hard_limit space_soft_limit ssl state static statistic
    statistics stats streaming tag target teaming thread_pool throttlefilter throttlefilters timeout tpm transient tune
    tx uid usbdev uuid vendor version vgabios video virtualport vlan vsock watchdog wwn zlib zpci
    frontend backend_domain total_bytes_sec write_bytes_sec total_iops_sec read_iops_sec write_iops_sec
    total_bytes_sec_max read_bytes_sec_max write_bytes_sec_max total_iops_sec_max read_iops_sec_max write_iops_sec_max
    size_iops_sec group_name total_bytes_sec_max_length read_bytes_sec_max_length write_bytes_sec_max_length
    total_iops_sec_max_length read_iops_sec_max_length write_iops_sec_max_length
    """
)


def is_known_element(path: str, name: str) -> bool:
    """Whether libvirt has such an element there; ``path`` is its place below ``domain``, without folding.

    Only where an unknown element could bring something of the host along: right below the domain, in ``os`` and in
    ``devices``. CPU features and the like are the guest's and may be as new as they want.
    """
    if "/" not in path:
        return name in DOMAIN_CHILDREN
    if path.startswith("devices/"):
        return name in DEVICE_DESCENDANTS
    return not path.startswith("os/") or name in OS_DESCENDANTS
