"""``vmferry webhooks``."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated

import typer


def webhooks(
    undelivered: Annotated[
        str, typer.Option(metavar="NAME", help="What could not be delivered to this one, a JSON object a line.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the model as JSON and nothing else.")] = False,
) -> None:
    """How far other systems were told, and what could not be delivered."""
    from config.settings import load_settings
    from tasks.client import Client
    from tasks.rendering.records import when
    from tasks.rendering.tables import print_rows

    settings = load_settings()
    with closing(Client(settings)) as client:
        if undelivered:
            for lost in client.undelivered(undelivered):
                typer.echo(lost.model_dump_json())
            return
        found = client.webhooks()
    if as_json:
        said = {name: None if kept is None else kept.model_dump() for name, (kept, _) in found.items()}
        typer.echo(json.dumps(said, indent=2))
        return
    rows = [
        [
            name,
            settings.webhooks[name].url,
            kept.position if kept else "nothing yet",
            when(kept.next_at) if kept and kept.tries else None,
            lost,
            kept.error if kept else None,
        ]
        for name, (kept, lost) in found.items()
    ]
    print_rows(["NAME", "URL", "TOLD UP TO", "TRIED AGAIN", "UNDELIVERED", "ERROR"], rows, empty="none is configured")
