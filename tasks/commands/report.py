"""``vmferry report``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from tasks.model.errors import InvalidRequest


def report(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a migration, or of a drain.")],
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="Where the page is written.")],
) -> None:
    """Write what happened, and how it went, into one HTML file that needs nothing else."""
    from config.settings import load_settings
    from tasks.client import Client
    from tasks.rendering.report import render_report

    with closing(Client(load_settings())) as client:
        page = render_report(client.report(run_id))
    try:
        html.write_text(page, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        message = f"cannot write {html}: {error.strerror}"
        raise InvalidRequest("CANNOT_WRITE", message, "name a file in a folder that exists") from None
    typer.echo(f"{html}: {html.stat().st_size / 2**20:.1f} MiB")
