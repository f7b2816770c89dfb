"""The hosts' libvirt daemons: the only package that imports libvirt. ``adapter.LibvirtHypervisor`` is its front."""
