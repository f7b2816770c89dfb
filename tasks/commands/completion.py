"""What the shell may complete: names that stand in the configuration. Never an error, and nothing is asked."""

from __future__ import annotations

from tasks.model.errors import VmferryError


def complete_host(incomplete: str) -> list[str]:
    """Hosts of the inventory."""
    return [name for name in _names("hosts") if name.startswith(incomplete)]


def complete_policy(incomplete: str) -> list[str]:
    """Named policies."""
    return [name for name in _names("policies") if name.startswith(incomplete)]


def _names(section: str) -> list[str]:
    from config.settings import load_settings

    try:
        return sorted(getattr(load_settings(), section))
    except VmferryError:
        return []
