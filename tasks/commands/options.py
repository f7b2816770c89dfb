"""How a VM shall go, as people type it: the options that plan and migrate share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tasks.commands.completion import complete_host, complete_policy

Destination = Annotated[str, typer.Option("--to", metavar="HOST", help="Destination.", autocompletion=complete_host)]
Source = Annotated[
    str | None,
    typer.Option("--from", metavar="HOST", help="Source; found by looking when absent.", autocompletion=complete_host),
]
MethodOption = Annotated[str, typer.Option(help="auto, live, suspend, saved or offline.")]
StorageOption = Annotated[str, typer.Option(help="auto, shared, copy or incremental.")]
PoolOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        metavar="[DISK=]POOL",
        help="Destination pool of a disk that is copied (vda=fast), or of all.",
    ),
]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option(metavar="DISK=DEVICE", help="Existing block device of the destination that a disk is written to."),
]
SizeOption = Annotated[
    list[str] | None, typer.Option(metavar="DISK=SIZE", help="Grow a copied disk when it has arrived (vda=20G).")
]
AcceptOption = Annotated[
    list[str] | None, typer.Option(metavar="CODE", help="A finding that shall not stand in the way; may be repeated.")
]
VerifyOption = Annotated[
    str, typer.Option(help="deep (everything that was copied through the worker is read again), basic, or auto: deep.")
]
SourceDisksOption = Annotated[
    str, typer.Option(help="keep, or delete the source's files of copied disks when the VM has moved and was verified.")
]
RemedyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Settle a finding: see docs/remedies.md; may be repeated."),
]
ShutDownOption = Annotated[
    bool,
    typer.Option(
        "--shut-down", help="With --method offline: ask a VM that runs to shut down; it is started again afterwards."
    ),
]
DataPathOption = Annotated[
    str, typer.Option(help="auto, hosts or worker: how the disks of a VM that is shut off go when they are copied.")
]
PolicyOption = Annotated[str, typer.Option(help="Named policy of the configuration.", autocompletion=complete_policy)]


def request_values(
    vm: str,
    to: str,
    source: str | None,
    method: str,
    storage: str,
    policy: str,
    pool: list[str] | None,
    device: list[str] | None,
    size: list[str] | None,
    accept: list[str] | None,
    verify: str,
    remedy: list[str] | None,
    source_disks: str,
    shut_down: bool,
    data_path: str,
) -> dict[str, Any]:
    """What was said, as a request has it; what was not said is left out.

    Raises:
        InvalidRequest
    """
    from tasks.model.request import parse_devices, parse_pools, parse_sizes

    values = {"vm": vm, "destination": to, "source": source, "method": method, "storage": storage, "policy": policy}
    more = {
        "pools": parse_pools(pool or []),
        "devices": parse_devices(device or []),
        "sizes": parse_sizes(size or []),
        "accept": accept,
        "verify": verify if verify != "auto" else "",
        "remedies": remedy,
        "source_disks": source_disks if source_disks != "keep" else "",
        "shut_down": "allowed" if shut_down else "",
        "data_path": data_path if data_path != "auto" else "",
    }
    return values | {name: value for name, value in more.items() if value}
