"""A transfer's progress in a few words, for places that have room for one line."""

from __future__ import annotations

from tasks.model.run import Channel, Progress

MIB = 1024**2
GIB = 1024**3


def describe_progress(progress: Progress) -> str:
    """For example ``62 %: memory 410 of 660 MiB, disks 1.2 of 4.0 GiB, pass 3``; empty before there is anything to say.

    Passes over memory repeat what the guest has changed meanwhile, so that the share may go back.
    """
    channels = [("memory", progress.memory), ("disks", progress.disk)]
    known = [(name, channel) for name, channel in channels if channel.total_bytes]
    if not known:
        return ""
    total = sum(channel.total_bytes for _, channel in known)
    share = 100 * sum(_done(channel) for _, channel in known) // total
    iteration = [f"pass {progress.iteration}"] if progress.iteration > 1 and not progress.post_copy else []
    iteration += ["post-copy"] if progress.post_copy else []
    return f"{share} %: " + ", ".join([*(f"{name} {_amount(channel)}" for name, channel in known), *iteration])


def _done(channel: Channel) -> int:
    return min(channel.total_bytes, max(0, channel.total_bytes - channel.remaining_bytes))


def _amount(channel: Channel) -> str:
    if channel.total_bytes >= 10 * GIB:
        return f"{_done(channel) / GIB:.1f} of {channel.total_bytes / GIB:.1f} GiB"
    return f"{_done(channel) // MIB} of {-(-channel.total_bytes // MIB)} MiB"
